// The product of a few rows of states with packed recurrent weights: the inner loop of lstm and mdlstm.
//
// States lie as [k / 16][row][k % 16], so that one address with constant offsets serves all rows. Weights lie as panels
// [k][V · 16]: the V gates of sixteen hidden units side by side, so that a panel gives all that those units need. Every
// sum runs over k ascending, whatever the rows and panels that are worked on together.
#pragma once

#include "kernel.h"
#include "vec.h"

namespace voxelrt::VOXELRT_ISA {

#if defined(VOXELRT_ISA_avx512)
constexpr int kStateRows = 8;    // of a block of states
constexpr int kSums = 24;        // accumulators (vf16) of a tile
constexpr int kPanelsAtOnce = 2; // for one row, whose sums would otherwise wait for each other
#elif defined(VOXELRT_ISA_avx2)
constexpr int kStateRows = 6;
constexpr int kSums = 6;
constexpr int kPanelsAtOnce = 1;
#else
constexpr int kStateRows = 6;
constexpr int kSums = 6;
constexpr int kPanelsAtOnce = 1;
#endif

// R rows times V vectors of P panels over `depth` numbers of k: out[p · out_panel + r · out_row + 16 v + lane].
template <int R, int V, int P>
static inline void state_tile(int64_t depth, const float *a, int64_t a_block, const float *b, int64_t b_row,
                              int64_t b_panel, float *out, int64_t out_row, int64_t out_panel) {
    vf16 sums[P][R][V];
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v)
                sums[p][r][v] = zero();
    for (int64_t k = 0; k < depth; k += kBlock, a += a_block) {
        const int count = depth - k < kBlock ? static_cast<int>(depth - k) : kBlock;
        for (int i = 0; i < count; ++i, b += b_row) {
#pragma GCC unroll 2
            for (int p = 0; p < P; ++p) {
                vf16 columns[V];
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v)
                    columns[v] = load(b + p * b_panel + v * kBlock);
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    const vf16 state = broadcast(a[r * kBlock + i]);
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v)
                        sums[p][r][v] = fma(state, columns[v], sums[p][r][v]);
                }
            }
        }
    }
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v)
                store(out + p * out_panel + r * out_row + v * kBlock, sums[p][r][v]);
}

// How many of V vectors a tile of R rows takes at once: as even a cut as the accumulators allow.
constexpr int vectors_at_once(int R, int V) {
    int passes = 1;
    while ((V + passes - 1) / passes * R > kSums || (V + passes - 1) / passes > 4)
        ++passes;
    return (V + passes - 1) / passes;
}

// All V vectors of one panel for `rows` rows: out[r · V · 16 + column].
template <int V, int R = kStateRows>
static void multiply_states(int rows, int64_t depth, const float *a, int64_t a_block, const float *panel, float *out) {
    if constexpr (R > 1)
        if (rows < R)
            return multiply_states<V, R - 1>(rows, depth, a, a_block, panel, out);
    constexpr int width = vectors_at_once(R, V), rest = V % width, row = V * kBlock;
    for (int v = 0; v + width <= V; v += width)
        state_tile<R, width, 1>(depth, a, a_block, panel + v * kBlock, row, 0, out + v * kBlock, row, 0);
    if constexpr (rest != 0)
        state_tile<R, rest, 1>(depth, a, a_block, panel + (V - rest) * kBlock, row, 0, out + (V - rest) * kBlock, row,
                               0);
}

// The same of several panels that follow each other, for one row: out[panel · V · 16 + column].
template <int V>
static void multiply_state(int panels, int64_t depth, const float *a, int64_t a_block, const float *panel, float *out) {
    constexpr int row = V * kBlock;
    if constexpr (kPanelsAtOnce > 1 && V <= 4)
        if (panels == kPanelsAtOnce)
            return state_tile<1, V, kPanelsAtOnce>(depth, a, a_block, panel, row, depth * row, out, row, row);
    for (int p = 0; p < panels; ++p)
        multiply_states<V>(1, depth, a, a_block, panel + p * depth * row, out + p * row);
}

} // namespace voxelrt::VOXELRT_ISA
