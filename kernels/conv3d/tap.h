// The inner loop of the blocked convolutions and what becomes of its sums; conv_transpose3d uses it too.
#pragma once

#include "../common/block.h"
#include "window.h"

#include <cstring>

namespace voxelrt::VOXELRT_ISA {

// Output positions of a tile: with two channel blocks on AVX-512 24 of 32 registers are sums, with one on AVX2 12 of 16.
#if defined(VOXELRT_ISA_avx512)
constexpr int kWide = 12, kBlocksAtOnce = 2;
#elif defined(VOXELRT_ISA_avx2)
constexpr int kWide = 6, kBlocksAtOnce = 1;
#else
constexpr int kWide = 6, kBlocksAtOnce = 1;
#endif

static inline int64_t blocks_of(int64_t channels) { return (channels + kBlock - 1) / kBlock; }

// All input channels of one block through one tap: sums += weights * numbers. Inside, position x lies at p + x * p_step;
// at the border each position has an entry in the table.
template <int OB, int W, bool Inside>
static inline void tap(vf (&sum)[OB * kParts][W], const float *w, int64_t w_step, const float *p, int64_t p_step,
                       const float *const *table, int64_t lanes, int64_t lane_step) {
    for (int64_t l = 0; l < lanes; ++l) {
        vf weight[OB * kParts];
#pragma GCC unroll 8
        for (int o = 0; o < OB; ++o)
#pragma GCC unroll 4
            for (int k = 0; k < kParts; ++k)
                weight[o * kParts + k] =
                    *reinterpret_cast<const vf_at *>(w + o * w_step + l * kBlock + k * kLanes);
        const int64_t at = l * lane_step;
#pragma GCC unroll 16
        for (int x = 0; x < W; ++x) {
            const float value = Inside ? p[x * p_step + at] : table[x][at];
            const vf wide = vf{} + value;
#pragma GCC unroll 8
            for (int o = 0; o < OB * kParts; ++o)
                sum[o][x] += weight[o] * wide;
        }
    }
}

// Where a tile of sums goes: its batch item, block of output channels, z, y and first x.
struct Place {
    int64_t n, block, z, y, x;
};

// Bias, residual, activation and store of a finished tile whose positions are `spread` voxels apart along x.
struct Epilogue {
    const Tensor *out, *bias, *residual;
    Activation activation;

    void finish(float *sums, const Place &at, int64_t spread, int width) const {
        const int64_t left = out->dims[1] - at.block * kBlock, lanes = left < kBlock ? left : kBlock;
        const bool blocked = out->layout == VOXELRT_BLOCKED16;
        const int64_t lane_step = blocked ? 1 : out->strides[1], step = spread * out->strides[4];
        const int64_t start = at.n * out->strides[0] + (blocked ? at.block : at.block * kBlock) * out->strides[1] +
                              at.z * out->strides[2] + at.y * out->strides[3] + at.x * out->strides[4];
        if (bias->present()) {
            const Block offsets = Block::load_some(bias->as<const float>() + at.block * kBlock, lanes);
            for (int x = 0; x < width; ++x)
                (Block::load(sums + x * kBlock) + offsets).store(sums + x * kBlock);
        }
        if (residual->present())
            for (int x = 0; x < width; ++x)
                for (int64_t i = 0; i < lanes; ++i)
                    sums[x * kBlock + i] += residual->as<const float>()[start + x * step + i * lane_step];
        if (activation.kind != kNoActivation)
            activate(activation, sums, width * kBlock);
        if (blocked && lanes < kBlock && !keeps_zero(activation))
            for (int x = 0; x < width; ++x)
                for (int64_t i = lanes; i < kBlock; ++i)
                    sums[x * kBlock + i] = 0.0f;
        float *to = out->as<float>() + start;
        if (blocked)
            for (int x = 0; x < width; ++x)
                Block::load(sums + x * kBlock).store(to + x * step);
        else
            for (int64_t i = 0; i < lanes; ++i)
                for (int x = 0; x < width; ++x)
                    to[i * lane_step + x * step] = sums[x * kBlock + i];
    }
};

// The widths that a tile may have, for a switch over them.
#if defined(VOXELRT_ISA_avx512)
#define VOXELRT_EACH_WIDTH(F) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12)
#else
#define VOXELRT_EACH_WIDTH(F) F(1) F(2) F(3) F(4) F(5) F(6)
#endif

} // namespace voxelrt::VOXELRT_ISA
