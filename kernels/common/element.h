// Numbers as kernels load and store them. half and brain convert to float on load and round to nearest even on store.
// Everything is in the instruction set's namespace: builds for two instruction sets share no inline function.
#pragma once

#include "kernel.h"

#include <cstring>

namespace voxelrt::VOXELRT_ISA {

#if defined(__aarch64__)
using half = __fp16;
#else
using half = _Float16;
#endif

struct brain {
    uint16_t bits;
    brain() = default;
    explicit brain(float value) {
        uint32_t word;
        std::memcpy(&word, &value, sizeof word);
        const bool nan = (word & 0x7fffffffu) > 0x7f800000u;
        bits = static_cast<uint16_t>(nan ? (word >> 16) | 0x40u : (word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
    }
    explicit operator float() const {
        const uint32_t word = uint32_t(bits) << 16;
        float value;
        std::memcpy(&value, &word, sizeof value);
        return value;
    }
};

// What a dtype is computed in: itself from float32 on, float32 below.
template <class T> struct Computed {
    using type = float;
};
template <> struct Computed<double> {
    using type = double;
};

template <class A, class T> static inline A load(const T &value) {
    return static_cast<A>(value);
}
template <> inline double load<double, brain>(const brain &value) {
    return static_cast<float>(value);
}
template <class T, class A> static inline T store(A value) {
    return static_cast<T>(value);
}
template <> inline brain store<brain, double>(double value) {
    return brain(static_cast<float>(value));
}

static inline bool is_float(int dtype) {
    return dtype == VOXELRT_F32 || dtype == VOXELRT_F64 || dtype == VOXELRT_F16 || dtype == VOXELRT_BF16;
}

// Call body(T()) with the C++ type of a float dtype; false for another dtype.
template <class F> static inline bool with_float(int dtype, F &&body) {
    switch (dtype) {
    case VOXELRT_F32:
        body(float());
        return true;
    case VOXELRT_F64:
        body(double());
        return true;
    case VOXELRT_F16:
        body(half());
        return true;
    case VOXELRT_BF16:
        body(brain());
        return true;
    default:
        return false;
    }
}

} // namespace voxelrt::VOXELRT_ISA
