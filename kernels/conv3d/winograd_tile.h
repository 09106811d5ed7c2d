// The transforms of one tile for one block of channels, for every combination of schemes.
#pragma once

#include "conv_stage.h"
#include "winograd_scheme.h"

namespace voxelrt::VOXELRT_ISA {

constexpr int kMostTilePoints = 9 * 9 * 9; // of the largest kind, and the most inputs

constexpr int kMostInputs = 9; // of a tile along an axis

// Tiles side by side along x, of inputs that were staged. They share the transforms of columns: all z and y of one x.
struct InputRow {
    const float *planes[kMostInputs]; // the first input of each
    int64_t y;                        // floats between rows
    float *v;                         // of the first point and tile
    int64_t slot;                     // floats between points
    int64_t tiles;
    float *work; // kMostTilePoints blocks
};

struct OutputTile {
    const float *m; // products of the first point
    int64_t slot;
    float *work;
    float *dst;
    int64_t z, y;                    // floats between planes and rows of dst
    int64_t planes, rows, positions; // that lie inside
    const float *residual;           // or null
    int64_t residual_z, residual_y;
    vf16 bias, slope, lo, hi;
    vm16 keep; // real channels
    bool all;  // every channel is
    bool activates;
    bool past_caches;
    vf16 *sums, *squares; // of the values without the bias; or null
};

// A column by y and z: points kPart[kWhich] and on of every plane stay in registers between the two.
template <class Z, class Y, int kWhich = 0>
static inline void transform_column(const InputRow &t, int64_t x, float *to) {
    constexpr int kFirst = Y::kPart[kWhich], kCount = Y::kPart[kWhich + 1] - kFirst;
    vf16 planes[Z::kIn][kCount];
#pragma GCC unroll 16
    for (int z = 0; z < Z::kIn; ++z) {
        const float *plane = t.planes[z] + x * kBlock;
        Y::template input_part<kWhich>([&](int k) __attribute__((always_inline)) { return load(plane + k * t.y); },
                                       [&](int q, vf16 a)
                                           __attribute__((always_inline)) { planes[z][q - kFirst] = a; });
    }
#pragma GCC unroll 16
    for (int y = 0; y < kCount; ++y)
        Z::input([&](int k) __attribute__((always_inline)) { return planes[k][y]; },
                 [&](int q, vf16 a)
                     __attribute__((always_inline)) { store(to + (q * Y::kPoints + kFirst + y) * kBlock, a); });
    if constexpr (kWhich + 1 < Y::kParts)
        transform_column<Z, Y, kWhich + 1>(t, x, to);
}

template <class Z, class Y, class X> static void input_row(const InputRow &t) {
    constexpr int kColumn = Z::kPoints * Y::kPoints, kStep = X::kOut * X::kStride;
    for (int64_t tile = 0, made = 0; tile < t.tiles; ++tile) {
        for (; made < tile * kStep + X::kIn; ++made)
            transform_column<Z, Y>(t, made, t.work + made % X::kIn * kColumn * kBlock);
        const float *column[X::kIn];
        for (int k = 0; k < X::kIn; ++k)
            column[k] = t.work + (tile * kStep + k) % X::kIn * kColumn * kBlock;
        float *to = t.v + tile * kBlock;
        const int64_t slot = t.slot;
        for (int i = 0; i < kColumn; ++i, to += X::kPoints * slot)
            X::input([&](int k) __attribute__((always_inline)) { return load(column[k] + i * kBlock); },
                     [&](int q, vf16 a) __attribute__((always_inline)) {
                         store(to + q * slot, a);
                         __builtin_prefetch(to + q * slot + kBlock, 1);
                     });
    }
}

template <class Z, class Y, class X, bool kWhole> static void output_tile(const OutputTile &t) {
    constexpr int kColumn = Z::kOut * Y::kOut;
    for (int x = 0; x < X::kPoints; ++x) {
        const float *from = t.m + x * t.slot;
        float *to = t.work + x * kColumn * kBlock;
        vf16 planes[Z::kOut][Y::kPoints];
#pragma GCC unroll 16
        for (int y = 0; y < Y::kPoints; ++y)
            Z::output(
                [&](int k) __attribute__((always_inline)) {
                    const float *m = from + (k * Y::kPoints + y) * X::kPoints * t.slot;
                    __builtin_prefetch(m + kBlock);
                    return load(m);
                },
                [&](int q, vf16 a) __attribute__((always_inline)) { planes[q][y] = a; });
#pragma GCC unroll 4
        for (int z = 0; z < Z::kOut; ++z)
            Y::output([&](int k) __attribute__((always_inline)) { return planes[z][k]; },
                      [&](int q, vf16 a) __attribute__((always_inline)) { store(to + (z * Y::kOut + q) * kBlock, a); });
    }
    vf16 sums = zero(), squares = zero();
    const int planes = kWhole ? Z::kOut : static_cast<int>(t.planes),
              rows = kWhole ? Y::kOut : static_cast<int>(t.rows),
              positions = kWhole ? X::kOut : static_cast<int>(t.positions);
    for (int z = 0; z < planes; ++z)
        for (int y = 0; y < rows; ++y) {
            const float *from = t.work + (z * Y::kOut + y) * kBlock;
            float *to = t.dst + z * t.z + y * t.y;
            const float *add = t.residual ? t.residual + z * t.residual_z + y * t.residual_y : nullptr;
            X::output([&](int k) __attribute__((always_inline)) { return load(from + k * kColumn * kBlock); },
                      [&](int x, vf16 a) __attribute__((always_inline)) {
                          if (!kWhole && x >= positions)
                              return;
                          if (add)
                              a = a + load(add + x * kBlock);
                          sums = sums + a;
                          squares = fma(a, a, squares);
                          a = a + t.bias;
                          if (t.activates)
                              a = min(t.hi, max(t.lo, select(a < zero(), a * t.slope, a)));
                          if (!t.all)
                              a = select(t.keep, a, zero());
                          if (t.past_caches)
                              stream(to + x * kBlock, a);
                          else
                              store(to + x * kBlock, a);
                      });
        }
    if (t.sums) {
        *t.sums = sums;
        *t.squares = squares;
    }
}

struct TileKind {
    int taps[3], stride[3], out[3], in[3], points[3];
    const double *weights[3]; // G of each axis, points x taps
    void (*input)(const InputRow &);
    void (*whole_output)(const OutputTile &);
    void (*output)(const OutputTile &);
};

template <class Z, class Y, class X> constexpr TileKind make_kind() {
    return {{Z::kTaps, Y::kTaps, X::kTaps},
            {Z::kStride, Y::kStride, X::kStride},
            {Z::kOut, Y::kOut, X::kOut},
            {Z::kIn, Y::kIn, X::kIn},
            {Z::kPoints, Y::kPoints, X::kPoints},
            {Z::kG[0], Y::kG[0], X::kG[0]},
            input_row<Z, Y, X>,
            output_tile<Z, Y, X, true>,
            output_tile<Z, Y, X, false>};
}

static constexpr TileKind kTileKinds[] = {
    make_kind<FourOfThree, FourOfThree, FourOfThree>(),
    make_kind<TwoOfThree, FourOfThree, FourOfThree>(),
    make_kind<TwoOfThree, TwoOfThree, TwoOfThree>(),
    make_kind<OneTap, FourOfThree, FourOfThree>(),
    make_kind<OneTap, TwoOfThree, TwoOfThree>(),
    make_kind<FourOfThree, OneTap, OneTap>(),
    make_kind<TwoOfThree, OneTap, OneTap>(),
    make_kind<TwoOfThreeByTwo, FourOfThreeByTwo, FourOfThreeByTwo>(),
    make_kind<TwoOfThreeByTwo, TwoOfThreeByTwo, TwoOfThreeByTwo>(),
    make_kind<FourOfThree, FourOfThreeByTwo, FourOfThreeByTwo>(),
    make_kind<TwoOfThree, TwoOfThreeByTwo, TwoOfThreeByTwo>(),
    make_kind<OneTap, FourOfThreeByTwo, FourOfThreeByTwo>(),
    make_kind<OneTap, TwoOfThreeByTwo, TwoOfThreeByTwo>(),
};

} // namespace voxelrt::VOXELRT_ISA
