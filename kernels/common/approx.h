// Elementary functions of float32 that the compiler turns into vector code when called in a plain loop: no branches,
// no calls. Errors are a few units in the last place over the whole range, infinities and NaNs as in C. Polynomials
// are minimax fits (Lawson's iteration on Chebyshev nodes) of the remainder after the leading terms.
#pragma once

#include <cstdint>
#include <cstring>

// Before a loop whose iterations do not depend on each other, though pointers may be equal (in-place).
#if defined(__clang__)
#define VOXELRT_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define VOXELRT_INDEPENDENT _Pragma("GCC ivdep")
#endif
#define VOXELRT_INLINE __attribute__((always_inline)) static inline

namespace voxelrt::VOXELRT_ISA {

template <class To, class From> VOXELRT_INLINE To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
    To result;
    std::memcpy(&result, &value, sizeof result);
    return result;
}

// x = n ln 2 + r with n whole: 2^n e^r, with 2^n in two factors so that results under the normal range are right.
VOXELRT_INLINE float exp_f32(float x) {
    constexpr float kMagic = 12582912.0f; // 1.5 * 2^23: adding it rounds to a whole number, kept in the low bits
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;
    const float shifted = x * 1.44269504f + kMagic;
    const float n = shifted - kMagic;
    float r = x - n * 0.693145752f; // ln 2 in two parts
    r = r - n * 1.42860677e-6f;
    float p = 0.00138131448f;
    p = p * r + 0.00836941879f;
    p = p * r + 0.0416684560f;
    p = p * r + 0.166665152f;
    p = p * r + 0.49999994f;
    p = p * r * r + r + 1.0f;
    const int32_t whole = static_cast<int32_t>(bits_as<uint32_t>(shifted) - bits_as<uint32_t>(kMagic));
    const int32_t half = whole >> 1;
    const float a = bits_as<float>(static_cast<int32_t>(static_cast<uint32_t>(half + 127) << 23));
    const float b = bits_as<float>(static_cast<int32_t>(static_cast<uint32_t>(whole - half + 127) << 23));
    return p * a * b;
}

// x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)).
VOXELRT_INLINE float log_f32(float x) {
    const float infinity = bits_as<float>(0x7f800000), nan = bits_as<float>(0x7fc00000);
    const bool tiny = x < 1.17549435e-38f;
    const float scaled = tiny ? x * 16777216.0f : x; // 2^24: subnormal numbers become normal
    const int32_t shifted = static_cast<int32_t>(bits_as<uint32_t>(scaled) - 0x3f3504f3u); // sqrt(1/2)
    const float e = static_cast<float>((shifted >> 23) - (tiny ? 24 : 0));
    const float f = bits_as<float>((shifted & 0x007fffff) + 0x3f3504f3) - 1.0f;
    float p = 0.0692087486f;
    p = p * f - 0.117988601f;
    p = p * f + 0.118753381f;
    p = p * f - 0.123830684f;
    p = p * f + 0.142182022f;
    p = p * f - 0.166693047f;
    p = p * f + 0.200022489f;
    p = p * f - 0.249999866f;
    p = p * f + 0.333333105f;
    const float low = p * f * f * f + e * 1.42860677e-6f - 0.5f * f * f;
    float y = low + f + e * 0.693145752f;
    y = x < infinity ? y : x; // +inf and NaN
    y = x < 0.0f ? nan : y;
    return x == 0.0f ? -infinity : y;
}

// log(1 + t) for t in [0, 1].
VOXELRT_INLINE float log1p_unit_f32(float t) {
    float p = 0.00203024084f;
    p = p * t - 0.0134075284f;
    p = p * t + 0.0414782241f;
    p = p * t - 0.0824417472f;
    p = p * t + 0.124184363f;
    p = p * t - 0.161056921f;
    p = p * t + 0.19890748f;
    p = p * t - 0.249872714f;
    p = p * t + 0.333325595f;
    p = p * t - 0.499999821f;
    p = p * t + 1.0f;
    return p * t;
}

VOXELRT_INLINE float absolute_f32(float x) {
    return bits_as<float>(bits_as<int32_t>(x) & 0x7fffffff);
}
VOXELRT_INLINE float with_sign_f32(float magnitude, float sign) {
    return bits_as<float>(bits_as<int32_t>(magnitude) | (bits_as<int32_t>(sign) & static_cast<int32_t>(0x80000000)));
}

