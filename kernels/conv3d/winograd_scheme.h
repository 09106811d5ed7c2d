// One axis of a Winograd convolution: m outputs from a run of inputs by as many products as it has points.
//
//     y = Aᵀ [(G w) ⊙ (Bᵀ x)]
//
// An algorithm for volumes is the tensor product of three of these. Each has `input` (Bᵀ), `output` (Aᵀ) and `kG`.
// `input_part` makes points kPart[i] to kPart[i + 1] - 1 alone, so that those of all rows of a plane fit the registers.
// Those with interpolation (Toom and Cook; Winograd 1980) use Lagrange polynomials at the points below and infinity:
// rows of Bᵀ are the coefficients of prod_{j≠i} (x - p_j), rows of G the powers of p_i over prod_{j≠i} (p_i - p_j),
// columns of Aᵀ the powers of p_i. Points in pairs ±p share the even and the odd part.
#pragma once

#include "vec.h"

namespace voxelrt::VOXELRT_ISA {

constexpr float kNear = 0.75f, kFar = 1.5f; // |p|: a third of the rounding of 1 and 2 (see README.md)
constexpr float kNear2 = kNear * kNear, kFar2 = kFar * kFar, kBoth = kNear2 + kFar2, kProduct = kNear2 * kFar2;

// a - b * c, a + b * c with a constant b.
static inline vf16 less(vf16 a, float b, vf16 c) {
    return fma(broadcast(-b), c, a);
}
static inline vf16 more(vf16 a, float b, vf16 c) {
    return fma(broadcast(b), c, a);
}

// One tap, stride 1: nothing to gain, for the axis of a flat kernel.
struct OneTap {
    static constexpr int kTaps = 1, kStride = 1, kOut = 1, kIn = 1, kPoints = 1;
    static constexpr int kParts = 1, kPart[] = {0, kPoints};
    template <int, class L, class S> static inline void input_part(L load, S store) { input(load, store); }
    template <class L, class S> static inline void input(L load, S store) { store(0, load(0)); }
    template <class L, class S> static inline void output(L load, S store) { store(0, load(0)); }
    static constexpr double kG[1][1] = {{1}};
};

// Three taps, stride 1, two outputs; points 0, 1, -1, ∞.
struct TwoOfThree {
    static constexpr int kTaps = 3, kStride = 1, kOut = 2, kIn = 4, kPoints = 4;
    static constexpr int kParts = 1, kPart[] = {0, kPoints};
    template <int, class L, class S> static inline void input_part(L load, S store) { input(load, store); }
    template <class L, class S> static inline void input(L load, S store) {
        const vf16 x0 = load(0), x1 = load(1), x2 = load(2), x3 = load(3);
        store(0, x2 - x0);
        store(1, x2 + x1);
        store(2, x2 - x1);
        store(3, x3 - x1);
    }
    template <class L, class S> static inline void output(L load, S store) {
        const vf16 m1 = load(1), m2 = load(2);
        store(0, load(0) + (m1 + m2));
        store(1, (m1 - m2) + load(3));
    }
    static constexpr double kG[4][3] = {{-1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
};

// Three taps, stride 1, four outputs; points 0, ±3/4, ±3/2, ∞.
struct FourOfThree {
    static constexpr int kTaps = 3, kStride = 1, kOut = 4, kIn = 6, kPoints = 6;
    static constexpr int kParts = 2, kPart[] = {0, 3, 6};
    template <int kWhich, class L, class S> static inline void input_part(L load, S store) {
        const vf16 x1 = load(1), x2 = load(2), x3 = load(3), x4 = load(4);
        if constexpr (kWhich == 0) {
            const vf16 even = less(x4, kFar2, x2), odd = less(x3, kFar2, x1);
            store(0, more(less(x4, kBoth, x2), kProduct, load(0)));
            store(1, more(even, kNear, odd));
            store(2, less(even, kNear, odd));
        } else {
            const vf16 even = less(x4, kNear2, x2), odd = less(x3, kNear2, x1);
            store(3, more(even, kFar, odd));
            store(4, less(even, kFar, odd));
            store(5, more(less(load(5), kBoth, x3), kProduct, x1));
        }
    }
    template <class L, class S> static inline void input(L load, S store) {
        input_part<0>(load, store);
        input_part<1>(load, store);
    }
    template <class L, class S> static inline void output(L load, S store) {
        const vf16 a = load(1), b = load(2), c = load(3), d = load(4);
        const vf16 near = a + b, far = c + d, near_odd = a - b, far_odd = c - d;
        store(0, load(0) + (near + far));
        store(1, more(broadcast(kNear) * near_odd, kFar, far_odd));
        store(2, more(broadcast(kNear2) * near, kFar2, far));
        store(3, load(5) + more(broadcast(kNear2 * kNear) * near_odd, kFar2 * kFar, far_odd));
    }
    static constexpr double kN = 2 * kNear2 * (kNear2 - kFar2), kF = 2 * kFar2 * (kFar2 - kNear2);
    static constexpr double kG[6][3] = {{1 / double(kProduct), 0, 0},       {1 / kN, kNear / kN, kNear2 / kN},
                                        {1 / kN, -kNear / kN, kNear2 / kN}, {1 / kF, kFar / kF, kFar2 / kF},
                                        {1 / kF, -kFar / kF, kFar2 / kF},   {0, 0, 1}};
};

// Three taps, stride 2. The outer taps read every second input, so they are a convolution of two taps with stride 1 of
// the even inputs; the middle tap multiplies the odd ones.
// Two outputs: points 0, 1, ∞ of the even inputs.
struct TwoOfThreeByTwo {
    static constexpr int kTaps = 3, kStride = 2, kOut = 2, kIn = 5, kPoints = 5;
    static constexpr int kParts = 1, kPart[] = {0, kPoints};
    template <int, class L, class S> static inline void input_part(L load, S store) { input(load, store); }
    template <class L, class S> static inline void input(L load, S store) {
        const vf16 x2 = load(2);
        store(0, x2 - load(0));
        store(1, x2);
        store(2, load(4) - x2);
        store(3, load(1));
        store(4, load(3));
    }
    template <class L, class S> static inline void output(L load, S store) {
        const vf16 m1 = load(1);
        store(0, (load(0) + m1) + load(3));
        store(1, (load(2) + m1) + load(4));
    }
    static constexpr double kG[5][3] = {{-1, 0, 0}, {1, 0, 1}, {0, 0, 1}, {0, 1, 0}, {0, 1, 0}};
};

// Four outputs: points ±3/4, ±3/2, ∞ of the even inputs.
struct FourOfThreeByTwo {
    static constexpr int kTaps = 3, kStride = 2, kOut = 4, kIn = 9, kPoints = 9;
    static constexpr int kParts = 5, kPart[] = {0, 2, 4, 5, 7, 9};
    template <int kWhich, class L, class S> static inline void input_part(L load, S store) {
        if constexpr (kWhich < 2) {
            constexpr float other = kWhich == 0 ? kFar2 : kNear2, point = kWhich == 0 ? kNear : kFar;
            const vf16 odd = less(load(6), other, load(2)), even = less(load(4), other, load(0));
            store(2 * kWhich, more(odd, point, even));
            store(2 * kWhich + 1, less(odd, point, even));
        } else if constexpr (kWhich == 2) {
            store(4, more(less(load(8), kBoth, load(4)), kProduct, load(0)));
        } else {
            constexpr int first = 2 * (kWhich - 3);
            store(5 + first, load(2 * first + 1));
            store(6 + first, load(2 * first + 3));
        }
    }
    template <class L, class S> static inline void input(L load, S store) {
        input_part<0>(load, store);
        input_part<1>(load, store);
        input_part<2>(load, store);
        input_part<3>(load, store);
        input_part<4>(load, store);
    }
    template <class L, class S> static inline void output(L load, S store) {
        const vf16 a = load(0), b = load(1), c = load(2), d = load(3);
        const vf16 near = a + b, far = c + d, near_odd = a - b, far_odd = c - d;
        store(0, load(5) + (near + far));
        store(1, load(6) + more(broadcast(kNear) * near_odd, kFar, far_odd));
        store(2, load(7) + more(broadcast(kNear2) * near, kFar2, far));
        store(3, (load(4) + load(8)) + more(broadcast(kNear2 * kNear) * near_odd, kFar2 * kFar, far_odd));
    }
    static constexpr double kN = 2 * kNear * (kNear2 - kFar2), kF = 2 * kFar * (kFar2 - kNear2);
    static constexpr double kG[9][3] = {{1 / kN, 0, kNear / kN},
                                        {-1 / kN, 0, kNear / kN},
                                        {1 / kF, 0, kFar / kF},
                                        {-1 / kF, 0, kFar / kF},
                                        {0, 0, 1},
                                        {0, 1, 0},
                                        {0, 1, 0},
                                        {0, 1, 0},
                                        {0, 1, 0}};
};

} // namespace voxelrt::VOXELRT_ISA
