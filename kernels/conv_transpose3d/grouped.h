// conv_transpose3d.grouped: any number of groups and channels, any parameters, on row-major tensors of float32, float64
// or float16. The weights are raw. Each row of the output gathers what the rows of the source scatter into it.
#pragma once

#include "contract.h"

namespace voxelrt::VOXELRT_ISA {

#if defined(VOXELRT_ISA_neon)
using float16 = __fp16;
#else
using float16 = _Float16;
#endif

static Message check_grouped(const Step &step) {
    if (Message message = check_transpose(step))
        return message;
    const Tensor &src = step.in[kSource], &weights = step.in[kWeights], &dst = step.out[0];
    if (src.dtype != VOXELRT_F32 && src.dtype != VOXELRT_F64 && src.dtype != VOXELRT_F16)
        return "takes float32, float64 and float16";
    if (!row_major(src) || !row_major(dst))
        return "takes row-major tensors without gaps";
    if (src.pending())
        return "applies nothing pending";
    const TransposeShape s = transpose_shape(step);
    if (!row_major(weights) || weights.dtype != src.dtype || weights.rank != 5 || weights.dims[0] != s.in_channels ||
        weights.dims[1] != s.out_group() || weights.dims[2] != s.kernel.z || weights.dims[3] != s.kernel.y ||
        weights.dims[4] != s.kernel.x)
        return "the weights are (I, O / groups, kz, ky, kx), of the source's dtype, without gaps";
    return nullptr;
}

constexpr int kPiece = 128; // positions of an output row at a time

// sums[p - x0] += weight * src[i] where p = i * stride + offset falls in [x0, x0 + count).
template <class A, class T>
static inline void scatter_tap(A *sums, const T *src, A weight, int64_t x0, int64_t count, int64_t stride,
                               int64_t offset, int64_t size) {
    const int64_t from = x0 - offset; // the least i * stride
    const int64_t begin = from > 0 ? ceil_div(from, stride) : 0;
    const int64_t end = from + count > 0 ? least(size, ceil_div(from + count, stride)) : 0;
    A *to = sums + begin * stride - from;
    if (stride == 1)
        for (int64_t i = 0; i < end - begin; ++i)
            to[i] += weight * static_cast<A>(src[begin + i]);
    else
        for (int64_t i = 0; i < end - begin; ++i)
            to[i * stride] += weight * static_cast<A>(src[begin + i]);
}

// The input position that tap k brings to output position p, or -1.
static inline int64_t gathered(int64_t p, int64_t k, int64_t stride, int64_t pad, int64_t dilation, int64_t size) {
    const int64_t at = p + pad - k * dilation;
    return at >= 0 && at % stride == 0 && at / stride < size ? at / stride : -1;
}

template <class A, class T> static void grouped_row(const Step &step, const TransposeShape &s, int64_t row) {
    const TransposeParams &params = step.as<TransposeParams>();
    const Tensor &bias = step.input(kBias);
    const int64_t oy = row % s.out.y, oz = row / s.out.y % s.out.z, o = row / (s.out.y * s.out.z) % s.out_channels,
                  n = row / (s.out.y * s.out.z * s.out_channels), group = o / s.out_group();
    T *dst = step.out[0].as<T>() + row * s.out.x;
    for (int64_t x0 = 0; x0 < s.out.x; x0 += kPiece) {
        const int64_t count = least(s.out.x - x0, kPiece);
        A sums[kPiece];
        const A start = bias.present() ? static_cast<A>(bias.as<const T>()[o]) : A(0);
        for (int x = 0; x < kPiece; ++x)
            sums[x] = start;
        for (int64_t i = 0; i < s.in_group(); ++i) {
            const int64_t c = group * s.in_group() + i;
            const T *weight = step.in[kWeights].as<const T>() + (c * s.out_group() + o % s.out_group()) * s.taps();
            const T *src = step.in[kSource].as<const T>() + (n * s.in_channels + c) * s.in.z * s.in.y * s.in.x;
            for (int64_t kz = 0; kz < s.kernel.z; ++kz) {
                const int64_t iz = gathered(oz, kz, s.stride.z, s.pad.z, s.dilation.z, s.in.z);
                if (iz < 0)
                    continue;
                for (int64_t ky = 0; ky < s.kernel.y; ++ky) {
                    const int64_t iy = gathered(oy, ky, s.stride.y, s.pad.y, s.dilation.y, s.in.y);
                    if (iy < 0)
                        continue;
                    const T *taps = weight + (kz * s.kernel.y + ky) * s.kernel.x;
                    for (int64_t kx = 0; kx < s.kernel.x; ++kx)
                        scatter_tap(sums, src + (iz * s.in.y + iy) * s.in.x, static_cast<A>(taps[kx]), x0, count,
                                    s.stride.x, kx * s.dilation.x - s.pad.x, s.in.x);
                }
            }
        }
        if constexpr (sizeof(A) == 4)
            activate_row(params.activation, params.alpha, params.beta, sums, count);
        else
            for (int64_t x = 0; x < count; ++x)
                sums[x] = activate_number(params.activation, sums[x], params.alpha, params.beta);
        for (int64_t x = 0; x < count; ++x)
            dst[x0 + x] = static_cast<T>(sums[x]);
    }
}

static Message run_grouped(const Step &step, const Env &env) {
    if (empty(step.out[0]))
        return nullptr;
    const TransposeShape s = transpose_shape(step);
    const int64_t rows = s.n * s.out_channels * s.out.z * s.out.y;
    const int64_t work = s.out.x * s.in_group() * s.taps();
    env.parallel_range(rows, 1 + 200000 / (work + 1), [&](int64_t begin, int64_t end, uint32_t) {
        for (int64_t row = begin; row < end; ++row)
            if (step.in[kSource].dtype == VOXELRT_F32)
                grouped_row<float, float>(step, s, row);
            else if (step.in[kSource].dtype == VOXELRT_F64)
                grouped_row<double, double>(step, s, row);
            else
                grouped_row<float, float16>(step, s, row);
    });
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA
