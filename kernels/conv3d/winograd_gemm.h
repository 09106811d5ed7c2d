// The products of one point: tiles x input channels times input channels x output channels.
#pragma once

#include "conv_shape.h"
#include "conv_tile.h"

namespace voxelrt::VOXELRT_ISA {

struct PointProduct {
    const float *v; // [block of C][tile][16]
    const float *u; // [C][16 x blocks of O]
    float *m;       // [block of O][tile][16]
    int64_t v_block, m_block;
    const float *next; // inputs of the next point, fetched meanwhile, a line for each channel of each run of tiles
    const char *ahead; // as many lines to fetch for later
    int64_t channels;
};

template <int R, int OB> static void point_rows(const PointProduct &p) {
    vf16 sums[R][OB];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int o = 0; o < OB; ++o)
            sums[r][o] = zero();
    const float *u = p.u, *block = p.v, *next = p.next;
    const char *ahead = p.ahead;
    for (int64_t left = p.channels; left > 0; left -= kBlock, block += p.v_block) {
        const int64_t inner = left < kBlock ? left : kBlock;
        const float *v = block;
#pragma GCC unroll 4
        for (int64_t i = 0; i < inner; ++i, ++v, u += OB * kBlock, next += kBlock, ahead += 64) {
            __builtin_prefetch(next);
            __builtin_prefetch(ahead, 0, 2);
            vf16 w[OB];
#pragma GCC unroll 2
            for (int o = 0; o < OB; ++o) {
                w[o] = load(u + o * kBlock);
                __builtin_prefetch(u + o * kBlock + 1024);
            }
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const vf16 x = broadcast(v[r * kBlock]);
#pragma GCC unroll 2
                for (int o = 0; o < OB; ++o)
                    sums[r][o] = fma(x, w[o], sums[r][o]);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int o = 0; o < OB; ++o)
            store(p.m + o * p.m_block + r * kBlock, sums[r][o]);
}

using PointFunction = void (*)(const PointProduct &);
template <int OB, int R> static PointFunction point_function(int64_t rows) {
    if constexpr (R > 1)
        return rows == R ? point_rows<R, OB> : point_function<OB, R - 1>(rows);
    else
        return point_rows<1, OB>;
}

static inline int64_t runs_of(int64_t tiles) {
    return ceil_div(tiles, kTileX);
}

// All tiles of a block, in runs of nearly equal length. `ahead()`: what a run is to fetch for later, or null.
template <class A> static void point_product(PointProduct p, int64_t tiles, int64_t out_blocks, A ahead) {
    const int64_t runs = runs_of(tiles), narrow = tiles / runs, wide = tiles % runs;
    const auto function = [&](int64_t rows) {
        return out_blocks == 1 ? point_function<1, kTileX>(rows) : point_function<kTileBlocks, kTileX>(rows);
    };
    const PointFunction ordinary = function(narrow), wider = wide ? function(narrow + 1) : nullptr;
    for (int64_t i = 0; i < runs; ++i) {
        const int64_t rows = narrow + (i < wide);
        const char *later = ahead();
        p.ahead = later ? later : reinterpret_cast<const char *>(p.next);
        (i < wide ? wider : ordinary)(p);
        p.v += rows * kBlock;
        p.m += rows * kBlock;
        p.next += p.channels * kBlock;
    }
}

} // namespace voxelrt::VOXELRT_ISA
