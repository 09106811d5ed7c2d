// How elements join accumulators, and the two inner loops of a reduction for every dtype and function. Floating point
// accumulates in double, integers wrap.
#pragma once

#include "elements.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

enum Op : int { kSum, kMean, kMax, kMin, kProd, kL1, kL2, kLogSum, kLogSumExp, kSumSquare, kOps };

template <class T> struct Accumulator {
    using type = T;
};
template <> struct Accumulator<float> {
    using type = double;
};
template <class T> using AccumulatorOf = typename Accumulator<T>::type;

// ---- how an element joins an accumulator; `s` is subtracted first where exponentials are summed ----
template <class A> VOXELRT_INLINE A larger(A a, A x) {
    return (x > a) | (x != x) ? x : a;
}
template <class A> VOXELRT_INLINE A smaller(A a, A x) {
    return (x < a) | (x != x) ? x : a;
}
VOXELRT_INLINE double exponential(float x, double s) {
    return static_cast<double>(exp_f32(x - static_cast<float>(s)));
}
VOXELRT_INLINE double exponential(double x, double s) {
    return __builtin_exp(x - s);
}
template <class T> VOXELRT_INLINE T exponential(T, T) {
    return 0;
}
VOXELRT_INLINE double wrap_add(double a, double x) {
    return a + x;
}
VOXELRT_INLINE double wrap_multiply(double a, double x) {
    return a * x;
}
template <class T> VOXELRT_INLINE T wrap_add(T a, T x) {
    return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(x));
}
template <class T> VOXELRT_INLINE T wrap_multiply(T a, T x) {
    return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(x));
}
template <class A> VOXELRT_INLINE A magnitude(A x) {
    return x < A(0) ? wrap_multiply(x, A(-1)) : x;
}

struct JoinSum {
    template <class A> VOXELRT_MEMBER A merge(A a, A b) { return wrap_add(a, b); }
    template <class T, class A> VOXELRT_MEMBER A join(A a, T x, A) { return wrap_add(a, static_cast<A>(x)); }
};
struct JoinAbsolute {
    template <class A> VOXELRT_MEMBER A merge(A a, A b) { return wrap_add(a, b); }
    template <class T, class A> VOXELRT_MEMBER A join(A a, T x, A) { return wrap_add(a, magnitude(static_cast<A>(x))); }
};
struct JoinSquare {
    template <class A> VOXELRT_MEMBER A merge(A a, A b) { return wrap_add(a, b); }
    template <class T, class A> VOXELRT_MEMBER A join(A a, T x, A) {
        return wrap_add(a, wrap_multiply(static_cast<A>(x), static_cast<A>(x)));
    }
};
struct JoinProduct {
    template <class A> VOXELRT_MEMBER A merge(A a, A b) { return wrap_multiply(a, b); }
    template <class T, class A> VOXELRT_MEMBER A join(A a, T x, A) { return wrap_multiply(a, static_cast<A>(x)); }
};
struct JoinLarger {
    template <class A> VOXELRT_MEMBER A merge(A a, A b) { return larger(a, b); }
    template <class T, class A> VOXELRT_MEMBER A join(A a, T x, A) { return larger(a, static_cast<A>(x)); }
};
struct JoinSmaller {
    template <class A> VOXELRT_MEMBER A merge(A a, A b) { return smaller(a, b); }
    template <class T, class A> VOXELRT_MEMBER A join(A a, T x, A) { return smaller(a, static_cast<A>(x)); }
};
struct JoinExponential {
    template <class A> VOXELRT_MEMBER A merge(A a, A b) { return wrap_add(a, b); }
    template <class T, class A> VOXELRT_MEMBER A join(A a, T x, A s) { return wrap_add(a, exponential(x, s)); }
};

template <class A> A least() {
    if constexpr (A(0.5) != A(0))
        return -__builtin_inf();
    else
        return A(-1) < A(0) ? static_cast<A>(INT64_MIN) : A(0);
}
template <class A> A greatest() {
    if constexpr (A(0.5) != A(0))
        return __builtin_inf();
    else
        return A(-1) < A(0) ? static_cast<A>(INT64_MAX) : static_cast<A>(UINT64_MAX);
}

template <class A> A first_value(int op) {
    switch (op) {
    case kMax:
    case kLogSumExp:
        return least<A>();
    case kMin:
        return greatest<A>();
    case kProd:
        return A(1);
    default:
        return A(0);
    }
}

// Two accumulators of the same result.
template <class A> A merged(int op, A a, A b) {
    switch (op) {
    case kMax:
        return larger(a, b);
    case kMin:
        return smaller(a, b);
    case kProd:
        return wrap_multiply(a, b);
    default:
        return wrap_add(a, b);
    }
}

// ---- the inner loops ----

// Along the elements of one result: accumulators side by side (many, or the compiler unrolls instead of vectorising).
constexpr int kLanes = 64;
template <class Join, class T> struct Row {
    using A = AccumulatorOf<T>;
    static void run(A *lanes, const T *x, int64_t count, A s) {
        int64_t i = 0;
        for (; i + kLanes <= count; i += kLanes) {
            VOXELRT_INDEPENDENT
            for (int lane = 0; lane < kLanes; ++lane)
                lanes[lane] = Join::template join<T, A>(lanes[lane], x[i + lane], s);
        }
        const int rest = static_cast<int>(count - i);
        VOXELRT_INDEPENDENT
        for (int lane = 0; lane < rest; ++lane)
            lanes[lane] = Join::template join<T, A>(lanes[lane], x[i + lane], s);
    }
    // The accumulators as one, by a fixed tree.
    static A gathered(A *lanes) {
        for (int width = kLanes / 2; width > 0; width /= 2) {
            VOXELRT_INDEPENDENT
            for (int lane = 0; lane < width; ++lane)
                lanes[lane] = Join::template merge<A>(lanes[lane], lanes[lane + width]);
        }
        return lanes[0];
    }
};

// One element of each of a block of results.
template <class Join, class T> struct Column {
    using A = AccumulatorOf<T>;
    static void run(A *a, const T *x, int64_t count, const A *s) {
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < count; ++i)
            a[i] = Join::template join<T, A>(a[i], x[i], s[i]);
    }
};

template <class T> struct Loops {
    using A = AccumulatorOf<T>;
    void (*row)(A *lanes, const T *x, int64_t count, A s);
    A (*gathered)(A *lanes);
    void (*column)(A *a, const T *x, int64_t count, const A *s);
};

template <class T> Loops<T> loops_of(int op) {
    switch (op) {
    case kMax:
        return {Row<JoinLarger, T>::run, Row<JoinLarger, T>::gathered, Column<JoinLarger, T>::run};
    case kMin:
        return {Row<JoinSmaller, T>::run, Row<JoinSmaller, T>::gathered, Column<JoinSmaller, T>::run};
    case kProd:
        return {Row<JoinProduct, T>::run, Row<JoinProduct, T>::gathered, Column<JoinProduct, T>::run};
    case kL1:
        return {Row<JoinAbsolute, T>::run, Row<JoinAbsolute, T>::gathered, Column<JoinAbsolute, T>::run};
    case kL2:
    case kSumSquare:
        return {Row<JoinSquare, T>::run, Row<JoinSquare, T>::gathered, Column<JoinSquare, T>::run};
    case kLogSumExp:
        return {Row<JoinExponential, T>::run, Row<JoinExponential, T>::gathered, Column<JoinExponential, T>::run};
    default:
        return {Row<JoinSum, T>::run, Row<JoinSum, T>::gathered, Column<JoinSum, T>::run};
    }
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA
