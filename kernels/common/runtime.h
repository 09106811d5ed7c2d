// What the runtime's own files share. Nothing here is seen by kernels or by callers of the C API.
#pragma once

#include "format.h"
#include "kernel.h"

#include <cstdarg>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

struct voxelrt_error {
    voxelrt_status status;
    std::string message;
};

namespace voxelrt {

// Thrown inside the library only; `guarded` turns it into a status and an error object at the C border.
struct Failure {
    voxelrt_status status;
    std::string message;
};

[[noreturn]] inline void raise(voxelrt_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
[[noreturn]] inline void raise(voxelrt_status status, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    throw Failure{status, text};
}

inline voxelrt_status report(voxelrt_error **error, voxelrt_status status, const char *message) noexcept {
    if (error) {
        try {
            *error = new voxelrt_error{status, message};
        } catch (const std::bad_alloc &) {
            *error = nullptr;
        }
    }
    return status;
}

template <class F> voxelrt_status guarded(voxelrt_error **error, F &&body) noexcept {
    if (error)
        *error = nullptr;
    try {
        body();
        return VOXELRT_OK;
    } catch (const Failure &failure) {
        return report(error, failure.status, failure.message.c_str());
    } catch (const std::bad_alloc &) {
        return report(error, VOXELRT_OUT_OF_MEMORY, "out of memory");
    } catch (const std::length_error &) {
        return report(error, VOXELRT_OUT_OF_MEMORY, "out of memory");
    } catch (const std::exception &exception) {
        return report(error, VOXELRT_RUNTIME, exception.what());
    }
}

// Structs that only ever keep their size.
template <class T> void check_struct_size(const T *value, const char *name) {
    if (!value)
        raise(VOXELRT_INVALID_ARGUMENT, "%s is NULL", name);
    if (value->struct_size != sizeof(T))
        raise(VOXELRT_INVALID_ARGUMENT, "%s.struct_size is %u; this library has %zu", name, value->struct_size,
              sizeof(T));
}

// Options grow at their end: those of a caller built against an older header are shorter (`first` is the size they
// began with), and what it does not know is zero; a longer one is of a newer library. NULL is all zeros.
template <class T> T taken(const T *given, const char *name, size_t first) {
    T options{};
    if (!given)
        return options;
    if (given->struct_size < first || given->struct_size > sizeof(T))
        raise(VOXELRT_INVALID_ARGUMENT, "%s.struct_size is %u; this library takes %zu to %zu", name, given->struct_size,
              first, sizeof(T));
    std::memcpy(&options, given, given->struct_size);
    return options;
}

int dtype_bytes(int dtype); // 0 for an unknown dtype
const char *dtype_name(int dtype);

// The kernels of the instruction set in use. Throws Failure where the processor or VOXELRT_CPU_ISA rules all out.
struct Registry {
    const char *isa;
    const char *target;
    std::vector<Kernel> kernels;
    const Kernel *find(const char *name) const;
};
const Registry &registry();

// Memory aligned to 64 bytes (2 MiB and with huge pages where it is large), not initialised.
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(uint64_t bytes);
    ~Buffer();
    Buffer(Buffer &&other) noexcept;
    Buffer &operator=(Buffer &&other) noexcept;
    char *data() const { return data_; }
    uint64_t bytes() const { return bytes_; }

  private:
    char *data_ = nullptr;
    uint64_t bytes_ = 0;
};

// Throws Failure if a kernel's operands or parameters are not what it takes.
void check_step(const Kernel &kernel, const Step &step);

// Copy between strided tensors of equal dims and dtype.
void copy_strided(const Tensor &from, const Tensor &to);

// a * b, a + b, or a Failure of status `status` past 2^62.
uint64_t multiply_checked(uint64_t a, uint64_t b, voxelrt_status status);
// Elements between the first and one past the last that a tensor of these dims and strides touches; strides >= 0.
uint64_t extent_elements(const Tensor &tensor, voxelrt_status status);

// The checksum of bytes whose first part has the checksum `first` and whose last `second_bytes` have `second`.
uint32_t crc32c_joined(uint32_t first, uint32_t second, uint64_t second_bytes);

// The exclusive use of a pool for one run; without a pool the calling thread works alone, and so it does where the pool
// is in use and it need not `wait`.
struct PoolUse {
    explicit PoolUse(voxelrt_pool *pool, bool wait = true);
    ~PoolUse();
    PoolUse(const PoolUse &) = delete;
    PoolUse &operator=(const PoolUse &) = delete;
    // Memory for this run, aligned to 64. A moderate amount is kept by the pool for its next run: touching new memory
    // costs as much as a fast kernel.
    char *scratch(uint64_t bytes);
    Env env;

  private:
    voxelrt_pool *pool_; // held
    Buffer own_;
};

struct WeightView {
    const char *data;
    uint64_t bytes;
};

} // namespace voxelrt

struct voxelrt_plan {
    // The mapped file or the caller's memory.
    const char *base = nullptr;
    uint64_t bytes = 0;
    bool mapped = false;

    std::vector<voxelrt::WeightView> weights;
    std::vector<voxelrt::Buffer> packed; // of pack-on-open weights
    const char *strings = nullptr;
    const char *params = nullptr;
    const voxelrt::format::OperandRecord *operands = nullptr;
    const voxelrt::format::StepRecord *steps = nullptr;
    const voxelrt::format::IoRecord *ios = nullptr;
    const voxelrt::format::VariantRecord *variants = nullptr;
    uint32_t variant_count = 0;
    std::vector<const voxelrt::Kernel *> kernels; // of each step; null: a step of the host

    voxelrt_plan() = default;
    ~voxelrt_plan();
    voxelrt_plan(const voxelrt_plan &) = delete;
    voxelrt_plan &operator=(const voxelrt_plan &) = delete;
};

namespace voxelrt {

// The step that the host executes; its only parameter is the island's number (uint32_t).
constexpr char kHostStep[] = "host.island";

// Fill `tensor` from a record; data stays null.
Tensor describe(const format::OperandRecord &record, int64_t batch);
// Reads the tables of plan.base and packs what the plan holds raw; raises where anything does not fit.
void check_plan(voxelrt_plan &plan, const voxelrt_plan_options &options);
} // namespace voxelrt
