// One block of sixteen channels: its sums in double, and what is pending on its tensor.
#pragma once

#include "kernel.h"
#include "vec.h"

namespace voxelrt::VOXELRT_ISA {

// Sixteen doubles, in the compiler's vector types.
struct Doubles {
    static constexpr int kLanes = kBlock / 2 / kRegistersPerBlock, kParts = kBlock / kLanes;
    typedef double Part __attribute__((vector_size(kLanes * 8)));
    typedef double PartAt __attribute__((vector_size(kLanes * 8), aligned(8), may_alias)); // anywhere in memory
    typedef float FloatsAt __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
    Part part[kParts];

    static inline Doubles fill(double value) {
        Doubles made;
        for (int i = 0; i < kParts; ++i)
            made.part[i] = Part{} + value;
        return made;
    }
    static inline Doubles load(const float *from) {
        Doubles made;
        for (int i = 0; i < kParts; ++i)
            made.part[i] = __builtin_convertvector(*reinterpret_cast<const FloatsAt *>(from + i * kLanes), Part);
        return made;
    }
    static inline Doubles load(const double *from) {
        Doubles made;
        for (int i = 0; i < kParts; ++i)
            made.part[i] = *reinterpret_cast<const PartAt *>(from + i * kLanes);
        return made;
    }
    static inline Doubles of(vf16 block) {
        float all[kBlock];
        voxelrt::VOXELRT_ISA::store(all, block);
        return load(all);
    }
    inline void store(double *to) const {
        for (int i = 0; i < kParts; ++i)
            *reinterpret_cast<PartAt *>(to + i * kLanes) = part[i];
    }
};

static inline Doubles operator+(const Doubles &a, const Doubles &b) {
    Doubles made;
    for (int i = 0; i < Doubles::kParts; ++i)
        made.part[i] = a.part[i] + b.part[i];
    return made;
}
static inline Doubles operator-(const Doubles &a, const Doubles &b) {
    Doubles made;
    for (int i = 0; i < Doubles::kParts; ++i)
        made.part[i] = a.part[i] - b.part[i];
    return made;
}
static inline Doubles operator*(const Doubles &a, const Doubles &b) {
    Doubles made;
    for (int i = 0; i < Doubles::kParts; ++i)
        made.part[i] = a.part[i] * b.part[i];
    return made;
}
// The larger of each pair; where they do not compare, b.
static inline Doubles larger(const Doubles &a, const Doubles &b) {
    Doubles made;
    for (int i = 0; i < Doubles::kParts; ++i)
        made.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
    return made;
}

// What is pending on an input, for one batch item and block of channels. Zeros past the last channel stay zeros.
struct Affine {
    vf16 scale, shift, slope;

    Affine(const Tensor &t, int64_t n, int64_t block) {
        const int64_t first = n * t.dims[1] + block * kBlock, left = t.dims[1] - block * kBlock;
        const int count = left < kBlock ? static_cast<int>(left) : kBlock;
        scale = load_first(t.pending_scale + first, count);
        shift = load_first(t.pending_shift + first, count);
        slope = broadcast(t.pending_slope);
    }
    inline vf16 operator()(vf16 x) const {
        const vf16 y = fma(x, scale, shift);
        return select(y < zero(), y * slope, y); // a NaN stays
    }
};

} // namespace voxelrt::VOXELRT_ISA
