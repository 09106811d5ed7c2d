// The functions of elementwise.unary, one list: name and value of x, with the step's alpha and beta as a and b.
// Their order is their code in plans (codes.py's UNARY): append only.
#pragma once

#include "elements.h"

#include <type_traits>

namespace voxelrt::VOXELRT_ISA {
namespace {

// ---- float32 by vectorised polynomials, float64 by the C library ----
VOXELRT_INLINE float f_exp(float x) {
    return exp_f32(x);
}
VOXELRT_INLINE double f_exp(double x) {
    return __builtin_exp(x);
}
VOXELRT_INLINE float f_expm1_negative(float x) {
    return expm1_negative_f32(x);
}
VOXELRT_INLINE double f_expm1_negative(double x) {
    return __builtin_expm1(x);
}
VOXELRT_INLINE float f_log(float x) {
    return log_f32(x);
}
VOXELRT_INLINE double f_log(double x) {
    return __builtin_log(x);
}
VOXELRT_INLINE float f_tanh(float x) {
    return tanh_f32(x);
}
VOXELRT_INLINE double f_tanh(double x) {
    return __builtin_tanh(x);
}
VOXELRT_INLINE float f_erf(float x) {
    return erf_f32(x);
}
VOXELRT_INLINE double f_erf(double x) {
    return __builtin_erf(x);
}
VOXELRT_INLINE float f_erfc_positive(float x) {
    return erfc_positive_f32(x);
}
VOXELRT_INLINE double f_erfc_positive(double x) {
    return __builtin_erfc(x);
}
VOXELRT_INLINE float f_softplus(float x) {
    return softplus_f32(x);
}
VOXELRT_INLINE double f_softplus(double x) {
    return (x > 0 ? x : (x == x ? 0.0 : x)) + __builtin_log1p(__builtin_exp(x > 0 ? -x : x));
}
#define VOXELRT_BOTH(name)                                                                                             \
    VOXELRT_INLINE float f_##name(float x) {                                                                           \
        return __builtin_##name##f(x);                                                                                 \
    }                                                                                                                  \
    VOXELRT_INLINE double f_##name(double x) {                                                                         \
        return __builtin_##name(x);                                                                                    \
    }
VOXELRT_BOTH(sqrt)
VOXELRT_BOTH(fabs)
VOXELRT_BOTH(floor)
VOXELRT_BOTH(ceil)
VOXELRT_BOTH(rint)
VOXELRT_BOTH(sin)
VOXELRT_BOTH(cos)
VOXELRT_BOTH(tan)
VOXELRT_BOTH(asin)
VOXELRT_BOTH(acos)
VOXELRT_BOTH(atan)
VOXELRT_BOTH(sinh)
VOXELRT_BOTH(cosh)
VOXELRT_BOTH(asinh)
VOXELRT_BOTH(acosh)
VOXELRT_BOTH(atanh)
#undef VOXELRT_BOTH

template <class T> VOXELRT_INLINE T f_sigmoid(T x) {
    return T(1) / (T(1) + f_exp(-x));
}
template <class T> VOXELRT_INLINE T f_gelu(T x) {
    const T tail = f_erfc_positive(f_fabs(x) * T(0.70710678118654752));
    return T(0.5) * x * (x < 0 ? tail : T(2) - tail);
}
template <class T> VOXELRT_INLINE T f_gelu_tanh(T x) {
    const T u = T(0.79788456080286536) * (x + T(0.044715) * x * x * x);
    return x * f_sigmoid(T(2) * u);
}
// x tanh(log(1 + e^x)): the tanh of a logarithm is a ratio of polynomials of e^x, one past x = 20.
template <class T> VOXELRT_INLINE T f_mish(T x) {
    const T e = f_exp(x > T(20) ? T(20) : x), n = e * (e + T(2));
    return x > T(20) ? x : x * (n / (n + T(2)));
}
template <class T> VOXELRT_INLINE T f_clip(T x, T low, T high) {
    const T raised = x < low || low != low ? low : x;
    return raised > high || high != high ? high : raised;
}
VOXELRT_INLINE float f_infinite(float x) {
    return f_fabs(x) == __builtin_inff() ? 1.0f : 0.0f;
}
VOXELRT_INLINE double f_infinite(double x) {
    return f_fabs(x) == __builtin_inf() ? 1.0 : 0.0;
}

template <class T> VOXELRT_INLINE T i_abs(T x) {
    return static_cast<int64_t>(x) < 0 && T(-1) < T(0) ? static_cast<T>(-static_cast<uint64_t>(x)) : x;
}

// X(name, value for floating point, value for integers); `none` where there is no such function.
#define VOXELRT_UNARY(X, none)                                                                                         \
    X(Identity, x, x)                                                                                                  \
    X(Abs, f_fabs(x), i_abs(x))                                                                                        \
    X(Neg, -x, static_cast<T>(-static_cast<uint64_t>(x)))                                                              \
    X(Sign, x > 0 ? T(1) : (x < 0 ? T(-1) : x), x > 0 ? T(1) : (x < 0 ? T(-1) : x))                                    \
    X(Sqrt, f_sqrt(x), none)                                                                                           \
    X(Exp, f_exp(x), none)                                                                                             \
    X(Log, f_log(x), none)                                                                                             \
    X(Reciprocal, T(1) / x, none)                                                                                      \
    X(Floor, f_floor(x), x)                                                                                            \
    X(Ceil, f_ceil(x), x)                                                                                              \
    X(Round, f_rint(x), x)                                                                                             \
    X(Sin, f_sin(x), none)                                                                                             \
    X(Cos, f_cos(x), none)                                                                                             \
    X(Tan, f_tan(x), none)                                                                                             \
    X(Asin, f_asin(x), none)                                                                                           \
    X(Acos, f_acos(x), none)                                                                                           \
    X(Atan, f_atan(x), none)                                                                                           \
    X(Sinh, f_sinh(x), none)                                                                                           \
    X(Cosh, f_cosh(x), none)                                                                                           \
    X(Tanh, f_tanh(x), none)                                                                                           \
    X(Asinh, f_asinh(x), none)                                                                                         \
    X(Acosh, f_acosh(x), none)                                                                                         \
    X(Atanh, f_atanh(x), none)                                                                                         \
    X(Erf, f_erf(x), none)                                                                                             \
    X(Sigmoid, f_sigmoid(x), none)                                                                                     \
    X(Relu, x < 0 ? T(0) : x, x < 0 ? T(0) : x)                                                                        \
    X(LeakyRelu, x < 0 ? a * x : x, none)                                                                              \
    X(Elu, x < 0 ? a * f_expm1_negative(x) : x, none)                                                                  \
    X(Selu, b *(x < 0 ? a * f_expm1_negative(x) : x), none)                                                            \
    X(Celu, x < 0 ? a * f_expm1_negative(x / a) : x, none)                                                             \
    X(HardSigmoid, f_clip(a *x + b, T(0), T(1)), none)                                                                 \
    X(HardSwish, x *f_clip(x / T(6) + T(0.5), T(0), T(1)), none)                                                       \
    X(Softplus, f_softplus(x), none)                                                                                   \
    X(Softsign, x / (T(1) + f_fabs(x)), none)                                                                          \
    X(ThresholdedRelu, x > a ? x : T(0), none)                                                                         \
    X(Mish, f_mish(x), none)                                                                                           \
    X(Gelu, f_gelu(x), none)                                                                                           \
    X(GeluTanh, f_gelu_tanh(x), none)                                                                                  \
    X(Swish, x *f_sigmoid(a *x), none)                                                                                 \
    X(Shrink, x < -a ? x + b : (x > a ? x - b : T(0)), none)                                                           \
    X(Clip, f_clip(x, a, b), f_clip(x, a, b))                                                                          \
    X(Not, none, x == 0)                                                                                               \
    X(IsNaN, x != x ? T(1) : T(0), none)                                                                               \
    X(IsInf, f_infinite(x) * (x < 0 ? a : b), none)                                                                    \
    X(BitwiseNot, none, static_cast<T>(~x))                                                                            \
    X(Affine, x *a + b, static_cast<T>(static_cast<uint64_t>(x) * static_cast<uint64_t>(a) + static_cast<uint64_t>(b)))

enum class Unary : int {
#define X(name, floating, integer) name,
    VOXELRT_UNARY(X, 0)
#undef X
        count
};

// A step's scalars in the compute type.
template <class T> struct Scalars {
    T a, b;
};
template <class T> using UnaryFunction = void (*)(const T *in, T *out, int64_t count, const Scalars<T> &scalars);

struct Missing {};
#define X(name, floating, integer)                                                                                     \
    struct Unary##name {                                                                                               \
        template <class T>                                                                                             \
        VOXELRT_MEMBER auto value([[maybe_unused]] T x, [[maybe_unused]] T a, [[maybe_unused]] T b) {                  \
            if constexpr (T(0.5) != T(0))                                                                              \
                return floating;                                                                                       \
            else                                                                                                       \
                return integer;                                                                                        \
        }                                                                                                              \
    };
VOXELRT_UNARY(X, Missing{})
#undef X

template <class T, class Op> struct UnaryLoop {
    static void run(const T *in, T *out, int64_t count, const Scalars<T> &scalars) {
        const T a = scalars.a, b = scalars.b;
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < count; ++i)
            out[i] = static_cast<T>(Op::value(in[i], a, b));
    }
    static constexpr UnaryFunction<T> function() {
        if constexpr (std::is_same_v<decltype(Op::value(T(), T(), T())), Missing>)
            return nullptr;
        else
            return &run;
    }
};

// Null where T has no such function.
template <class T> static UnaryFunction<T> unary_function(int op) {
    static constexpr UnaryFunction<T> table[] = {
#define X(name, floating, integer) UnaryLoop<T, Unary##name>::function(),
        VOXELRT_UNARY(X, 0)
#undef X
    };
    return op >= 0 && op < static_cast<int>(Unary::count) ? table[op] : nullptr;
}

// A step's double as a scalar of T; integers saturate.
template <class T> static T scalar_of(double value) {
    if constexpr (T(0.5) != T(0))
        return static_cast<T>(value);
    else if constexpr (T(-1) < T(0))
        return value >= 9223372036854775808.0 ? INT64_MAX
                                              : (value >= -9223372036854775808.0 ? static_cast<T>(value) : INT64_MIN);
    else
        return value >= 18446744073709551616.0 ? UINT64_MAX : (value >= 0.0 ? static_cast<T>(value) : 0);
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA
