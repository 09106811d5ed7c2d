// The C API for C++17: owners that release what they hold, and errors as exceptions. A header alone; everything goes
// through voxelrt.h, so a program built with one compiler runs with a library built by another.
#ifndef VOXELRT_HPP
#define VOXELRT_HPP

#include "voxelrt.h"

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace voxelrt {

class Error : public std::runtime_error {
  public:
    Error(voxelrt_status status, const std::string &message) : std::runtime_error(message), status_(status) {}
    voxelrt_status status() const noexcept { return status_; }

  private:
    voxelrt_status status_;
};

namespace detail {
// Calls with an error slot as the last argument; throws what was put there.
template <class Function, class... Arguments> void call(Function function, Arguments... arguments) {
    voxelrt_error *error = nullptr;
    const voxelrt_status status = function(arguments..., &error);
    if (status == VOXELRT_OK)
        return;
    const std::string message = voxelrt_error_message(error);
    voxelrt_error_release(error);
    throw Error(status, message);
}
} // namespace detail

// An input or output of a plan: its name, dtype and dims.
struct Io {
    std::string name;
    voxelrt_dtype dtype;
    bool batched;
    std::vector<std::int64_t> dims;
    std::int64_t count() const {
        std::int64_t n = 1;
        for (const std::int64_t dim : dims)
            n *= dim;
        return n;
    }
};

template <class T> constexpr voxelrt_dtype dtype_of();
template <> constexpr voxelrt_dtype dtype_of<float>() {
    return VOXELRT_F32;
}
template <> constexpr voxelrt_dtype dtype_of<double>() {
    return VOXELRT_F64;
}
template <> constexpr voxelrt_dtype dtype_of<std::int8_t>() {
    return VOXELRT_I8;
}
template <> constexpr voxelrt_dtype dtype_of<std::uint8_t>() {
    return VOXELRT_U8;
}
template <> constexpr voxelrt_dtype dtype_of<std::int16_t>() {
    return VOXELRT_I16;
}
template <> constexpr voxelrt_dtype dtype_of<std::int32_t>() {
    return VOXELRT_I32;
}
template <> constexpr voxelrt_dtype dtype_of<std::int64_t>() {
    return VOXELRT_I64;
}

// A tensor in the caller's memory, row-major without gaps. Inputs may be const: the library does not write to them.
template <class T> voxelrt_tensor tensor(T *data, const std::vector<std::int64_t> &dims) {
    voxelrt_tensor made{};
    if (dims.size() > VOXELRT_MAX_RANK)
        throw Error(VOXELRT_INVALID_ARGUMENT, "a tensor has at most 8 axes, not " + std::to_string(dims.size()));
    made.struct_size = sizeof made;
    made.dtype = static_cast<std::uint8_t>(dtype_of<std::remove_const_t<T>>());
    made.rank = static_cast<std::uint8_t>(dims.size());
    made.data = const_cast<void *>(static_cast<const void *>(data));
    std::int64_t stride = 1;
    for (std::size_t axis = dims.size(); axis-- > 0; stride *= dims[axis]) {
        made.dims[axis] = dims[axis];
        made.strides[axis] = stride;
    }
    return made;
}

// Compute threads; contexts may share one. It must outlive them.
class Pool {
  public:
    explicit Pool(std::uint32_t threads) {
        voxelrt_pool *pool = nullptr;
        detail::call(voxelrt_pool_create, threads, &pool);
        handle_.reset(pool);
    }
    voxelrt_pool *get() const noexcept { return handle_.get(); }
    std::uint32_t threads() const noexcept { return voxelrt_pool_threads(handle_.get()); }

  private:
    struct Release {
        void operator()(voxelrt_pool *pool) const noexcept { voxelrt_pool_release(pool); }
    };
    std::unique_ptr<voxelrt_pool, Release> handle_;
};

// A compiled network, immutable: any number of threads and contexts may share it. Copies share it too.
class Plan {
  public:
    // `pool`: whose threads do the work of opening; without one it is the caller's.
    explicit Plan(const std::string &path, bool checksums = true, const Pool *pool = nullptr) {
        voxelrt_plan_options options{};
        options.struct_size = sizeof options;
        options.skip_checksums = checksums ? 0 : 1;
        options.pool = pool ? pool->get() : nullptr;
        voxelrt_plan *plan = nullptr;
        detail::call(voxelrt_plan_open, path.c_str(), &options, &plan);
        handle_.reset(plan, voxelrt_plan_release);
    }
    voxelrt_plan *get() const noexcept { return handle_.get(); }
    std::uint32_t variants() const noexcept { return voxelrt_plan_variants(handle_.get()); }
    voxelrt_variant_info variant(std::uint32_t index = 0) const {
        voxelrt_variant_info info{};
        info.struct_size = sizeof info;
        detail::call(voxelrt_plan_variant, handle_.get(), index, &info);
        return info;
    }
    Io input(std::uint32_t index = 0, std::uint32_t variant = 0) const {
        return io(voxelrt_plan_input, variant, index);
    }
    Io output(std::uint32_t index = 0, std::uint32_t variant = 0) const {
        return io(voxelrt_plan_output, variant, index);
    }

  private:
    template <class Function> Io io(Function function, std::uint32_t variant, std::uint32_t index) const {
        voxelrt_io_info info{};
        info.struct_size = sizeof info;
        detail::call(function, handle_.get(), variant, index, &info);
        return {info.name, static_cast<voxelrt_dtype>(info.dtype), info.batched != 0,
                std::vector<std::int64_t>(info.dims, info.dims + info.rank)};
    }
    std::shared_ptr<voxelrt_plan> handle_;
};

// The memory of one run in progress; one thread uses it at a time. It keeps its plan.
class Context {
  public:
    Context(Plan plan, const Pool &pool, std::uint32_t batch_capacity = 1) : plan_(std::move(plan)) {
        voxelrt_context_options options{};
        options.struct_size = sizeof options;
        options.batch_capacity = batch_capacity;
        voxelrt_context *context = nullptr;
        detail::call(voxelrt_context_create, static_cast<const voxelrt_plan *>(plan_.get()), pool.get(),
                     static_cast<const voxelrt_context_options *>(&options), &context);
        handle_.reset(context);
    }
    voxelrt_context *get() const noexcept { return handle_.get(); }
    std::uint64_t bytes() const noexcept { return voxelrt_context_bytes(handle_.get()); }
    // Inputs and outputs in the plan's order. `options`, if any, begin with their size.
    void run(const std::vector<voxelrt_tensor> &inputs, const std::vector<voxelrt_tensor> &outputs,
             const voxelrt_run_options *options = nullptr) {
        detail::call(voxelrt_run, handle_.get(), inputs.data(), static_cast<std::uint32_t>(inputs.size()),
                     outputs.data(), static_cast<std::uint32_t>(outputs.size()), options);
    }

  private:
    struct Release {
        void operator()(voxelrt_context *context) const noexcept { voxelrt_context_release(context); }
    };
    Plan plan_;
    std::unique_ptr<voxelrt_context, Release> handle_;
};

} // namespace voxelrt
#endif
