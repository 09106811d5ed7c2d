// Sixteen channels in registers: one block of the BLOCKED16 layout, in the compiler's own vector types.
#pragma once

#include "kernel.h"

namespace voxelrt::VOXELRT_ISA {

#if defined(VOXELRT_ISA_avx512)
constexpr int kLanes = 16;
#elif defined(VOXELRT_ISA_avx2)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kParts = kBlock / kLanes;

typedef float vf __attribute__((vector_size(kLanes * 4)));
typedef float vf_at __attribute__((vector_size(kLanes * 4), aligned(4), may_alias)); // anywhere in memory
typedef float vh_at __attribute__((vector_size(kLanes * 2), aligned(4), may_alias)); // as many numbers as a vd
typedef double vd __attribute__((vector_size(kLanes * 4)));
typedef double vd_at __attribute__((vector_size(kLanes * 4), aligned(8), may_alias));

struct Block {
    vf part[kParts];

    static inline Block fill(float value) {
        Block made;
        for (int i = 0; i < kParts; ++i)
            made.part[i] = vf{} + value;
        return made;
    }
    static inline Block load(const float *from) {
        Block made;
        for (int i = 0; i < kParts; ++i)
            made.part[i] = *reinterpret_cast<const vf_at *>(from + i * kLanes);
        return made;
    }
    // The first `count` of sixteen numbers, zeros behind them.
    static inline Block load_some(const float *from, int64_t count) {
        float all[kBlock] = {};
        for (int64_t i = 0; i < count && i < kBlock; ++i)
            all[i] = from[i];
        return load(all);
    }
    inline void store(float *to) const {
        for (int i = 0; i < kParts; ++i)
            *reinterpret_cast<vf_at *>(to + i * kLanes) = part[i];
    }
};

static inline Block operator+(const Block &a, const Block &b) {
    Block made;
    for (int i = 0; i < kParts; ++i)
        made.part[i] = a.part[i] + b.part[i];
    return made;
}
static inline Block operator*(const Block &a, const Block &b) {
    Block made;
    for (int i = 0; i < kParts; ++i)
        made.part[i] = a.part[i] * b.part[i];
    return made;
}
// The larger of each pair; where they do not compare, b.
static inline Block larger(const Block &a, const Block &b) {
    Block made;
    for (int i = 0; i < kParts; ++i)
        made.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
    return made;
}
static inline Block leaky(const Block &a, const Block &slope) {
    Block made;
    for (int i = 0; i < kParts; ++i)
        made.part[i] = a.part[i] >= vf{} ? a.part[i] : a.part[i] * slope.part[i];
    return made;
}

// Sixteen numbers in double, for sums.
struct Doubles {
    vd part[2 * kParts];

    static inline Doubles fill(double value) {
        Doubles made;
        for (int i = 0; i < 2 * kParts; ++i)
            made.part[i] = vd{} + value;
        return made;
    }
    static inline Doubles load(const float *from) {
        Doubles made;
        for (int i = 0; i < 2 * kParts; ++i)
            made.part[i] = __builtin_convertvector(*reinterpret_cast<const vh_at *>(from + i * kLanes / 2), vd);
        return made;
    }
    static inline Doubles load(const double *from) {
        Doubles made;
        for (int i = 0; i < 2 * kParts; ++i)
            made.part[i] = *reinterpret_cast<const vd_at *>(from + i * kLanes / 2);
        return made;
    }
    static inline Doubles of(const Block &block) {
        float all[kBlock];
        block.store(all);
        return load(all);
    }
    inline void store(double *to) const {
        for (int i = 0; i < 2 * kParts; ++i)
            *reinterpret_cast<vd_at *>(to + i * kLanes / 2) = part[i];
    }
};

static inline Doubles operator+(const Doubles &a, const Doubles &b) {
    Doubles made;
    for (int i = 0; i < 2 * kParts; ++i)
        made.part[i] = a.part[i] + b.part[i];
    return made;
}
static inline Doubles operator-(const Doubles &a, const Doubles &b) {
    Doubles made;
    for (int i = 0; i < 2 * kParts; ++i)
        made.part[i] = a.part[i] - b.part[i];
    return made;
}
static inline Doubles operator*(const Doubles &a, const Doubles &b) {
    Doubles made;
    for (int i = 0; i < 2 * kParts; ++i)
        made.part[i] = a.part[i] * b.part[i];
    return made;
}
static inline Doubles larger(const Doubles &a, const Doubles &b) {
    Doubles made;
    for (int i = 0; i < 2 * kParts; ++i)
        made.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
    return made;
}

// What is pending on an input, for one batch item and block of channels; zeros past the last channel stay zeros.
struct Affine {
    Block scale, shift, slope;
    Affine(const Tensor &t, int64_t n, int64_t block) {
        const int64_t C = t.dims[1], first = n * C + block * kBlock, count = C - block * kBlock;
        scale = Block::load_some(t.pending_scale + first, count);
        shift = Block::load_some(t.pending_shift + first, count);
        slope = Block::fill(t.pending_slope);
    }
    inline Block operator()(const Block &x) const { return leaky(x * scale + shift, slope); }
};

} // namespace voxelrt::VOXELRT_ISA
