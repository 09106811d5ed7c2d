// gather: elements picked by indices (gather, gather.elements, gather.nd), put by indices (gather.scatter_elements,
// gather.scatter_nd), one-hot codes, slices with steps of either sign, triangles. Any dtype.
#include "scatter.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

#define GATHER_PARAMS(S, A) S(i32, axis)
VOXELRT_PARAMS(GatherParams, GATHER_PARAMS)
#define GATHER_ND_PARAMS(S, A) S(i32, batch_dims)
VOXELRT_PARAMS(GatherNdParams, GATHER_ND_PARAMS)
#define SLICE_PARAMS(S, A) A(i64, start, 8) A(i64, step, 8)
VOXELRT_PARAMS(SliceParams, SLICE_PARAMS)
static_assert(VOXELRT_MAX_RANK == 8, "the length of start and step");
#define TRILU_PARAMS(S, A) S(i32, upper) S(i64, k)
VOXELRT_PARAMS(TriluParams, TRILU_PARAMS)

Message check_gathering(const Step &step) {
    if (step.inputs != 2 || step.outputs != 1)
        return fail("takes two inputs and one output, not %d and %d", step.inputs, step.outputs);
    if (!plain(step.in[0]) || !plain(step.out[0]) || !plain(step.in[1]))
        return "an operand is absent, pending or has gaps";
    if (step.in[0].dtype != step.out[0].dtype)
        return "input and output differ in dtype";
    return check_index_dtype(step.in[1]);
}

// ---- gather: whole slices along an axis ----

Message check_gather(const Step &step) {
    if (Message message = check_gathering(step))
        return message;
    const Tensor &in = step.in[0], &indices = step.in[1], &out = step.out[0];
    const int axis = step.as<GatherParams>().axis;
    if (axis < 0 || axis >= in.rank || out.rank != in.rank - 1 + indices.rank)
        return "the ranks do not fit, or there is no such axis";
    for (int i = 0; i < out.rank; ++i) {
        const int own = i - axis;
        const int64_t size = own < 0              ? in.dims[i]
                             : own < indices.rank ? indices.dims[own]
                                                  : in.dims[i - indices.rank + 1];
        if (out.dims[i] != size)
            return fail("axis %d of the output has %lld elements", i, static_cast<long long>(out.dims[i]));
    }
    return nullptr;
}

Message run_gather(const Step &step, const Env &env) {
    const Tensor &in = step.in[0], &out = step.out[0];
    const int axis = step.as<GatherParams>().axis;
    const int64_t size = in.dims[axis], count = step.in[1].count(), outer = product(in.dims, 0, axis);
    const int64_t bytes = product(in.dims, axis + 1, in.rank) * bytes_of(in.dtype);
    if (out.count() == 0)
        return nullptr;
    const Indices indices(step.in[1]);
    Fault fault;
    env.parallel_range(outer * count, 1 + kTaskBytes / (bytes + 8), [&](int64_t begin, int64_t end, uint32_t) {
        for (int64_t row = begin; row < end; ++row) {
            const int64_t at = resolved(indices[row % count], size);
            if (at < 0)
                fault.set();
            else
                std::memcpy(out.data + row * bytes, in.data + (row / count * size + at) * bytes,
                            static_cast<size_t>(bytes));
        }
    });
    return fault.message();
}

// ---- gather.elements: one element for each index ----

Message check_gather_elements(const Step &step) {
    if (Message message = check_gathering(step))
        return message;
    const Tensor &in = step.in[0], &indices = step.in[1], &out = step.out[0];
    const int axis = step.as<GatherParams>().axis;
    if (axis < 0 || axis >= in.rank || indices.rank != in.rank || out.rank != in.rank)
        return "the ranks differ, or there is no such axis";
    for (int i = 0; i < in.rank; ++i)
        if (out.dims[i] != indices.dims[i] || (i != axis && indices.dims[i] > in.dims[i]))
            return "indices reach past the data, or differ from the output in shape";
    return nullptr;
}

Message run_gather_elements(const Step &step, const Env &env) {
    const Tensor &in = step.in[0], &out = step.out[0];
    const int axis = step.as<GatherParams>().axis, last = in.rank - 1;
    if (out.count() == 0)
        return nullptr;
    const Indices indices(step.in[1]);
    const int64_t width = out.dims[last], stride = product(in.dims, axis + 1, in.rank), size = in.dims[axis];
    Fault fault;
    with_width(in.dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *from = in.as<const T>();
        T *to = out.as<T>();
        env.parallel_range(out.count() / width, 1 + 8192 / width, [&](int64_t begin, int64_t end, uint32_t) {
            for (int64_t row = begin; row < end; ++row) {
                const int64_t base = row_offset(in.dims, out.dims, in.rank, row, axis);
                for (int64_t x = 0; x < width; ++x) {
                    const int64_t at = resolved(indices[row * width + x], size);
                    if (at < 0)
                        fault.set();
                    else
                        to[row * width + x] = from[base + at * stride + (axis == last ? 0 : x)];
                }
            }
        });
    });
    return fault.message();
}

// ---- gather.nd: slices named by tuples ----

Message check_gather_nd(const Step &step) {
    if (Message message = check_gathering(step))
        return message;
    const Tensor &in = step.in[0], &indices = step.in[1], &out = step.out[0];
    const int batch = step.as<GatherNdParams>().batch_dims;
    if (indices.rank < 1 || batch < 0 || batch >= indices.rank || batch >= in.rank)
        return "batch_dims reaches past the indices or the data";
    const int64_t depth = indices.dims[indices.rank - 1];
    if (depth < 1 || depth > in.rank - batch || out.rank != indices.rank - 1 + in.rank - batch - depth)
        return "the last axis of the indices does not fit data and output";
    for (int i = 0; i < batch; ++i)
        if (in.dims[i] != indices.dims[i])
            return fail("batch axis %d differs", i);
    for (int i = 0; i < out.rank; ++i) {
        const int own = i - (indices.rank - 1);
        if (out.dims[i] != (own < 0 ? indices.dims[i] : in.dims[batch + depth + own]))
            return fail("axis %d of the output has %lld elements", i, static_cast<long long>(out.dims[i]));
    }
    return nullptr;
}

Message run_gather_nd(const Step &step, const Env &env) {
    const Tensor &in = step.in[0], &out = step.out[0], &names = step.in[1];
    const int batch = step.as<GatherNdParams>().batch_dims;
    if (out.count() == 0)
        return nullptr;
    const Indices indices(names);
    const int depth = static_cast<int>(names.dims[names.rank - 1]);
    const int64_t slice = product(in.dims, batch + depth, in.rank), bytes = slice * bytes_of(in.dtype);
    const int64_t rows = product(names.dims, 0, names.rank - 1), batches = product(in.dims, 0, batch);
    const int64_t whole = product(in.dims, batch, in.rank);
    Fault fault;
    env.parallel_range(rows, 1 + kTaskBytes / (bytes + 8), [&](int64_t begin, int64_t end, uint32_t) {
        for (int64_t row = begin; row < end; ++row) {
            const int64_t offset = slice_offset(indices, row, depth, in.dims + batch, slice);
            const int64_t base = row / (rows / batches) * whole;
            if (offset < 0)
                fault.set();
            else
                std::memcpy(out.data + row * bytes, in.data + (base + offset) * bytes_of(in.dtype),
                            static_cast<size_t>(bytes));
        }
    });
    return fault.message();
}

// ---- one-hot ----

Message check_onehot(const Step &step) {
    if (step.inputs != 2 || step.outputs != 1)
        return fail("takes two inputs and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &values = step.in[1], &out = step.out[0];
    const int axis = step.as<GatherParams>().axis;
    if (!plain(in) || !plain(values) || !plain(out))
        return "an operand is absent, pending or has gaps";
    if (values.dtype != out.dtype || values.rank != 1 || values.dims[0] != 2)
        return "the values are not the output's off and on";
    if (out.rank != in.rank + 1 || axis < 0 || axis >= out.rank)
        return "the ranks do not fit, or there is no such axis";
    for (int i = 0; i < in.rank; ++i)
        if (in.dims[i] != out.dims[i < axis ? i : i + 1])
            return fail("axis %d of the indices has %lld elements", i, static_cast<long long>(in.dims[i]));
    return nullptr;
}

// Index i of any dtype as an integer, -1 where it names none of `depth`.
int64_t code_of(const Tensor &in, int64_t i, int64_t depth) {
    int64_t code = -1;
    with_storage(in.dtype, [&](auto tag) {
        using S = decltype(tag);
        const auto value = Codec<S>::read(in.as<const S>()[i]);
        const double real = static_cast<double>(value);
        if (real >= -9007199254740992.0 && real <= 9007199254740992.0)
            code = resolved(static_cast<int64_t>(value), depth);
    });
    return code;
}

Message run_onehot(const Step &step, const Env &env) {
    const Tensor &in = step.in[0], &out = step.out[0];
    const int axis = step.as<GatherParams>().axis;
    if (out.count() == 0)
        return nullptr;
    const int64_t depth = out.dims[axis], inner = product(out.dims, axis + 1, out.rank),
                  outer = product(out.dims, 0, axis);
    with_width(out.dtype, [&](auto tag) {
        using T = decltype(tag);
        const T off = step.in[1].as<const T>()[0], on = step.in[1].as<const T>()[1];
        T *to = out.as<T>();
        env.parallel_range(outer * depth, 1 + 8192 / inner, [&](int64_t begin, int64_t end, uint32_t) {
            for (int64_t i = begin * inner; i < end * inner; ++i)
                to[i] = off;
        });
        env.parallel_range(outer * inner, 8192, [&](int64_t begin, int64_t end, uint32_t) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t code = code_of(in, i, depth);
                if (code >= 0)
                    to[(i / inner * depth + code) * inner + i % inner] = on;
            }
        });
    });
    return nullptr;
}

// ---- slices with steps of either sign ----

Message check_slice(const Step &step) {
    if (step.inputs != 1 || step.outputs != 1)
        return fail("takes one input and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &out = step.out[0];
    if (!in.present() || !out.present() || in.pending() || in.layout != VOXELRT_LINEAR || !plain(out))
        return "takes a linear input and a linear output without gaps";
    if (in.dtype != out.dtype || in.rank != out.rank)
        return "input and output differ in dtype or rank";
    const SliceParams params = step.as<SliceParams>();
    for (int i = 0; i < in.rank && out.count() > 0; ++i) {
        int64_t last;
        if (__builtin_mul_overflow(out.dims[i] - 1, params.step[i], &last) ||
            __builtin_add_overflow(last, params.start[i], &last) || last < 0 || last >= in.dims[i] ||
            params.start[i] < 0 || params.start[i] >= in.dims[i])
            return fail("the slice of axis %d leaves the input", i);
    }
    return nullptr;
}

Message run_slice(const Step &step, const Env &env) {
    const Tensor &in = step.in[0], &out = step.out[0];
    const SliceParams params = step.as<SliceParams>();
    if (out.count() == 0)
        return nullptr;
    Loop loop;
    loop.operands = 1;
    int64_t start = 0;
    for (int i = 0; i < in.rank; ++i) {
        const int64_t steps[1] = {in.strides[i] * params.step[i]};
        start += in.strides[i] * params.start[i];
        loop.add(out.dims[i], steps);
    }
    loop.finish();
    const int64_t stride = loop.strides[0][loop.rank - 1];
    with_width(in.dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *from = in.as<const T>() + start;
        env.parallel_range(out.count(), 32768, [&](int64_t begin, int64_t end, uint32_t) {
            T *to = out.as<T>() + begin;
            for_pieces(loop, 0, begin, end - begin, [&](int64_t offset, int64_t at, int64_t length) {
                for (int64_t i = 0; i < length; ++i)
                    to[at + i] = from[offset + i * stride];
            });
        });
    });
    return nullptr;
}

// ---- triangles of the last two axes ----

Message check_trilu(const Step &step) {
    if (step.inputs != 1 || step.outputs != 1 || !plain(step.in[0]) || !plain(step.out[0]))
        return "takes one input and one output without gaps";
    const Tensor &in = step.in[0], &out = step.out[0];
    if (in.dtype != out.dtype || in.rank != out.rank || in.rank < 2)
        return "input and output differ in dtype or rank, or have less than two axes";
    for (int i = 0; i < in.rank; ++i)
        if (in.dims[i] != out.dims[i])
            return "input and output differ in shape";
    return nullptr;
}

Message run_trilu(const Step &step, const Env &env) {
    const Tensor &in = step.in[0], &out = step.out[0];
    const TriluParams params = step.as<TriluParams>();
    if (out.count() == 0)
        return nullptr;
    const int64_t rows = out.dims[out.rank - 2], width = out.dims[out.rank - 1], bytes = bytes_of(out.dtype);
    env.parallel_range(out.count() / width, 1 + 8192 / width, [&](int64_t begin, int64_t end, uint32_t) {
        for (int64_t row = begin; row < end; ++row) {
            // The diagonal's column in this row, between none and all.
            const int64_t low = params.k < -rows ? -rows : (params.k > width ? width : params.k);
            const int64_t at = row % rows + low + (params.upper ? 0 : 1);
            const int64_t edge = at < 0 ? 0 : (at > width ? width : at);
            const char *from = in.data + row * width * bytes;
            char *to = out.data + row * width * bytes;
            const int64_t kept = params.upper ? edge : 0, end_kept = params.upper ? width : edge;
            std::memmove(to + kept * bytes, from + kept * bytes, static_cast<size_t>((end_kept - kept) * bytes));
            std::memset(to, 0, static_cast<size_t>(kept * bytes));
            std::memset(to + end_kept * bytes, 0, static_cast<size_t>((width - end_kept) * bytes));
        }
    });
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(
    gather,
    {{"gather", 1, GatherParamsText, sizeof(GatherParams), check_gather, run_gather, nullptr, nullptr, nullptr},
     {"gather.elements", 1, GatherParamsText, sizeof(GatherParams), check_gather_elements, run_gather_elements, nullptr,
      nullptr, nullptr},
     {"gather.nd", 1, GatherNdParamsText, sizeof(GatherNdParams), check_gather_nd, run_gather_nd, nullptr, nullptr,
      nullptr},
     {"gather.scatter_elements", 1, ScatterParamsText, sizeof(ScatterParams), check_scatter_elements,
      run_scatter_elements, nullptr, nullptr, nullptr},
     {"gather.scatter_nd", 1, ScatterParamsText, sizeof(ScatterParams), check_scatter_nd, run_scatter_nd, nullptr,
      nullptr, nullptr},
     {"gather.onehot", 1, GatherParamsText, sizeof(GatherParams), check_onehot, run_onehot, nullptr, nullptr, nullptr},
     {"gather.slice", 1, SliceParamsText, sizeof(SliceParams), check_slice, run_slice, nullptr, nullptr, nullptr},
     {"gather.trilu", 1, TriluParamsText, sizeof(TriluParams), check_trilu, run_trilu, nullptr, nullptr, nullptr}})
