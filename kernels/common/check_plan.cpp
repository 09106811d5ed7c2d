// What stands in a plan. The file is untrusted: every count, offset, name and operand is checked here, before anything
// is allocated or run by its word.
#include "runtime.h"

#include <algorithm>
#include <cstring>

namespace voxelrt {

using namespace format;

namespace {

[[noreturn]] void bad(const char *field) {
    raise(VOXELRT_BAD_PLAN, "the plan is damaged: %s", field);
}

struct Bytes {
    const char *data = nullptr;
    uint64_t size = 0;
};

Bytes part(Bytes whole, uint64_t offset, uint64_t size, const char *field) {
    if (offset > whole.size || size > whole.size - offset)
        bad(field);
    return {whole.data + offset, size};
}

template <class T> const T *table(Bytes section, Table where, uint32_t &count, const char *field) {
    if (where.count > UINT32_MAX || where.offset % alignof(T) != 0)
        bad(field);
    const Bytes bytes = part(section, where.offset, where.count * sizeof(T), field);
    count = static_cast<uint32_t>(where.count);
    return reinterpret_cast<const T *>(bytes.data);
}

// All of the plan's tables, while it is being checked.
class Opening {
  public:
    Opening(voxelrt_plan &plan, const voxelrt_plan_options &options)
        : plan_(plan), checksums_(options.skip_checksums == 0), use_(options.pool, false) {}

    void run() {
        find_sections();
        try {
            read_sections();
        } catch (const Failure &failure) {
            if (minor_ <= kMinor)
                throw;
            raise(failure.status, "%s (the plan's format is %u.%u, newer than this library's %u.%u)",
                  failure.message.c_str(), kMajor, minor_, kMajor, kMinor);
        }
    }

  private:
    void read_sections() {
        read_tables();
        for (uint32_t i = 0; i < weight_count_; ++i)
            open_weight(i);
        use_.env.parallel(static_cast<int64_t>(packings_.size()), [this](int64_t i, uint32_t) {
            const Packing &p = packings_[static_cast<size_t>(i)];
            p.packer->pack(p.params, p.raw, p.to);
        });
        plan_.kernels.resize(step_count_);
        for (uint32_t i = 0; i < plan_.variant_count; ++i)
            open_variant(i);
    }

    void find_sections() {
        const Bytes file{plan_.base, plan_.bytes};
        if (file.size < sizeof(FileHeader))
            raise(VOXELRT_BAD_PLAN, "the file has %llu bytes and is too short for a plan",
                  static_cast<unsigned long long>(file.size));
        FileHeader header;
        std::memcpy(&header, file.data, sizeof header);
        if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0)
            raise(VOXELRT_BAD_PLAN, "this is not a VoxelRT plan (its first bytes are not the plan's mark)");
        if (header.major != kMajor)
            raise(VOXELRT_BAD_PLAN, "the plan's format is %u.%u; this library opens %u.x", header.major, header.minor,
                  kMajor);
        if (header.file_bytes != file.size)
            raise(VOXELRT_BAD_PLAN, "the plan says it has %llu bytes, the file has %llu: it is truncated or damaged",
                  static_cast<unsigned long long>(header.file_bytes), static_cast<unsigned long long>(file.size));
        if (header.section_count > 4096 || header.table_offset % 8 != 0)
            bad("section count");
        const Bytes records =
            part(file, header.table_offset, header.section_count * sizeof(SectionRecord), "section table");
        minor_ = header.minor;
        const uint32_t expected = header.crc;
        header.crc = 0;
        const uint32_t crc =
            voxelrt_crc32c(voxelrt_crc32c(0, &header, sizeof header), records.data, static_cast<size_t>(records.size));
        if (crc != expected)
            bad("checksum of the header");
        std::string present;
        bool found = false;
        for (uint32_t i = 0; i < header.section_count; ++i) {
            SectionRecord record;
            std::memcpy(&record, records.data + i * sizeof record, sizeof record);
            record.target[sizeof record.target - 1] = '\0';
            const Bytes bytes = part(file, record.offset, record.bytes, "section bounds");
            if (record.offset % 64 != 0)
                bad("section alignment");
            const bool ours = std::strcmp(record.target, registry().target) == 0;
            if (record.kind == kCompiled)
                present += std::string(present.empty() ? "" : ", ") + record.target;
            Bytes *mine = record.kind == kWeights            ? &raw_
                          : record.kind == kCompiled && ours ? &section_
                          : record.kind == kPacked && ours   ? &packed_
                                                             : nullptr;
            if (!mine)
                continue;
            if (checksums_ && checksum(bytes) != record.crc)
                bad(record.kind == kWeights  ? "checksum of the weights"
                    : record.kind == kPacked ? "checksum of the packed weights"
                                             : "checksum of the compiled section");
            *mine = bytes;
            found = found || record.kind == kCompiled;
        }
        if (!found)
            raise(VOXELRT_NO_SECTION, "the plan has no section for %s; it has: %s", registry().target,
                  present.empty() ? "none" : present.c_str());
    }

    // Of a section, by all threads: most of the time is that of bringing a mapped file into memory.
    uint32_t checksum(Bytes bytes) const {
        constexpr uint64_t kPiece = 4u << 20;
        const auto length = [&](size_t i) { return std::min(kPiece, bytes.size - i * kPiece); };
        std::vector<uint32_t> pieces((bytes.size + kPiece - 1) / kPiece);
        use_.env.parallel(static_cast<int64_t>(pieces.size()), [&](int64_t piece, uint32_t) {
            const size_t i = static_cast<size_t>(piece);
            pieces[i] = voxelrt_crc32c(0, bytes.data + i * kPiece, static_cast<size_t>(length(i)));
        });
        uint32_t crc = 0;
        for (size_t i = 0; i < pieces.size(); ++i)
            crc = crc32c_joined(crc, pieces[i], length(i));
        return crc;
    }

    void read_tables() {
        const CompiledHeader *header =
            reinterpret_cast<const CompiledHeader *>(part(section_, 0, sizeof(CompiledHeader), "section header").data);
        plan_.strings = table<char>(section_, header->strings, string_bytes_, "strings");
        if (string_bytes_ == 0 || plan_.strings[string_bytes_ - 1] != '\0')
            bad("strings");
        plan_.params = table<char>(section_, header->params, param_bytes_, "parameters");
        const uint32_t *names = table<uint32_t>(section_, header->names, name_count_, "names");
        for (uint32_t i = 0; i < name_count_; ++i)
            string(names[i]);
        weights_ = table<WeightRecord>(section_, header->weights, weight_count_, "weights");
        plan_.operands = table<OperandRecord>(section_, header->operands, operand_count_, "operands");
        plan_.steps = table<StepRecord>(section_, header->steps, step_count_, "steps");
        plan_.ios = table<IoRecord>(section_, header->ios, io_count_, "inputs and outputs");
        plan_.variants = table<VariantRecord>(section_, header->variants, plan_.variant_count, "variants");
        for (uint32_t i = 0; i < io_count_; ++i) {
            string(plan_.ios[i].name);
            check_shape(plan_.ios[i].dtype, plan_.ios[i].rank, plan_.ios[i].dims, "inputs and outputs");
        }
    }

    const char *string(uint32_t offset) const {
        if (offset >= string_bytes_)
            bad("string offset");
        return plan_.strings + offset;
    }

    static uint64_t check_shape(uint8_t dtype, uint8_t rank, const int64_t *dims, const char *field) {
        if (!dtype_bytes(dtype) || rank > kMaxRank)
            bad(field);
        uint64_t bytes = static_cast<uint64_t>(dtype_bytes(dtype));
        for (int i = 0; i < rank; ++i) {
            if (dims[i] < 0)
                bad(field);
            bytes = multiply_checked(bytes, static_cast<uint64_t>(dims[i]), VOXELRT_BAD_PLAN);
        }
        return bytes;
    }

    const char *parameters(uint64_t offset, uint32_t bytes) const {
        return part({plan_.params, param_bytes_}, offset, bytes, "parameter bounds").data;
    }

    const Kernel &kernel(uint32_t name, uint32_t version, uint32_t parameter_bytes) const {
        const Kernel *found = registry().find(string(name));
        if (!found)
            raise(VOXELRT_UNSUPPORTED, "the plan needs the kernel '%.64s', which this library does not have",
                  string(name));
        if (found->version != version)
            raise(VOXELRT_UNSUPPORTED, "the plan needs %s version %u; this library has version %u: compile it again",
                  found->name, version, found->version);
        if (found->parameter_bytes != parameter_bytes)
            bad("size of a kernel's parameters");
        return *found;
    }

    void open_weight(uint32_t index) {
        const WeightRecord &record = weights_[index];
        const uint64_t raw_bytes = check_shape(record.dtype, record.rank, record.dims, "weight shape");
        if (record.form == kPackedForm) {
            const Bytes bytes = part(packed_, record.packed_offset, record.final_bytes, "packed weight bounds");
            if (record.packed_offset % 64 != 0)
                bad("alignment of a packed weight");
            plan_.weights.push_back({bytes.data, bytes.size});
            return;
        }
        const Bytes bytes = part(raw_, record.raw_offset, record.raw_bytes, "weight bounds");
        if (record.form > kPackOnOpen || record.raw_offset % 64 != 0 || record.raw_bytes != raw_bytes)
            bad("weight form, alignment or size");
        if (record.form == kRaw) {
            if (record.final_bytes != raw_bytes)
                bad("weight size");
            plan_.weights.push_back({bytes.data, bytes.size});
            return;
        }
        const Kernel &packer = kernel(record.kernel, record.version, record.params_bytes);
        Tensor raw;
        raw.data = const_cast<char *>(bytes.data);
        raw.dtype = record.dtype;
        raw.rank = record.rank;
        int64_t stride = 1;
        for (int i = record.rank - 1; i >= 0; --i) {
            raw.dims[i] = record.dims[i];
            raw.strides[i] = stride;
            stride *= record.dims[i];
        }
        const char *params = parameters(record.params_offset, record.params_bytes);
        const uint64_t packed_bytes = packer.pack_bytes ? packer.pack_bytes(params, raw) : 0;
        if (packed_bytes == 0 || packed_bytes != record.final_bytes)
            bad("packed size of a weight");
        plan_.packed.emplace_back(packed_bytes);
        packings_.push_back({&packer, params, raw, plan_.packed.back().data()});
        plan_.weights.push_back({plan_.packed.back().data(), packed_bytes});
    }

    void check_operand(const OperandRecord &record, const VariantRecord &variant) const {
        if (record.kind == kNone)
            return;
        check_shape(record.dtype, record.rank, record.dims, "operand shape");
        if (record.layout > VOXELRT_BLOCKED16 || (record.layout == VOXELRT_BLOCKED16 && record.rank != 5))
            bad("operand layout");
        for (int i = 0; i < record.rank; ++i)
            if (record.strides[i] < 0)
                bad("operand strides");
        if (record.flags & ~uint32_t(kBatched) || ((record.flags & kBatched) && record.rank == 0))
            bad("operand flags");
        const Tensor tensor = describe(record, 1);
        const uint64_t unit = static_cast<uint64_t>(dtype_bytes(record.dtype));
        const uint64_t bytes = multiply_checked(extent_elements(tensor, VOXELRT_BAD_PLAN), unit, VOXELRT_BAD_PLAN);
        uint64_t room = 0, offset = record.inner;
        if (record.inner % unit != 0)
            bad("operand alignment");
        switch (record.kind) {
        case kArena:
            room = variant.arena_bytes;
            if (record.offset % 64 != 0 || record.offset > room)
                bad("operand offset");
            offset += record.offset;
            break;
        case kWeight:
            if (record.slot >= plan_.weights.size())
                bad("weight index");
            room = plan_.weights[record.slot].bytes;
            break;
        case kInput:
        case kOutput: {
            if (record.slot >= (record.kind == kInput ? variant.inputs : variant.outputs))
                bad("input or output index");
            const IoRecord &io =
                plan_.ios[variant.first_io + (record.kind == kInput ? 0 : variant.inputs) + record.slot];
            if ((record.flags & kBatched) && !io.batched)
                bad("batch of an operand");
            room = check_shape(io.dtype, io.rank, io.dims, "inputs and outputs");
            break;
        }
        default:
            bad("operand kind");
        }
        if (offset < record.inner || offset > room || bytes > room - offset)
            bad("operand bounds");
    }

    void open_variant(uint32_t index) {
        const VariantRecord &variant = plan_.variants[index];
        if (uint64_t(variant.first_io) + variant.inputs + variant.outputs > io_count_ ||
            uint64_t(variant.first_step) + variant.steps > step_count_ || variant.batch_min < 1 ||
            variant.batch_max < variant.batch_min || variant.arena_bytes > (uint64_t(1) << 48))
            bad("variant");
        for (uint32_t i = variant.first_step; i < variant.first_step + variant.steps; ++i) {
            const StepRecord &record = plan_.steps[i];
            const uint64_t count = uint64_t(record.inputs) + record.outputs + record.extras;
            if (record.first_operand + count > operand_count_ || count > 4096 ||
                uint64_t(record.first_name) + record.name_count > name_count_)
                bad("step");
            const OperandRecord *operands = plan_.operands + record.first_operand;
            for (uint64_t k = 0; k < count; ++k) {
                check_operand(operands[k], variant);
                const bool output = k >= record.inputs && k < uint64_t(record.inputs) + record.outputs;
                if (output && (operands[k].kind == kWeight || operands[k].kind == kInput))
                    bad("a step writes to a weight or an input");
                check_pending(operands, k, record, count);
            }
            check_guards(operands + count, record);
            parameters(record.params_offset, record.params_bytes);
            if (std::strcmp(string(record.kernel), kHostStep) == 0) {
                if (record.params_bytes != sizeof(uint32_t))
                    bad("island");
            } else {
                plan_.kernels[i] = &kernel(record.kernel, record.version, record.params_bytes);
            }
        }
    }

    // The last extras: bools that a step waits for.
    static void check_guards(const OperandRecord *end, const StepRecord &step) {
        const Guards guards(step.guards);
        if (guards.count > kMostGuards || guards.count > step.extras || guards.wanted >> guards.count != 0)
            bad("guards of a step");
        for (const OperandRecord *guard = end - guards.count; guard < end; ++guard) {
            int64_t elements = 1;
            for (int i = 0; i < guard->rank; ++i)
                elements *= guard->dims[i] == 1 ? 1 : 2;
            if (guard->kind == kNone || guard->dtype != VOXELRT_BOOL || elements != 1 || guard->flags != 0)
                bad("guards of a step");
        }
    }

    static void check_pending(const OperandRecord *operands, uint64_t k, const StepRecord &step, uint64_t count) {
        const int32_t pair[2] = {operands[k].pending_scale, operands[k].pending_shift};
        if (pair[0] < 0 && pair[1] < 0)
            return;
        for (int32_t other : pair) {
            if (other < 0 || static_cast<uint64_t>(other) >= count || k >= step.inputs || operands[k].rank < 2)
                bad("pending scale or shift");
            const OperandRecord &vector = operands[other];
            if (vector.kind == kNone || vector.dtype != VOXELRT_F32 || vector.rank != 2 ||
                vector.dims[0] != operands[k].dims[0] || vector.dims[1] != operands[k].dims[1] ||
                vector.strides[1] != 1 || vector.strides[0] != vector.dims[1] ||
                (vector.flags & kBatched) != (operands[k].flags & kBatched))
                bad("pending scale or shift");
        }
    }

    struct Packing {
        const Kernel *packer;
        const char *params;
        Tensor raw;
        char *to;
    };

    voxelrt_plan &plan_;
    bool checksums_;
    PoolUse use_;
    std::vector<Packing> packings_;
    Bytes raw_, section_, packed_;
    uint32_t minor_ = 0;
    uint32_t string_bytes_ = 0, param_bytes_ = 0, name_count_ = 0, weight_count_ = 0, operand_count_ = 0,
             step_count_ = 0, io_count_ = 0;
    const WeightRecord *weights_ = nullptr;
};

} // namespace

void check_plan(voxelrt_plan &plan, const voxelrt_plan_options &options) {
    Opening(plan, options).run();
}

Tensor describe(const OperandRecord &record, int64_t batch) {
    Tensor tensor;
    if (record.kind == kNone)
        return tensor;
    tensor.dtype = record.dtype;
    tensor.layout = record.layout;
    tensor.rank = record.rank;
    tensor.pending_slope = record.pending_slope;
    for (int i = 0; i < record.rank; ++i) {
        tensor.dims[i] = record.dims[i];
        tensor.strides[i] = record.strides[i];
    }
    if (record.flags & kBatched)
        tensor.dims[0] *= batch;
    return tensor;
}

} // namespace voxelrt
