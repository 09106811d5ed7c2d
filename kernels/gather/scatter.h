// ScatterElements and ScatterND: a copy of the data, then one update after another, so that equal indices have a
// defined result.
#pragma once

#include "indices.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

enum Reduction : int { kSet, kAdd, kMul, kMax, kMin, kReductions };

#define SCATTER_PARAMS(S, A) S(i32, axis) S(i32, reduction)
VOXELRT_PARAMS(ScatterParams, SCATTER_PARAMS)

template <class T> VOXELRT_INLINE T combined(int reduction, T a, T b) {
    constexpr bool whole = T(0.5) == T(0);
    switch (reduction) {
    case kAdd:
        if constexpr (whole)
            return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
        else
            return a + b;
    case kMul:
        if constexpr (whole)
            return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
        else
            return a * b;
    case kMax:
        return a >= b || a != a ? a : b;
    case kMin:
        return a <= b || a != a ? a : b;
    default:
        return b;
    }
}

Message check_scatter(const Step &step) {
    if (step.inputs != 3 || step.outputs != 1)
        return fail("takes three inputs and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &updates = step.in[2], &out = step.out[0];
    if (!plain(in) || !plain(updates) || !plain(out) || !plain(step.in[1]))
        return "an operand is absent, pending or has gaps";
    if (Message message = check_index_dtype(step.in[1]))
        return message;
    if (in.dtype != out.dtype || updates.dtype != out.dtype || in.rank != out.rank)
        return "the operands differ in dtype or rank";
    for (int i = 0; i < in.rank; ++i)
        if (in.dims[i] != out.dims[i])
            return "data and output differ in shape";
    const int reduction = step.as<ScatterParams>().reduction;
    return reduction >= 0 && reduction < kReductions ? nullptr : "there is no such reduction";
}

void copy_data(const Tensor &in, const Tensor &out, const Env &env) {
    if (in.data == out.data)
        return;
    env.parallel_range(in.count() * bytes_of(in.dtype), kTaskBytes, [&](int64_t begin, int64_t end, uint32_t) {
        std::memcpy(out.data + begin, in.data + begin, static_cast<size_t>(end - begin));
    });
}

Message check_scatter_elements(const Step &step) {
    if (Message message = check_scatter(step))
        return message;
    const Tensor &indices = step.in[1], &updates = step.in[2], &out = step.out[0];
    const int axis = step.as<ScatterParams>().axis;
    if (axis < 0 || axis >= out.rank || indices.rank != out.rank || updates.rank != out.rank)
        return "data, indices and updates differ in rank, or there is no such axis";
    for (int i = 0; i < out.rank; ++i)
        if (indices.dims[i] != updates.dims[i] || (i != axis && indices.dims[i] > out.dims[i]))
            return "indices reach past the data, or differ from the updates in shape";
    return nullptr;
}

Message run_scatter_elements(const Step &step, const Env &env) {
    const ScatterParams params = step.as<ScatterParams>();
    const int axis = params.axis, reduction = params.reduction;
    const Tensor &updates = step.in[2], &out = step.out[0];
    copy_data(step.in[0], out, env);
    const Indices indices(step.in[1]);
    const int last = out.rank - 1;
    const int64_t width = updates.dims[last], rows = product(updates.dims, 0, last);
    const int64_t stride = product(out.dims, axis + 1, out.rank), size = out.dims[axis];
    Fault fault;
    if (updates.count() > 0)
        with_storage(out.dtype, [&](auto tag) {
            using S = decltype(tag);
            S *data = out.as<S>();
            const S *source = updates.as<const S>();
            for (int64_t row = 0; row < rows; ++row) {
                const int64_t base = row_offset(out.dims, updates.dims, out.rank, row, axis);
                for (int64_t x = 0; x < width; ++x) {
                    const int64_t i = row * width + x, at = resolved(indices[i], size);
                    if (at < 0) {
                        fault.set();
                        continue;
                    }
                    S &to = data[base + at * stride + (axis == last ? 0 : x)];
                    to = reduction == kSet
                             ? source[i]
                             : Codec<S>::write(combined(reduction, Codec<S>::read(to), Codec<S>::read(source[i])));
                }
            }
        });
    return fault.message();
}

// The offset in elements of the slice that indices[row * depth ...] name, or -1.
inline int64_t slice_offset(const Indices &indices, int64_t row, int depth, const int64_t *dims, int64_t slice) {
    int64_t offset = 0;
    for (int i = 0; i < depth; ++i) {
        const int64_t at = resolved(indices[row * depth + i], dims[i]);
        if (at < 0)
            return -1;
        offset = offset * dims[i] + at;
    }
    return offset * slice;
}

Message check_scatter_nd(const Step &step) {
    if (Message message = check_scatter(step))
        return message;
    const Tensor &indices = step.in[1], &updates = step.in[2], &out = step.out[0];
    const int64_t depth = indices.rank > 0 ? indices.dims[indices.rank - 1] : 0;
    if (depth < 1 || depth > out.rank || updates.rank != indices.rank - 1 + out.rank - depth)
        return "the last axis of the indices does not fit data and updates";
    for (int i = 0; i < updates.rank; ++i) {
        const int own = i - (indices.rank - 1);
        if (updates.dims[i] != (own < 0 ? indices.dims[i] : out.dims[depth + own]))
            return fail("axis %d of the updates has %lld elements", i, static_cast<long long>(updates.dims[i]));
    }
    return nullptr;
}

Message run_scatter_nd(const Step &step, const Env &env) {
    const int reduction = step.as<ScatterParams>().reduction;
    const Tensor &updates = step.in[2], &out = step.out[0];
    copy_data(step.in[0], out, env);
    const Indices indices(step.in[1]);
    const int depth = static_cast<int>(step.in[1].dims[step.in[1].rank - 1]);
    const int64_t rows = product(step.in[1].dims, 0, step.in[1].rank - 1), slice = product(out.dims, depth, out.rank);
    Fault fault;
    if (updates.count() > 0)
        with_storage(out.dtype, [&](auto tag) {
            using S = decltype(tag);
            for (int64_t row = 0; row < rows; ++row) {
                const int64_t offset = slice_offset(indices, row, depth, out.dims, slice);
                if (offset < 0) {
                    fault.set();
                    continue;
                }
                S *to = out.as<S>() + offset;
                const S *source = updates.as<const S>() + row * slice;
                for (int64_t i = 0; i < slice; ++i)
                    to[i] =
                        reduction == kSet
                            ? source[i]
                            : Codec<S>::write(combined(reduction, Codec<S>::read(to[i]), Codec<S>::read(source[i])));
            }
        });
    return fault.message();
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA
