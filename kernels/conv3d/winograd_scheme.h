// One axis of a Winograd convolution: m outputs from a run of inputs by as many products as it has points.
//
//     y = Aᵀ [(G w) ⊙ (Bᵀ x)]
//
// An algorithm for volumes is the tensor product of three of these. Each has `input` (Bᵀ), `output` (Aᵀ) and `weights`
// (G). Those with interpolation (Toom and Cook; Winograd 1980) use Lagrange polynomials at the points below and
// infinity: rows of Bᵀ are the coefficients of prod_{j≠i} (x - p_j), rows of G the powers of p_i over
// prod_{j≠i} (p_i - p_j), columns of Aᵀ the powers of p_i. Points in pairs ±p share the even and the odd part.
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
    template <class L, class S> static inline void input(L load, S store) { store(0, load(0)); }
    template <class L, class S> static inline void output(L load, S store) { store(0, load(0)); }
    static constexpr double kG[1][1] = {{1}};
};

// Three taps, stride 1, two outputs; points 0, 1, -1, ∞.
struct TwoOfThree {
    static constexpr int kTaps = 3, kStride = 1, kOut = 2, kIn = 4, kPoints = 4;
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
    template <class L, class S> static inline void input(L load, S store) {
        const vf16 x0 = load(0), x1 = load(1), x2 = load(2), x3 = load(3), x4 = load(4), x5 = load(5);
        const vf16 even_near = less(x4, kFar2, x2), odd_near = less(x3, kFar2, x1);
        const vf16 even_far = less(x4, kNear2, x2), odd_far = less(x3, kNear2, x1);
        store(0, more(less(x4, kBoth, x2), kProduct, x0));
        store(1, more(even_near, kNear, odd_near));
        store(2, less(even_near, kNear, odd_near));
        store(3, more(even_far, kFar, odd_far));
        store(4, less(even_far, kFar, odd_far));
        store(5, more(less(x5, kBoth, x3), kProduct, x1));
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
    template <class L, class S> static inline void input(L load, S store) {
        const vf16 e0 = load(0), e1 = load(2), e2 = load(4), e3 = load(6), e4 = load(8);
        const vf16 odd_near = less(e3, kFar2, e1), even_near = less(e2, kFar2, e0);
        const vf16 odd_far = less(e3, kNear2, e1), even_far = less(e2, kNear2, e0);
        store(0, more(odd_near, kNear, even_near));
        store(1, less(odd_near, kNear, even_near));
        store(2, more(odd_far, kFar, even_far));
        store(3, less(odd_far, kFar, even_far));
        store(4, more(less(e4, kBoth, e2), kProduct, e0));
        store(5, load(1));
        store(6, load(3));
        store(7, load(5));
        store(8, load(7));
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
