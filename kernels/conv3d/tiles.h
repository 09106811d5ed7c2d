// The tiles of conv_tile.h. Included by conv3d/cpu.cpp alone.
#pragma once

#include "conv_tile.h"

namespace voxelrt::VOXELRT_ISA {

// OB blocks of output channels, R rows of X positions, P floats between positions.
template <int OB, int R, int X, int P> static void tile(const Tile &t) {
    vf16 sums[R][X][OB];
    if (t.start) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
            for (int x = 0; x < X; ++x)
#pragma GCC unroll 2
                for (int o = 0; o < OB; ++o)
                    sums[r][x][o] = load(t.start + o * kBlock);
    } else {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
            for (int x = 0; x < X; ++x)
#pragma GCC unroll 2
                for (int o = 0; o < OB; ++o)
                    sums[r][x][o] = load(t.dst + r * t.dst_row + x * t.dst_x + o * t.dst_block);
    }
    const int64_t src_row = t.src_row, inner_step = P == 1 ? t.inner_step : 1;
    for (int64_t block = 0; block < t.blocks; ++block) {
        const bool last = block + 1 == t.blocks;
        const int64_t inner = last ? t.inner_last : t.inner, unit = last ? t.unit_last : t.unit;
        const float *src_block = t.src + block * t.src_block, *weight_block = t.weights + block * t.weight_block;
        for (int64_t z = 0; z < t.nz; ++z)
            for (int64_t y = 0; y < t.ny; ++y) {
                const float *src_zy = src_block + t.z[z].src + t.y[y].src;
                const int64_t tap_zy = t.z[z].weight + t.y[y].weight;
                for (int64_t k = 0; k < t.nx; ++k) {
                    const float *src = src_zy + t.x[k].src;
                    const float *weights = weight_block + (tap_zy + t.x[k].weight) * unit;
#pragma GCC unroll 4
                    for (int64_t i = 0; i < inner; ++i, src += inner_step, weights += OB * kBlock) {
                        vf16 w[OB];
#pragma GCC unroll 2
                        for (int o = 0; o < OB; ++o)
                            w[o] = load(weights + o * kBlock);
#pragma GCC unroll 16
                        for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
                            for (int x = 0; x < X; ++x) {
                                const vf16 v = broadcast(src[r * src_row + x * P]);
#pragma GCC unroll 2
                                for (int o = 0; o < OB; ++o)
                                    sums[r][x][o] = fma(v, w[o], sums[r][x][o]);
                            }
                    }
                }
            }
    }
    if (!t.finish) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
            for (int x = 0; x < X; ++x)
#pragma GCC unroll 2
                for (int o = 0; o < OB; ++o)
                    store(t.dst + r * t.dst_row + x * t.dst_x + o * t.dst_block, sums[r][x][o]);
        return;
    }
    const vf16 slope = broadcast(t.slope), lo = broadcast(t.lo), hi = broadcast(t.hi);
    const vm16 keep = first_lanes(t.keep);
    vf16 totals[OB], squares[OB];
#pragma GCC unroll 2
    for (int o = 0; o < OB; ++o) {
        totals[o] = t.statistics ? load(t.statistics + o * kBlock) : zero();
        squares[o] = t.statistics ? load(t.statistics + (OB + o) * kBlock) : zero();
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
        for (int x = 0; x < X; ++x)
#pragma GCC unroll 2
            for (int o = 0; o < OB; ++o) {
                vf16 v = sums[r][x][o];
                if (t.residual)
                    v = v + load(t.residual + r * t.residual_row + x * t.dst_x + o * t.residual_block);
                v = min(hi, max(lo, select(v < zero(), v * slope, v)));
                if (o == OB - 1)
                    v = select(keep, v, zero());
                if (t.statistics) {
                    totals[o] = totals[o] + v;
                    squares[o] = fma(v, v, squares[o]);
                }
                float *to = t.dst + r * t.dst_row + x * t.dst_x + o * t.dst_block;
                if (t.past_caches)
                    stream(to, v);
                else
                    store(to, v);
            }
    if (!t.statistics)
        return;
#pragma GCC unroll 2
    for (int o = 0; o < OB; ++o) {
        store(t.statistics + o * kBlock, totals[o]);
        store(t.statistics + (OB + o) * kBlock, squares[o]);
    }
}

template <int OB, int P, int X> static TileFunction narrower(int x) {
    if constexpr (X > 1)
        return x == X ? tile<OB, 1, X, P> : narrower<OB, P, X - 1>(x);
    else
        return tile<OB, 1, 1, P>;
}
template <int OB, int X> static TileFunction narrower_rows(int rows, int x) {
    if constexpr (X > 1)
        if (x != X)
            return narrower_rows<OB, X - 1>(rows, x);
    return rows == 2 ? tile<OB, 2, X, kBlock> : tile<OB, tile_rows(X), X, kBlock>;
}
template <int OB> static TileFunction tile_of(int rows, int x, bool planes) {
    if (planes)
        return narrower<OB, 1, kTileX>(x);
    return rows == 1 ? narrower<OB, kBlock, kTileX>(x) : narrower_rows<OB, kTileX / 2>(rows, x);
}

TileFunction conv_tile(int blocks, int rows, int x, bool planes) {
    if (blocks == 1)
        return tile_of<1>(rows, x, planes);
    return tile_of<kTileBlocks>(rows, x, planes);
}

} // namespace voxelrt::VOXELRT_ISA
