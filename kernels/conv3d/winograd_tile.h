// The transforms of one tile for one block of channels, for every combination of schemes.
#pragma once

#include "conv_stage.h"
#include "winograd_scheme.h"

namespace voxelrt::VOXELRT_ISA {

constexpr int kMostTilePoints = 9 * 9 * 9; // of the largest kind, and the most inputs

struct InputTile {
    const float *src;  // first input; rows are contiguous along x
    int64_t z, y;      // floats between planes and rows
    const Norm *norm;  // applied on load
    float *v;          // of the first point
    int64_t slot;      // floats between points
    float *work;       // kMostTilePoints blocks
    const float *next; // first input of the tile that comes next, fetched meanwhile; or null
    int64_t next_z, next_y;
    int next_first; // positions of its rows that are here already
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
    bool past_caches;
    vf16 *sums, *squares; // of the values without the bias; or null
};

// One plane by x and y: points kPart[kWhich] and on of every row stay in registers between the two.
template <class Y, class X, bool kNormed, int kWhich>
static inline void plane_part(const InputTile &t, const float *plane, float *to) {
    constexpr int kFirst = X::kPart[kWhich], kCount = X::kPart[kWhich + 1] - kFirst;
    vf16 rows[Y::kIn][kCount];
#pragma GCC unroll 16
    for (int y = 0; y < Y::kIn; ++y) {
        const float *row = plane + y * t.y;
        X::template input_part<kWhich>(
            [&](int k) __attribute__((always_inline)) {
                const vf16 x = load(row + k * kBlock);
                return kNormed ? normed(*t.norm, x) : x;
            },
            [&](int q, vf16 a) __attribute__((always_inline)) { rows[y][q - kFirst] = a; });
    }
#pragma GCC unroll 16
    for (int x = 0; x < kCount; ++x)
        Y::input([&](int k) __attribute__((always_inline)) { return rows[k][x]; },
                 [&](int q, vf16 a)
                     __attribute__((always_inline)) { store(to + (q * X::kPoints + kFirst + x) * kBlock, a); });
}

template <class Y, class X, bool kNormed, int kWhich = 0>
static inline void plane_parts(const InputTile &t, const float *plane, float *to) {
    plane_part<Y, X, kNormed, kWhich>(t, plane, to);
    if constexpr (kWhich + 1 < X::kParts)
        plane_parts<Y, X, kNormed, kWhich + 1>(t, plane, to);
}

template <class Z, class Y, class X, bool kNormed> static void input_tile(const InputTile &t) {
    constexpr int kPlane = Y::kPoints * X::kPoints;
    for (int z = 0; z < Z::kIn; ++z) {
        const float *plane = t.src + z * t.z;
        plane_parts<Y, X, kNormed>(t, plane, t.work + z * kPlane * kBlock);
        if (t.next)
            for (int y = 0; y < Y::kIn; ++y)
                for (int x = t.next_first; x < X::kIn; ++x)
                    __builtin_prefetch(t.next + z * t.next_z + y * t.next_y + x * kBlock);
    }
    for (int i = 0; i < kPlane; ++i)
        Z::input([&](int k) { return load(t.work + (k * kPlane + i) * kBlock); },
                 [&](int q, vf16 a) { store(t.v + (q * kPlane + i) * t.slot, a); });
}

template <class Z, class Y, class X, bool kWhole> static void output_tile(const OutputTile &t) {
    constexpr int kRow = X::kPoints, kPlane = Y::kPoints * X::kPoints;
    for (int i = 0; i < kPlane; ++i)
        Z::output([&](int k) { return load(t.m + (k * kPlane + i) * t.slot); },
                  [&](int q, vf16 a) { store(t.work + (q * kPlane + i) * kBlock, a); });
    vf16 sums = zero(), squares = zero();
    const int planes = kWhole ? Z::kOut : static_cast<int>(t.planes),
              rows = kWhole ? Y::kOut : static_cast<int>(t.rows),
              positions = kWhole ? X::kOut : static_cast<int>(t.positions);
    for (int z = 0; z < planes; ++z) {
        vf16 by_y[Y::kOut][kRow];
#pragma GCC unroll 16
        for (int x = 0; x < kRow; ++x)
            Y::output([&](int k) __attribute__((
                          always_inline)) { return load(t.work + (z * kPlane + k * kRow + x) * kBlock); },
                      [&](int q, vf16 a) __attribute__((always_inline)) { by_y[q][x] = a; });
#pragma GCC unroll 4
        for (int y = 0; y < Y::kOut; ++y) {
            if (!kWhole && y >= rows)
                break;
            float *to = t.dst + z * t.z + y * t.y;
            const float *add = t.residual ? t.residual + z * t.residual_z + y * t.residual_y : nullptr;
            X::output([&](int k) __attribute__((always_inline)) { return by_y[y][k]; },
                      [&](int x, vf16 a) __attribute__((always_inline)) {
                          if (!kWhole && x >= positions)
                              return;
                          if (add)
                              a = a + load(add + x * kBlock);
                          sums = sums + a;
                          squares = fma(a, a, squares);
                          a = a + t.bias;
                          a = min(t.hi, max(t.lo, select(a < zero(), a * t.slope, a)));
                          if (!t.all)
                              a = select(t.keep, a, zero());
                          if (t.past_caches)
                              stream(to + x * kBlock, a);
                          else
                              store(to + x * kBlock, a);
                      });
        }
    }
    if (t.sums) {
        *t.sums = sums;
        *t.squares = squares;
    }
}

struct TileKind {
    int taps[3], stride[3], out[3], in[3], points[3];
    const double *weights[3]; // G of each axis, points x taps
    void (*input)(const InputTile &);
    void (*normed_input)(const InputTile &);
    void (*whole_output)(const OutputTile &);
    void (*output)(const OutputTile &);
};

template <class Z, class Y, class X> constexpr TileKind make_kind() {
    return {{Z::kTaps, Y::kTaps, X::kTaps},       {Z::kStride, Y::kStride, X::kStride},
            {Z::kOut, Y::kOut, X::kOut},          {Z::kIn, Y::kIn, X::kIn},
            {Z::kPoints, Y::kPoints, X::kPoints}, {Z::kG[0], Y::kG[0], X::kG[0]},
            input_tile<Z, Y, X, false>,           input_tile<Z, Y, X, true>,
            output_tile<Z, Y, X, true>,           output_tile<Z, Y, X, false>};
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