VOXELRT_INLINE float tanh_f32(float x) {
    const float a = absolute_f32(x), u = x * x;
    float p = -0.00552863348f;
    p = p * u + 0.0204833169f;
    p = p * u - 0.0536929667f;
    p = p * u + 0.133308992f;
    p = p * u - 0.333332628f;
    const float near = x + x * u * p;
    const float far = with_sign_f32(1.0f - 2.0f / (exp_f32(2.0f * a) + 1.0f), x);
    return a < 0.65f ? near : far;
}

VOXELRT_INLINE float sigmoid_f32(float x) {
    return 1.0f / (1.0f + exp_f32(-x));
}

// e^x = scale (1 + rest), for x in [-88, 88]: one factor and no more, for functions that are flat past that range.
VOXELRT_INLINE void exp_parts_f32(float x, float &scale, float &rest) {
    constexpr float kMagic = 12582912.0f; // as in exp_f32; its low bits vanish in the shift below
    const float shifted = x * 1.44269504f + kMagic, n = shifted - kMagic;
    float r = x - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    float p = 0.00138131448f;
    p = p * r + 0.00836941879f;
    p = p * r + 0.0416684560f;
    p = p * r + 0.166665152f;
    p = p * r + 0.49999994f;
    rest = p * r * r + r;
    scale = bits_as<float>((bits_as<uint32_t>(shifted) << 23) + 0x3f800000u);
}
VOXELRT_INLINE float within_f32(float x, float bound) { // NaN stays
    x = x > bound ? bound : x;
    return x < -bound ? -bound : x;
}
// 1 + e^-x: what a gate divides by.
VOXELRT_INLINE float gate_divisor_f32(float x) {
    float scale, rest;
    exp_parts_f32(within_f32(-x, 88.0f), scale, rest);
    return scale * rest + (scale + 1.0f);
}
// sigmoid(x) tanh(y) with one division: tanh(y) = m / (m + 2), m = e^2y - 1.
VOXELRT_INLINE float gated_tanh_f32(float x, float y) {
    float scale, rest;
    exp_parts_f32(2.0f * within_f32(y, 9.5f), scale, rest);
    const float m = scale * rest + (scale - 1.0f);
    return m / ((m + 2.0f) * gate_divisor_f32(x));
}

// exp(x) - 1 for x <= 0.
VOXELRT_INLINE float expm1_negative_f32(float x) {
    float p = 2.48015873e-5f; // Taylor: enough under 0.4
    p = p * x + 1.98412698e-4f;
    p = p * x + 1.38888889e-3f;
    p = p * x + 8.33333333e-3f;
    p = p * x + 4.16666667e-2f;
    p = p * x + 1.66666667e-1f;
    p = p * x + 0.5f;
    const float near = x + x * x * p, far = exp_f32(x) - 1.0f;
    return x > -0.4f ? near : far;
}

// The complement of the error function for a >= 0: t exp(-a^2 + Q(t)), t = 1 / (1 + a / 2).
VOXELRT_INLINE float erfc_positive_f32(float a) {
    const float t = 1.0f / (1.0f + 0.5f * a);
    float q = -0.120996796f;
    q = q * t + 0.849797606f;
    q = q * t - 2.47578859f;
    q = q * t + 3.78100395f;
    q = q * t - 3.12867403f;
    q = q * t + 1.40877187f;
    q = q * t - 0.606558383f;
    q = q * t + 0.19747968f;
    q = q * t + 0.359292060f;
    q = q * t + 1.00122583f;
    q = q * t - 1.26555336f;
    return t * exp_f32(q - a * a);
}

VOXELRT_INLINE float erf_f32(float x) {
    const float a = absolute_f32(x), u = x * x;
    float p = 7.88912294e-5f;
    p = p * u - 8.02084222e-4f;
    p = p * u + 0.00518953567f;
    p = p * u - 0.0268544443f;
    p = p * u + 0.112836003f;
    p = p * u - 0.37612626f;
    p = p * u + 1.12837911f;
    const float far = with_sign_f32(1.0f - erfc_positive_f32(a), x);
    return a < 1.0f ? x * p : far;
}

// softplus(x) = log(1 + e^x) without overflow.
VOXELRT_INLINE float softplus_f32(float x) {
    const float grown = log1p_unit_f32(exp_f32(-absolute_f32(x)));
    return (x > 0.0f ? x : (x == x ? 0.0f : x)) + grown;
}

} // namespace voxelrt::VOXELRT_ISA
