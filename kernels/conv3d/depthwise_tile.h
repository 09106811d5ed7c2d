// Register tiles of conv3d.depthwise: up to kMostOutputs neighbours along x of one block of channels, in the lanes.
#pragma once

#include "contract.h"
#include "conv_stage.h"

namespace voxelrt::VOXELRT_ISA {

// Sums that stay in registers: enough to hide the latency of a multiplication, with room for inputs and weights.
constexpr int kMostOutputs = kRegistersPerBlock == 1 ? 8 : 4;

// A run of outputs of one row, and the rows of input that it reads.
struct DepthwiseTile {
    const float *plane, *weights, *bias; // of the block: position (0, 0, 0), [kz][ky][kx][16], sixteen numbers
    Norm norm;
    Axes first;             // input position of the first output's first tap; may lie outside
    int64_t step_z, step_y; // floats
};

// The window of one row that a tile reads, with zeros outside, normed.
static inline void fill_window(const DepthwiseTile &t, const float *row, int64_t size, int64_t length, float *to) {
    for (int64_t i = 0; i < length; ++i) {
        const int64_t x = t.first.x + i;
        const vf16 v = x >= 0 && x < size ? load(row + x * kBlock) : zero();
        store(to + i * kBlock, t.norm.pending && x >= 0 && x < size ? normed(t.norm, v) : v);
    }
}

// Kernels of K taps along x, a stride of S and no dilation there: every input is loaded once for all outputs it is in.
template <int K, int S, int T> static void depthwise_tile(const DepthwiseTile &t, const ConvShape &s, float *dst) {
    constexpr int length = (T - 1) * S + K;
    const bool inside_row = t.first.x >= 0 && t.first.x + length <= s.in.x && !t.norm.pending;
    alignas(64) float window[length * kBlock];
    vf16 sums[T];
    for (int i = 0; i < T; ++i)
        sums[i] = load(t.bias);
    for (int64_t kz = 0; kz < s.kernel.z; ++kz) {
        const int64_t z = t.first.z + kz * s.dilation.z;
        if (z < 0 || z >= s.in.z)
            continue;
        for (int64_t ky = 0; ky < s.kernel.y; ++ky) {
            const int64_t y = t.first.y + ky * s.dilation.y;
            if (y < 0 || y >= s.in.y)
                continue;
            const float *row = t.plane + z * t.step_z + y * t.step_y, *from = window;
            if (inside_row)
                from = row + t.first.x * kBlock;
            else
                fill_window(t, row, s.in.x, length, window);
            const float *weights = t.weights + (kz * s.kernel.y + ky) * K * kBlock;
            vf16 taps[K];
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k)
                taps[k] = load(weights + k * kBlock);
#pragma GCC unroll 32
            for (int i = 0; i < length; ++i) {
                const vf16 v = load(from + i * kBlock);
#pragma GCC unroll 8
                for (int k = 0; k < K; ++k)
                    if (i >= k && (i - k) % S == 0 && (i - k) / S < T)
                        sums[(i - k) / S] = fma(v, taps[k], sums[(i - k) / S]);
            }
        }
    }
    for (int i = 0; i < T; ++i)
        store(dst + i * kBlock, sums[i]);
}

// Any kernel, stride and dilation: one tap at a time over the outputs whose input lies inside.
static void depthwise_any(const DepthwiseTile &t, const ConvShape &s, int64_t count, float *dst) {
    vf16 sums[kMostOutputs];
    for (int64_t i = 0; i < count; ++i)
        sums[i] = load(t.bias);
    for (int64_t kz = 0; kz < s.kernel.z; ++kz) {
        const int64_t z = t.first.z + kz * s.dilation.z;
        if (z < 0 || z >= s.in.z)
            continue;
        for (int64_t ky = 0; ky < s.kernel.y; ++ky) {
            const int64_t y = t.first.y + ky * s.dilation.y;
            if (y < 0 || y >= s.in.y)
                continue;
            const float *row = t.plane + z * t.step_z + y * t.step_y;
            const float *weights = t.weights + (kz * s.kernel.y + ky) * s.kernel.x * kBlock;
            for (int64_t kx = 0; kx < s.kernel.x; ++kx) {
                const int64_t x = t.first.x + kx * s.dilation.x;
                const Span span = inside(0, count, s.stride.x, x, s.in.x);
                const vf16 tap = load(weights + kx * kBlock);
                for (int64_t i = span.begin; i < span.end; ++i) {
                    const vf16 v = load(row + (x + i * s.stride.x) * kBlock);
                    sums[i] = fma(t.norm.pending ? normed(t.norm, v) : v, tap, sums[i]);
                }
            }
        }
    }
    for (int64_t i = 0; i < count; ++i)
        store(dst + i * kBlock, sums[i]);
}

using DepthwiseRun = void (*)(const DepthwiseTile &, const ConvShape &, float *);

// The tile of each count of outputs, or none where the kernel is not one of those above.
template <int K, int S> static const DepthwiseRun *depthwise_tiles() {
    static constexpr DepthwiseRun runs[] = {
        depthwise_tile<K, S, 1>, depthwise_tile<K, S, 2>, depthwise_tile<K, S, 3>, depthwise_tile<K, S, 4>,
#if defined(VOXELRT_ISA_avx512)
        depthwise_tile<K, S, 5>, depthwise_tile<K, S, 6>, depthwise_tile<K, S, 7>, depthwise_tile<K, S, 8>,
#endif
    };
    static_assert(sizeof runs / sizeof runs[0] == kMostOutputs);
    return runs;
}

static const DepthwiseRun *depthwise_tiles(const ConvShape &s) {
    if (s.dilation.x != 1 || s.stride.x > 2)
        return nullptr;
    const bool two = s.stride.x == 2;
    switch (s.kernel.x) {
    case 3:
        return two ? depthwise_tiles<3, 2>() : depthwise_tiles<3, 1>();
    case 5:
        return two ? depthwise_tiles<5, 2>() : depthwise_tiles<5, 1>();
    case 7:
        return two ? depthwise_tiles<7, 2>() : depthwise_tiles<7, 1>();
    default:
        return nullptr;
    }
}

} // namespace voxelrt::VOXELRT_ISA
