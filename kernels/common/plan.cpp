// Plans as C's callers see them: opened, described, released.
#include "runtime.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace voxelrt;

voxelrt_plan::~voxelrt_plan() {
    if (mapped)
        munmap(const_cast<char *>(base), bytes);
}

namespace {

voxelrt_plan_options options_of(const voxelrt_plan_options *given) {
    return taken(given, "options", 2 * sizeof(uint32_t));
}

void map_file(voxelrt_plan &plan, const char *path) {
    // The path may hold a patient's name: it stays out of messages; the caller knows which file it asked for.
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        raise(VOXELRT_IO, "the plan file cannot be opened: %s", std::strerror(errno));
    struct stat status;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
        close(file);
        raise(VOXELRT_IO, "the plan is not a regular file");
    }
    plan.bytes = static_cast<uint64_t>(status.st_size);
    if (plan.bytes > 0) {
        void *memory = mmap(nullptr, plan.bytes, PROT_READ, MAP_PRIVATE, file, 0);
        const int reason = errno;
        close(file);
        if (memory == MAP_FAILED)
            raise(VOXELRT_IO, "the plan file cannot be mapped: %s", std::strerror(reason));
        plan.base = static_cast<const char *>(memory);
        plan.mapped = true;
    } else {
        close(file);
    }
}

void fill(const voxelrt_plan &plan, const format::IoRecord &record, voxelrt_io_info *info) {
    info->dtype = record.dtype;
    info->rank = record.rank;
    info->batched = record.batched;
    info->reserved = 0;
    info->name = plan.strings + record.name;
    for (int i = 0; i < VOXELRT_MAX_RANK; ++i)
        info->dims[i] = i < record.rank ? record.dims[i] : 0;
}

const format::VariantRecord &variant_of(const voxelrt_plan *plan, uint32_t variant) {
    if (!plan || variant >= plan->variant_count)
        raise(VOXELRT_INVALID_ARGUMENT, "there is no variant %u", variant);
    return plan->variants[variant];
}

} // namespace

extern "C" {

voxelrt_status voxelrt_plan_open(const char *path, const voxelrt_plan_options *options, voxelrt_plan **plan,
                                 voxelrt_error **error) {
    return guarded(error, [&] {
        if (!path || !plan)
            raise(VOXELRT_INVALID_ARGUMENT, "path or plan is NULL");
        auto made = std::make_unique<voxelrt_plan>();
        map_file(*made, path);
        check_plan(*made, options_of(options));
        *plan = made.release();
    });
}

voxelrt_status voxelrt_plan_from_memory(const void *data, size_t bytes, const voxelrt_plan_options *options,
                                        voxelrt_plan **plan, voxelrt_error **error) {
    return guarded(error, [&] {
        if (!data || !plan || reinterpret_cast<uintptr_t>(data) % 64 != 0)
            raise(VOXELRT_INVALID_ARGUMENT, "data or plan is NULL, or the data is not aligned to 64 bytes");
        auto made = std::make_unique<voxelrt_plan>();
        made->base = static_cast<const char *>(data);
        made->bytes = bytes;
        check_plan(*made, options_of(options));
        *plan = made.release();
    });
}

void voxelrt_plan_release(voxelrt_plan *plan) {
    delete plan;
}

uint32_t voxelrt_plan_variants(const voxelrt_plan *plan) {
    return plan ? plan->variant_count : 0;
}

voxelrt_status voxelrt_plan_variant(const voxelrt_plan *plan, uint32_t variant, voxelrt_variant_info *info,
                                    voxelrt_error **error) {
    return guarded(error, [&] {
        check_struct_size(info, "info");
        const format::VariantRecord &record = variant_of(plan, variant);
        info->inputs = record.inputs;
        info->outputs = record.outputs;
        info->steps = record.steps;
        info->batch_min = record.batch_min;
        info->batch_max = record.batch_max;
        info->arena_bytes = record.arena_bytes;
    });
}

voxelrt_status voxelrt_plan_input(const voxelrt_plan *plan, uint32_t variant, uint32_t index, voxelrt_io_info *info,
                                  voxelrt_error **error) {
    return guarded(error, [&] {
        check_struct_size(info, "info");
        const format::VariantRecord &record = variant_of(plan, variant);
        if (index >= record.inputs)
            raise(VOXELRT_INVALID_ARGUMENT, "there is no input %u", index);
        fill(*plan, plan->ios[record.first_io + index], info);
    });
}

voxelrt_status voxelrt_plan_output(const voxelrt_plan *plan, uint32_t variant, uint32_t index, voxelrt_io_info *info,
                                   voxelrt_error **error) {
    return guarded(error, [&] {
        check_struct_size(info, "info");
        const format::VariantRecord &record = variant_of(plan, variant);
        if (index >= record.outputs)
            raise(VOXELRT_INVALID_ARGUMENT, "there is no output %u", index);
        fill(*plan, plan->ios[record.first_io + record.inputs + index], info);
    });
}
}
