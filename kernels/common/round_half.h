// A float rounded to half precision and kept as the float of the same value: what a framework computes that stores
// halves. No conversion instruction, so that every instruction set gives the same bits and loops vectorise.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace voxelrt::VOXELRT_ISA {

// The nearest half-precision value, of two the even one; past the largest infinity (IEEE 754 binary16).
static inline float round_half(float value) {
    const float size = std::fabs(value);
    uint32_t bits;
    std::memcpy(&bits, &size, sizeof bits);
    bits = (bits + 0x0fff + (bits >> 13 & 1)) & ~uint32_t(0x1fff);
    float rounded;
    std::memcpy(&rounded, &bits, sizeof rounded);
    rounded = rounded > 65504 ? HUGE_VALF : rounded;
    const float tiny = (size + 0.5f) - 0.5f; // below 2^-14 halves lie 2^-24 apart, as floats do near a half
    rounded = size < 6.103515625e-5f ? tiny : rounded;
    return std::copysign(size == size ? rounded : size, value);
}

} // namespace voxelrt::VOXELRT_ISA
