// conv3d.grouped: any number of groups and channels, any stride, on row-major tensors of float32, float64 or float16.
// The weights are raw. One row of the output at a time, in pieces that stay in registers, vectorised along x.
#pragma once

#include "contract.h"

namespace voxelrt::VOXELRT_ISA {

#if defined(VOXELRT_ISA_neon)
using float16 = __fp16;
#else
using float16 = _Float16;
#endif

static Message check_grouped(const Step &step) {
    if (Message message = check_conv(step))
        return message;
    const Tensor &src = step.in[kSource0], &other = step.in[kSource1], &weights = step.in[kWeights],
                 &residual = step.input(kResidual), &dst = step.out[kDestination];
    if (step.outputs > 1 && step.out[kStatistics].present())
        return "has no statistics output";
    if (src.dtype != VOXELRT_F32 && src.dtype != VOXELRT_F64 && src.dtype != VOXELRT_F16)
        return "takes float32, float64 and float16";
    if (!row_major(src) || !row_major(dst) || (other.present() && !row_major(other)) ||
        (residual.present() && !row_major(residual)))
        return "takes row-major tensors without gaps";
    if (src.pending() || other.pending())
        return "applies nothing pending";
    const ConvShape s = conv_shape(step);
    if (!row_major(weights) || weights.dtype != src.dtype || weights.rank != 5 || weights.dims[0] != s.out_channels ||
        weights.dims[1] != s.in_group() || weights.dims[2] != s.kernel.z || weights.dims[3] != s.kernel.y ||
        weights.dims[4] != s.kernel.x)
        return "the weights are (O, I / groups, kz, ky, kx), of the source's dtype, without gaps";
    return nullptr;
}

constexpr int kPiece = 64; // positions of a row at a time: four blocks of registers with AVX-512

// sums[x] += weight * src[x * stride] for x in [begin, end).
template <class A, class T>
static inline void add_tap(A *sums, const T *src, A weight, int64_t begin, int64_t end, int64_t stride) {
    if (stride == 1)
        for (int64_t x = begin; x < end; ++x)
            sums[x] += weight * static_cast<A>(src[x]);
    else
        for (int64_t x = begin; x < end; ++x)
            sums[x] += weight * static_cast<A>(src[x * stride]);
}

template <class A, class T> static void grouped_row(const Step &step, const ConvShape &s, int64_t row) {
    const ConvParams &p = step.as<ConvParams>();
    const Tensor &bias = step.input(kBias), &residual = step.input(kResidual);
    const int64_t oy = row % s.out.y, oz = row / s.out.y % s.out.z, o = row / (s.out.y * s.out.z) % s.out_channels,
                  n = row / (s.out.y * s.out.z * s.out_channels);
    const int64_t first_channel = o / s.out_group() * s.in_group();
    T *dst = step.out[kDestination].as<T>() + row * s.out.x;
    for (int64_t x0 = 0; x0 < s.out.x; x0 += kPiece) {
        const int64_t count = s.out.x - x0 < kPiece ? s.out.x - x0 : kPiece;
        A sums[kPiece];
        const A start = bias.present() ? static_cast<A>(bias.as<const T>()[o]) : A(0);
        for (int x = 0; x < kPiece; ++x)
            sums[x] = start;
        const T *weight = step.in[kWeights].as<const T>() + o * s.in_group() * s.taps();
        for (int64_t i = 0; i < s.in_group(); ++i, weight += s.taps()) {
            const int64_t c = first_channel + i;
            const bool second = c >= s.channels0;
            const int64_t plane = second ? n * s.channels1 + c - s.channels0 : n * s.channels0 + c;
            const T *src = step.in[second ? kSource1 : kSource0].as<const T>() + plane * s.in.z * s.in.y * s.in.x;
            for (int64_t kz = 0; kz < s.kernel.z; ++kz) {
                const int64_t iz = oz * s.stride.z - s.pad.z + kz * s.dilation.z;
                if (iz < 0 || iz >= s.in.z)
                    continue;
                for (int64_t ky = 0; ky < s.kernel.y; ++ky) {
                    const int64_t iy = oy * s.stride.y - s.pad.y + ky * s.dilation.y;
                    if (iy < 0 || iy >= s.in.y)
                        continue;
                    const T *src_row = src + (iz * s.in.y + iy) * s.in.x;
                    const T *taps = weight + (kz * s.kernel.y + ky) * s.kernel.x;
                    for (int64_t kx = 0; kx < s.kernel.x; ++kx) {
                        const int64_t offset = kx * s.dilation.x - s.pad.x;
                        const Span span = inside(x0, count, s.stride.x, offset, s.in.x);
                        if (span.begin < span.end)
                            add_tap(sums + span.begin, src_row + (x0 + span.begin) * s.stride.x + offset,
                                    static_cast<A>(taps[kx]), 0, span.end - span.begin, s.stride.x);
                    }
                }
            }
        }
        if (residual.present())
            for (int64_t x = 0; x < count; ++x)
                sums[x] += static_cast<A>(residual.as<const T>()[row * s.out.x + x0 + x]);
        if constexpr (sizeof(A) == 4)
            activate_row(p.activation, p.alpha, p.beta, sums, count);
        else
            for (int64_t x = 0; x < count; ++x)
                sums[x] = activate_number(p.activation, sums[x], p.alpha, p.beta);
        for (int64_t x = 0; x < count; ++x)
            dst[x0 + x] = static_cast<T>(sums[x]);
    }
}

static Message run_grouped(const Step &step, const Env &env) {
    const ConvShape s = conv_shape(step);
    if (empty(step.out[kDestination]))
        return nullptr;
    const int64_t rows = s.n * s.out_channels * s.out.z * s.out.y;
    const int64_t work = s.out.x * s.in_group() * s.taps(); // multiplications a row
    env.parallel_range(rows, 1 + 100000 / (work + 1), [&](int64_t begin, int64_t end, uint32_t) {
        for (int64_t row = begin; row < end; ++row)
            if (step.in[kSource0].dtype == VOXELRT_F32)
                grouped_row<float, float>(step, s, row);
            else if (step.in[kSource0].dtype == VOXELRT_F64)
                grouped_row<double, double>(step, s, row);
            else
                grouped_row<float, float16>(step, s, row);
    });
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA
