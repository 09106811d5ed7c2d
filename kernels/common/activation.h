// The activations that a kernel can apply to what it has computed, sixteen lanes at a time or one number at a time.
//
// The numbers are part of plans: never renumber. exp is within 1e-7 of the exact value, tanh and the sigmoid within
// 3e-7, relative; erf within 2e-7, absolute (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26).
#pragma once

#include "kernel.h"
#include "vec.h"

#include <cmath>

namespace voxelrt::VOXELRT_ISA {

enum Activation : int32_t {
    kNoActivation = 0,
    kRelu = 1,        // max(x, 0)
    kLeakyRelu = 2,   // x < 0 ? alpha x : x
    kSigmoid = 3,     // 1 / (1 + exp(-x))
    kTanh = 4,        //
    kElu = 5,         // x < 0 ? alpha (exp(x) - 1) : x
    kClip = 6,        // min(max(x, alpha), beta)
    kSilu = 7,        // x sigmoid(x)
    kGelu = 8,        // x (1 + erf(x / sqrt 2)) / 2
    kHardSigmoid = 9, // min(max(alpha x + beta, 0), 1)
    kHardSwish = 10,  // x min(max(x / 6 + 1/2, 0), 1)
    kGeluTanh = 11,   // x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
    kMish = 12,       // x tanh(log(1 + exp(x)))
    kActivations = 13
};

// exp(x) - 1 without cancellation, and exp(x) itself, from one reduction x = n ln 2 + r.
struct ExpParts {
    vf16 power; // 2^n
    vf16 less;  // exp(r) - 1
};
static inline ExpParts exp_parts(vf16 x) {
    x = min(broadcast(88.0f), max(broadcast(-87.0f), x));
    const vf16 n = round(x * broadcast(1.44269504f));
    vf16 r = fma(n, broadcast(-0.693359375f), x); // ln 2 in two parts: the first has few bits, so n times it is exact
    r = fma(n, broadcast(2.12194440e-4f), r);
    vf16 p = broadcast(1.0f / 5040.0f); // the series: |r| <= 0.35, so the next term is below 1e-8
    p = fma(p, r, broadcast(1.0f / 720.0f));
    p = fma(p, r, broadcast(1.0f / 120.0f));
    p = fma(p, r, broadcast(1.0f / 24.0f));
    p = fma(p, r, broadcast(1.0f / 6.0f));
    p = fma(p, r, broadcast(0.5f));
    return {power_of_two(n), fma(p * r, r, r)};
}
// Saturates at exp(-87) and exp(88): what follows from it here is then 0 or 1 to float precision.
static inline vf16 exp(vf16 x) {
    const ExpParts parts = exp_parts(x);
    return fma(parts.power, parts.less, parts.power);
}
static inline vf16 expm1(vf16 x) {
    const ExpParts parts = exp_parts(x);
    return fma(parts.power, parts.less, parts.power - broadcast(1.0f));
}
static inline vf16 sigmoid(vf16 x) {
    const vf16 one = broadcast(1.0f);
    return one / (one + exp(zero() - x));
}
static inline vf16 tanh(vf16 x) {
    const vf16 a = min(broadcast(20.0f), abs(x)); // tanh(20) is 1 to float precision
    const vf16 e = expm1(a + a);
    const vf16 t = e / (e + broadcast(2.0f));
    return select(x < zero(), zero() - t, t);
}
// (1 + erf(x / sqrt 2)) / 2, the normal distribution function.
static inline vf16 normal_cdf(vf16 x) {
    const vf16 one = broadcast(1.0f), z = abs(x) * broadcast(0.70710678f);
    const vf16 t = one / fma(z, broadcast(0.3275911f), one);
    vf16 p = broadcast(1.061405429f);
    p = fma(p, t, broadcast(-1.453152027f));
    p = fma(p, t, broadcast(1.421413741f));
    p = fma(p, t, broadcast(-0.284496736f));
    p = fma(p, t, broadcast(0.254829592f));
    const vf16 tail = broadcast(0.5f) * p * t * exp(zero() - z * z); // erfc(z) / 2
    return select(x < zero(), tail, one - tail);
}

static inline vf16 activate_one(int kind, vf16 x, vf16 alpha, vf16 beta) {
    const vf16 one = broadcast(1.0f);
    switch (kind) {
    case kRelu:
        return max(zero(), x);
    case kLeakyRelu:
        return select(x < zero(), x * alpha, x);
    case kSigmoid:
        return sigmoid(x);
    case kTanh:
        return tanh(x);
    case kElu:
        return select(x < zero(), alpha * expm1(x), x);
    case kClip:
        return min(beta, max(alpha, x));
    case kSilu:
        return x * sigmoid(x);
    case kGelu:
        return x * normal_cdf(x);
    case kHardSigmoid:
        return min(one, max(zero(), fma(alpha, x, beta)));
    case kHardSwish:
        return x * min(one, max(zero(), fma(x, broadcast(1.0f / 6.0f), broadcast(0.5f))));
    case kGeluTanh: {
        const vf16 cubic = fma(x * x * x, broadcast(0.044715f), x);
        return x * sigmoid(cubic * broadcast(1.5957691216f)); // (1 + tanh u) / 2 = sigmoid(2 u)
    }
    case kMish: { // with e = exp(x): tanh(log(1 + e)) = (e^2 + 2 e) / (e^2 + 2 e + 2)
        const vf16 e = exp(min(broadcast(30.0f), x)), q = e * (e + broadcast(2.0f));
        return x * (q / (q + broadcast(2.0f)));
    }
    default:
        return x;
    }
}
// A NaN stays a NaN whatever the approximation makes of it.
static inline vf16 activate(int kind, vf16 x, vf16 alpha, vf16 beta) {
    return select(is_nan(x), x, activate_one(kind, x, alpha, beta));
}

// `count` floats in place. One loop a kind, so that the switch is outside.
static inline void activate_row(int kind, float alpha, float beta, float *row, int64_t count) {
    const vf16 a = broadcast(alpha), b = broadcast(beta);
#define VOXELRT_ACTIVATE(constant)                                                                                     \
    case constant: {                                                                                                   \
        int64_t i = 0;                                                                                                 \
        for (; i + 16 <= count; i += 16)                                                                               \
            store(row + i, activate(constant, load(row + i), a, b));                                                   \
        if (i < count) {                                                                                               \
            const int rest = static_cast<int>(count - i);                                                              \
            store_first(row + i, activate(constant, load_first(row + i, rest), a, b), rest);                           \
        }                                                                                                              \
        break;                                                                                                         \
    }
    switch (kind) {
        VOXELRT_ACTIVATE(kRelu)
        VOXELRT_ACTIVATE(kLeakyRelu)
        VOXELRT_ACTIVATE(kSigmoid)
        VOXELRT_ACTIVATE(kTanh)
        VOXELRT_ACTIVATE(kElu)
        VOXELRT_ACTIVATE(kClip)
        VOXELRT_ACTIVATE(kSilu)
        VOXELRT_ACTIVATE(kGelu)
        VOXELRT_ACTIVATE(kHardSigmoid)
        VOXELRT_ACTIVATE(kHardSwish)
        VOXELRT_ACTIVATE(kGeluTanh)
        VOXELRT_ACTIVATE(kMish)
    default:
        break;
    }
#undef VOXELRT_ACTIVATE
}

// One number, in double precision.
static inline double activate_number(int kind, double x, double alpha, double beta) {
    if (x != x)
        return x;
    const auto clamp = [](double v, double lo, double hi) {
        const double least = v < lo ? lo : v;
        return least > hi ? hi : least;
    };
    switch (kind) {
    case kRelu:
        return x < 0 ? 0.0 : x;
    case kLeakyRelu:
        return x < 0 ? alpha * x : x;
    case kSigmoid:
        return 1.0 / (1.0 + std::exp(-x));
    case kTanh:
        return std::tanh(x);
    case kElu:
        return x < 0 ? alpha * std::expm1(x) : x;
    case kClip:
        return clamp(x, alpha, beta);
    case kSilu:
        return x / (1.0 + std::exp(-x));
    case kGelu:
        return 0.5 * x * std::erfc(-x * 0.70710678118654752440);
    case kHardSigmoid:
        return clamp(alpha * x + beta, 0.0, 1.0);
    case kHardSwish:
        return x * clamp(x / 6.0 + 0.5, 0.0, 1.0);
    case kGeluTanh:
        return x / (1.0 + std::exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)));
    case kMish:
        return x * std::tanh(std::log1p(std::exp(x < 40 ? x : 40.0)));
    default:
        return x;
    }
}

} // namespace voxelrt::VOXELRT_ISA
