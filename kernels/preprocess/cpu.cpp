// preprocess: slope and intercept, cut, mean and deviation, read once and written once.
#include "floats.h"

#include <initializer_list>
#include <type_traits>

namespace voxelrt::VOXELRT_ISA {
namespace {

#define PREPROCESS_PARAMS(S, A) S(f32, slope) S(f32, intercept) S(f32, low) S(f32, high)
VOXELRT_PARAMS(PreprocessParams, PREPROCESS_PARAMS)

constexpr int64_t kRowsOfTask = 64;

bool reads(int dtype) {
    return dtype == VOXELRT_F32 || dtype == VOXELRT_F16 || dtype == VOXELRT_BF16 || dtype == VOXELRT_I8 ||
           dtype == VOXELRT_U8 || dtype == VOXELRT_I16 || dtype == VOXELRT_U16;
}

Message check(const Step &step) {
    if (step.inputs != 2 || step.outputs != 1)
        return "takes a volume and a table, and gives a volume";
    const Tensor &in = step.in[0], &table = step.in[1], &out = step.out[0];
    for (const Tensor *t : {&in, &table, &out})
        if (!t->present() || t->layout != VOXELRT_LINEAR || t->pending())
            return "takes linear tensors, nothing pending";
    if (in.rank != 5 || out.rank != 5 || !reads(in.dtype) || (out.count() > 0 && !out.contiguous()) ||
        (out.dtype != VOXELRT_F32 && out.dtype != VOXELRT_F16 && out.dtype != VOXELRT_BF16))
        return "takes floats to 32 and whole numbers to 16 bits, (N, C, Z, Y, X), and gives floats without gaps";
    for (int i = 0; i < 5; ++i)
        if (in.dims[i] != out.dims[i])
            return fail("axis %d of the output is not the input's", i);
    if (table.dtype != VOXELRT_F32 || table.rank != 2 || table.dims[0] != in.dims[1] || table.dims[1] != 2 ||
        (table.count() > 0 && !table.contiguous()))
        return "the table has a mean and one over a deviation for each channel, float32";
    const PreprocessParams p = step.as<PreprocessParams>();
    return p.low <= p.high ? nullptr : "low is above high";
}

// Everything by value: what a store of bytes might overwrite, the compiler would read again.
template <class T, class U>
void row(const T *from, int64_t stride, U *to, int64_t count, PreprocessParams p, float mean, float share) {
    const float slope = p.slope, intercept = p.intercept, low = p.low, high = p.high;
    const auto one = [=](T value) {
        const float v = get<float>(value) * slope + intercept;
        const float above = v < low ? low : v, cut = above > high ? high : above; // a NaN stays
        return put<U>((cut - mean) * share);
    };
    if (stride == 1) {
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < count; ++i)
            to[i] = one(from[i]);
    } else {
        for (int64_t i = 0; i < count; ++i)
            to[i] = one(from[i * stride]);
    }
}

Message run(const Step &step, const Env &env) {
    const Tensor &in = step.in[0], &out = step.out[0];
    if (out.count() == 0)
        return nullptr;
    const PreprocessParams p = step.as<PreprocessParams>();
    const float *table = step.in[1].as<const float>();
    const int64_t *dims = in.dims, *strides = in.strides;
    const auto rows = [&](auto from_tag, auto to_tag) {
        using T = decltype(from_tag);
        using U = decltype(to_tag);
        env.parallel_range(out.count() / dims[4], kRowsOfTask, [&](int64_t begin, int64_t end, uint32_t) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t y = i % dims[3], z = i / dims[3] % dims[2], c = i / dims[3] / dims[2] % dims[1],
                              n = i / dims[3] / dims[2] / dims[1];
                const T *from = in.as<const T>() + n * strides[0] + c * strides[1] + z * strides[2] + y * strides[3];
                row<T, U>(from, strides[4], out.as<U>() + i * dims[4], dims[4], p, table[2 * c], table[2 * c + 1]);
            }
        });
    };
    with_storage(in.dtype, [&](auto from_tag) {
        using T = decltype(from_tag);
        if constexpr (sizeof(T) <= 2 || std::is_same_v<T, float>)
            with_float(out.dtype, [&](auto to_tag) {
                if constexpr (sizeof(to_tag) <= 4)
                    rows(from_tag, to_tag);
            });
    });
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(preprocess, {{"preprocess", 1, PreprocessParamsText, sizeof(PreprocessParams), check, run, nullptr,
                              nullptr, nullptr}})
