// The inner loop of matmul: a tile of the result in registers, in the compiler's vector types, for any element type.
#pragma once

#include "kernel.h"

namespace voxelrt::VOXELRT_ISA {

#if defined(VOXELRT_ISA_avx512)
constexpr int kVectorBytes = 64, kTileRows = 14; // 28 of 32 registers are sums
#elif defined(VOXELRT_ISA_avx2)
constexpr int kVectorBytes = 32, kTileRows = 6; // 12 of 16
#else
constexpr int kVectorBytes = 16, kTileRows = 12; // 24 of 32
#endif
constexpr int kTileVectors = 2;
constexpr int kDepth = 16;      // numbers of a row of A that lie together in its packed form
constexpr int64_t kSlice = 256; // of K: sums are closed and added to the result so often; part of the result's rounding

template <class A> struct Lanes {
    typedef A V __attribute__((vector_size(kVectorBytes)));
    typedef A VAt __attribute__((vector_size(kVectorBytes), aligned(sizeof(A)), may_alias));
    static constexpr int count = kVectorBytes / static_cast<int>(sizeof(A));
    static constexpr int columns = count * kTileVectors; // of a tile, and of a panel of packed B
};

// c[r][j] (+)= Σ_k a[r][k] · b[k][j] over R rows, one panel's columns and `depth` numbers of K, k ascending.
// `a` is packed as [k / 16][row][k % 16], `b` as [k][column], `c` has `stride` numbers a row.
template <class A, int R> static void tile(int64_t depth, const A *a, const A *b, A *c, int64_t stride, bool first) {
    using V = typename Lanes<A>::V;
    using VAt = typename Lanes<A>::VAt;
    constexpr int n = Lanes<A>::count;
    V sum[R][kTileVectors];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v)
            sum[r][v] = V{};
    for (int64_t k = 0; k < depth; k += kDepth, a += R * kDepth) {
        const int count = depth - k < kDepth ? static_cast<int>(depth - k) : kDepth;
        for (int i = 0; i < count; ++i, b += Lanes<A>::columns) {
            V column[kTileVectors];
#pragma GCC unroll 2
            for (int v = 0; v < kTileVectors; ++v)
                column[v] = *reinterpret_cast<const VAt *>(b + v * n);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const A row = a[r * kDepth + i];
#pragma GCC unroll 2
                for (int v = 0; v < kTileVectors; ++v)
                    sum[r][v] += row * column[v];
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; ++v) {
            VAt *place = reinterpret_cast<VAt *>(c + r * stride + v * n);
            *place = first ? sum[r][v] : *place + sum[r][v];
        }
}

// A tile of `rows` <= kTileRows rows. Floats have an instance for every number of rows, for small batches; the others
// compute full tiles, their packed rows past the last being zeros.
template <class A> constexpr bool kFractions = A(0.5) != A(0); // a floating type
template <class A> constexpr bool kAnyRows = kFractions<A> && sizeof(A) == sizeof(float);
template <class A, int R = kTileRows>
static void tile_of(int64_t rows, int64_t depth, const A *a, const A *b, A *c, int64_t stride, bool first) {
    if constexpr (kAnyRows<A> && R > 1)
        if (rows < R)
            return tile_of<A, R - 1>(rows, depth, a, b, c, stride, first);
    tile<A, R>(depth, a, b, c, stride, first);
}

} // namespace voxelrt::VOXELRT_ISA
