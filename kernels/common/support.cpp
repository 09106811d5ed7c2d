// Errors, dtypes, memory and small arithmetic of the runtime.
#include "runtime.h"

#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <utility>

namespace voxelrt {

namespace {
struct DtypeRow {
    int bytes;
    const char *name;
};
constexpr DtypeRow kDtypes[] = {{0, "none"},   {4, "float32"}, {8, "float64"}, {2, "float16"}, {2, "bfloat16"},
                                {1, "int8"},   {1, "uint8"},   {2, "int16"},   {2, "uint16"},  {4, "int32"},
                                {4, "uint32"}, {8, "int64"},   {8, "uint64"},  {1, "bool"}};
constexpr int kDtypeCount = sizeof kDtypes / sizeof kDtypes[0];
constexpr uint64_t kHugePage = 2u << 20;
#if defined(__SANITIZE_ADDRESS__)
// The sanitizer guards and poisons what malloc gives.
char *map_aligned(uint64_t bytes) {
    return static_cast<char *>(std::aligned_alloc(kHugePage, bytes));
}
void unmap_aligned(char *data, uint64_t) {
    std::free(data);
}
#else
char *map_aligned(uint64_t bytes) {
    const uint64_t reserved = bytes + kHugePage;
    if (reserved < bytes)
        return nullptr;
    void *memory = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return nullptr;
    char *const start = static_cast<char *>(memory);
    const uint64_t before = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
    if (before)
        munmap(start, before);
    munmap(start + before + bytes, kHugePage - before);
    madvise(start + before, bytes, MADV_HUGEPAGE); // a hint; its failure costs time only
    return start + before;
}
void unmap_aligned(char *data, uint64_t bytes) {
    munmap(data, bytes);
}
#endif
} // namespace

int dtype_bytes(int dtype) {
    return dtype > 0 && dtype < kDtypeCount ? kDtypes[dtype].bytes : 0;
}
const char *dtype_name(int dtype) {
    return dtype >= 0 && dtype < kDtypeCount ? kDtypes[dtype].name : "unknown";
}

uint64_t multiply_checked(uint64_t a, uint64_t b, voxelrt_status status) {
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product) || product > (uint64_t(1) << 62))
        raise(status, "a size of %llu times %llu does not fit", static_cast<unsigned long long>(a),
              static_cast<unsigned long long>(b));
    return product;
}

uint64_t extent_elements(const Tensor &tensor, voxelrt_status status) {
    uint64_t last = 0;
    const bool blocked = tensor.layout == VOXELRT_BLOCKED16;
    for (int i = 0; i < tensor.rank; ++i) {
        uint64_t size = static_cast<uint64_t>(tensor.dims[i]);
        if (blocked && i == 1)
            size = (size + kBlock - 1) / kBlock;
        if (size == 0)
            return 0;
        last += multiply_checked(size - 1, static_cast<uint64_t>(tensor.strides[i]), status);
        if (last > (uint64_t(1) << 62))
            raise(status, "a tensor that reaches over 2^62 elements");
    }
    return last + (blocked ? kBlock : 1);
}

// Large memory comes from the system, not from malloc: what malloc hands out a second time lies on the small pages that
// it once had, where a Winograd step, which walks 216 arrays at a time, takes twice as long.
Buffer::Buffer(uint64_t bytes) {
    if (bytes == 0)
        return;
    const bool large = bytes >= kHugePage;
    const uint64_t alignment = large ? kHugePage : 64;
    const uint64_t rounded = (bytes + alignment - 1) / alignment * alignment;
    data_ = large ? map_aligned(rounded) : static_cast<char *>(std::aligned_alloc(alignment, rounded));
    if (!data_)
        throw std::bad_alloc();
    bytes_ = bytes;
}

Buffer::~Buffer() {
    if (bytes_ >= kHugePage)
        unmap_aligned(data_, (bytes_ + kHugePage - 1) / kHugePage * kHugePage);
    else
        std::free(data_);
}
Buffer::Buffer(Buffer &&other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
Buffer &Buffer::operator=(Buffer &&other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

void copy_strided(const Tensor &from, const Tensor &to) {
    const int bytes = dtype_bytes(from.dtype);
    if (from.count() == 0)
        return;
    if (from.contiguous() && to.contiguous()) {
        std::memcpy(to.data, from.data, static_cast<size_t>(from.count()) * bytes);
        return;
    }
    int64_t index[VOXELRT_MAX_RANK] = {};
    const int last = from.rank - 1;
    const int64_t row = from.dims[last], a = from.strides[last] * bytes, b = to.strides[last] * bytes;
    for (;;) {
        const char *source = from.data;
        char *target = to.data;
        for (int i = 0; i < last; ++i) {
            source += index[i] * from.strides[i] * bytes;
            target += index[i] * to.strides[i] * bytes;
        }
        for (int64_t x = 0; x < row; ++x)
            std::memcpy(target + x * b, source + x * a, bytes);
        int axis = last - 1;
        while (axis >= 0 && ++index[axis] == from.dims[axis])
            index[axis--] = 0;
        if (axis < 0)
            return;
    }
}

} // namespace voxelrt

extern "C" {

voxelrt_status voxelrt_error_status(const voxelrt_error *error) {
    return error ? error->status : VOXELRT_OK;
}
const char *voxelrt_error_message(const voxelrt_error *error) {
    return error ? error->message.c_str() : "";
}
void voxelrt_error_release(voxelrt_error *error) {
    delete error;
}

#define VOXELRT_TEXT2(x) #x
#define VOXELRT_TEXT(x) VOXELRT_TEXT2(x)
const char *voxelrt_version(void) {
    return VOXELRT_TEXT(VOXELRT_VERSION_MAJOR) "." VOXELRT_TEXT(VOXELRT_VERSION_MINOR) "." VOXELRT_TEXT(
        VOXELRT_VERSION_PATCH);
}

uint32_t voxelrt_record_size(const char *name) {
    using namespace voxelrt::format;
    struct Row {
        const char *name;
        size_t bytes;
    };
#define ROW(T)                                                                                                         \
    {                                                                                                                  \
        #T, sizeof(T)                                                                                                  \
    }
    static constexpr Row rows[] = {ROW(FileHeader),    ROW(SectionRecord), ROW(CompiledHeader), ROW(WeightRecord),
                                   ROW(OperandRecord), ROW(StepRecord),    ROW(IoRecord),       ROW(VariantRecord)};
#undef ROW
    for (const Row &row : rows)
        if (name && std::strcmp(row.name, name) == 0)
            return static_cast<uint32_t>(row.bytes);
    return 0;
}
}
