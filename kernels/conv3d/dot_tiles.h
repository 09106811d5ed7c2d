// The tiles of dot.h. Included by conv3d/cpu_dot.cpp alone.
#pragma once

#include "conv_tile.h"
#include "dot.h"

namespace voxelrt::VOXELRT_ISA {

// D: how units are multiplied; OB blocks of output channels, R rows of X positions, P units between positions (0:
// src_x).
template <class D, bool kSigned, int OB, int R, int X, int P> static void dot_product_tile(const DotTile &t) {
    typename D::Sum sums[R][X][OB];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
        for (int x = 0; x < X; ++x)
#pragma GCC unroll 2
            for (int o = 0; o < OB; ++o)
                sums[r][x][o] = D::none();
    const int64_t src_row = t.src_row, src_x = P ? P : t.src_x;
    for (int64_t block = 0; block < t.blocks; ++block) {
        const int64_t units = block + 1 == t.blocks ? t.units_last : t.units;
        const uint32_t *src_block = t.src + block * t.src_block, *weight_block = t.weights + block * t.weight_block;
        for (int64_t z = 0; z < t.nz; ++z)
            for (int64_t y = 0; y < t.ny; ++y) {
                const uint32_t *src_zy = src_block + t.z[z].src + t.y[y].src;
                const int64_t tap_zy = t.z[z].weight + t.y[y].weight;
                for (int64_t k = 0; k < t.nx; ++k) {
                    const uint32_t *src = src_zy + t.x[k].src;
                    const uint32_t *weights = weight_block + (tap_zy + t.x[k].weight) * units * OB * kBlock;
                    for (int64_t u = 0; u < units; ++u, ++src, weights += OB * kBlock) {
#pragma GCC unroll 2
                        for (int i = 0; i < D::kParts; ++i) {
                            Units w[OB];
#pragma GCC unroll 2
                            for (int o = 0; o < OB; ++o) {
                                if constexpr (kSigned)
                                    w[o] = D::signed_part(i, load_units(weights + o * kBlock));
                                else
                                    w[o] = D::part(i, load_units(weights + o * kBlock));
                            }
#pragma GCC unroll 16
                            for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
                                for (int x = 0; x < X; ++x) {
                                    const Units v = D::part(i, spread_unit(src + r * src_row + x * src_x));
#pragma GCC unroll 2
                                    for (int o = 0; o < OB; ++o)
                                        sums[r][x][o] = D::add(sums[r][x][o], v, w[o]);
                                }
                        }
                    }
                }
            }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
        for (int x = 0; x < X; ++x)
#pragma GCC unroll 2
            for (int o = 0; o < OB; ++o)
                D::put(t.sums + (o * R * X + r * X + x) * kBlock, sums[r][x][o]);
}

template <class D, bool kSigned, int OB, int R, int P, int X> static DotFunction dot_of_width(int x) {
    if constexpr (X > 1)
        if (x != X)
            return dot_of_width<D, kSigned, OB, R, P, X - 1>(x);
    return dot_product_tile<D, kSigned, OB, R, X, P>;
}
template <class D, bool kSigned, int OB> static DotFunction loose_dot_of(int x) {
    return dot_of_width<D, kSigned, OB, 1, 0, kTileX>(x);
}
template <class D, int P, int OB> static DotFunction dot_of(int rows, int x, bool loose) {
    if (loose)
        return loose_dot_of<D, false, OB>(x);
    if (rows == 1)
        return dot_of_width<D, false, OB, 1, P, kTileX>(x);
    return rows == 2 ? dot_of_width<D, false, OB, 2, P, kTileX / 2>(x)
                     : dot_of_width<D, false, OB, 4, P, kTileX / 4>(x);
}

} // namespace voxelrt::VOXELRT_ISA
