// The functions of elementwise.binary, one list: name and value of x and y. Their order is their code in plans
// (codes.py's BINARY): append only. Comparisons and logic give 0 or 1.
#pragma once

#include "unary.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

VOXELRT_INLINE float f_pow(float x, float y) {
    return __builtin_powf(x, y);
}
VOXELRT_INLINE double f_pow(double x, double y) {
    return __builtin_pow(x, y);
}
VOXELRT_INLINE float f_fmod(float x, float y) {
    return __builtin_fmodf(x, y);
}
VOXELRT_INLINE double f_fmod(double x, double y) {
    return __builtin_fmod(x, y);
}
// The remainder with the divisor's sign, as in Python.
template <class T> VOXELRT_INLINE T f_mod(T x, T y) {
    const T r = f_fmod(x, y);
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

// Two's complement throughout; a division by zero gives zero.
VOXELRT_INLINE int64_t i_div(int64_t x, int64_t y) {
    return y == -1 ? static_cast<int64_t>(-static_cast<uint64_t>(x)) : (y == 0 ? 0 : x / y);
}
VOXELRT_INLINE uint64_t i_div(uint64_t x, uint64_t y) {
    return y == 0 ? 0 : x / y;
}
VOXELRT_INLINE int64_t i_fmod(int64_t x, int64_t y) {
    return y == -1 || y == 0 ? 0 : x % y;
}
VOXELRT_INLINE uint64_t i_fmod(uint64_t x, uint64_t y) {
    return y == 0 ? 0 : x % y;
}
VOXELRT_INLINE int64_t i_mod(int64_t x, int64_t y) {
    const int64_t r = i_fmod(x, y);
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}
VOXELRT_INLINE uint64_t i_mod(uint64_t x, uint64_t y) {
    return i_fmod(x, y);
}
template <class T> static inline T i_pow(T base, T exponent) {
    if (T(-1) < T(0) && static_cast<int64_t>(exponent) < 0)
        return base == T(1) ? T(1) : (base == T(-1) ? (exponent & 1 ? T(-1) : T(1)) : T(0));
    uint64_t result = 1, square = static_cast<uint64_t>(base), rest = static_cast<uint64_t>(exponent);
    for (; rest; rest >>= 1, square *= square)
        if (rest & 1)
            result *= square;
    return static_cast<T>(result);
}
template <class T> VOXELRT_INLINE T i_left(T x, T y) {
    return static_cast<uint64_t>(y) > 63 ? T(0) : static_cast<T>(static_cast<uint64_t>(x) << y);
}
template <class T> VOXELRT_INLINE T i_right(T x, T y) { // arithmetic, as of more places than there are
    return static_cast<uint64_t>(y) > 63 ? (x < 0 ? static_cast<T>(-1) : T(0)) : x >> y;
}

#define VOXELRT_WRAP(expression) static_cast<T>(expression)
#define VOXELRT_U(v) static_cast<uint64_t>(v)

// X(name, value for floating point, value for integers)
#define VOXELRT_BINARY(X, none)                                                                                        \
    X(Add, x + y, VOXELRT_WRAP(VOXELRT_U(x) + VOXELRT_U(y)))                                                           \
    X(Sub, x - y, VOXELRT_WRAP(VOXELRT_U(x) - VOXELRT_U(y)))                                                           \
    X(Mul, x *y, VOXELRT_WRAP(VOXELRT_U(x) * VOXELRT_U(y)))                                                            \
    X(Div, x / y, i_div(x, y))                                                                                         \
    X(Pow, f_pow(x, y), i_pow(x, y))                                                                                   \
    X(Mod, f_mod(x, y), i_mod(x, y))                                                                                   \
    X(Fmod, f_fmod(x, y), i_fmod(x, y))                                                                                \
    X(Min, x <= y || x != x ? x : y, x <= y ? x : y)                                                                   \
    X(Max, x >= y || x != x ? x : y, x >= y ? x : y)                                                                   \
    X(And, none, (x != 0) & (y != 0))                                                                                  \
    X(Or, none, (x != 0) | (y != 0))                                                                                   \
    X(Xor, none, (x != 0) != (y != 0))                                                                                 \
    X(Equal, x == y ? T(1) : T(0), x == y)                                                                             \
    X(Greater, x > y ? T(1) : T(0), x > y)                                                                             \
    X(GreaterOrEqual, x >= y ? T(1) : T(0), x >= y)                                                                    \
    X(Less, x < y ? T(1) : T(0), x < y)                                                                                \
    X(LessOrEqual, x <= y ? T(1) : T(0), x <= y)                                                                       \
    X(ShiftLeft, none, i_left(x, y))                                                                                   \
    X(ShiftRight, none, i_right(x, y))                                                                                 \
    X(BitwiseAnd, none, x &y)                                                                                          \
    X(BitwiseOr, none, x | y)                                                                                          \
    X(BitwiseXor, none, x ^ y)                                                                                         \
    X(PRelu, x < 0 ? x * y : x, x < 0 ? VOXELRT_WRAP(VOXELRT_U(x) * VOXELRT_U(y)) : x)

enum class Binary : int {
#define X(name, floating, integer) name,
    VOXELRT_BINARY(X, 0)
#undef X
        count
};

template <class T> using BinaryFunction = void (*)(const T *x, const T *y, T *out, int64_t count);

#define X(name, floating, integer)                                                                                     \
    struct Binary##name {                                                                                              \
        template <class T> VOXELRT_MEMBER auto value([[maybe_unused]] T x, [[maybe_unused]] T y) {                     \
            if constexpr (T(0.5) != T(0))                                                                              \
                return floating;                                                                                       \
            else                                                                                                       \
                return integer;                                                                                        \
        }                                                                                                              \
    };
VOXELRT_BINARY(X, Missing{})
#undef X

template <class T, class Op> struct BinaryLoop {
    static void run(const T *x, const T *y, T *out, int64_t count) {
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < count; ++i)
            out[i] = static_cast<T>(Op::value(x[i], y[i]));
    }
    static constexpr BinaryFunction<T> function() {
        if constexpr (std::is_same_v<decltype(Op::value(T(), T())), Missing>)
            return nullptr;
        else
            return &run;
    }
};

// Squares and cubes are common and powf is not fast: a chunk whose exponents are all 2 or all 3 is multiplied.
template <class T> static void power(const T *x, const T *y, T *out, int64_t count) {
    bool same = true;
    for (int64_t i = 0; i < count; ++i)
        same &= y[i] == y[0];
    if (same && count > 0 && (y[0] == 2 || y[0] == 3)) {
        const bool cube = y[0] == 3;
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < count; ++i)
            out[i] = cube ? x[i] * x[i] * x[i] : x[i] * x[i];
    } else
        BinaryLoop<T, BinaryPow>::run(x, y, out, count);
}

// Null where T has no such function.
template <class T> static BinaryFunction<T> binary_function(int op) {
    static constexpr BinaryFunction<T> table[] = {
#define X(name, floating, integer) BinaryLoop<T, Binary##name>::function(),
        VOXELRT_BINARY(X, 0)
#undef X
    };
    if constexpr (T(0.5) != T(0))
        if (op == static_cast<int>(Binary::Pow))
            return &power<T>;
    return op >= 0 && op < static_cast<int>(Binary::count) ? table[op] : nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA
