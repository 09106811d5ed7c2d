// Staging for dot products: what a task reads of a source, as units. Padding becomes zero (its code, for integers), a
// pending norm is applied in float32, then numbers are rounded to bfloat16 or to codes of eight bits.
#pragma once

#include "bfloat.h"
#include "conv_stage.h"
#include "dot.h"

namespace voxelrt::VOXELRT_ISA {

// round(x / scale) + zero within [0, 255]; signed codes are moved up by 128, with their zero.
struct Codes {
    float scale = 1.0f;
    int32_t zero = 0;
    uint32_t zero_unit() const { return static_cast<uint32_t>(zero) * 0x01010101u; }
};

static inline void store_codes(uint8_t *to, vf16 codes) {
#if defined(VOXELRT_ISA_avx512)
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(codes.v)));
#elif defined(VOXELRT_ISA_avx2)
    const __m256i wide = _mm256_packs_epi32(_mm256_cvtps_epi32(codes.a), _mm256_cvtps_epi32(codes.b));
    const __m256i ordered = _mm256_permute4x64_epi64(wide, 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to),
                     _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
#else
    for (int i = 0; i < 4; ++i) {
        const uint16x4_t half = vmovn_u32(vcvtnq_u32_f32(codes.v[i]));
        const uint8x8_t bytes = vmovn_u16(vcombine_u16(half, half));
        vst1_lane_u32(reinterpret_cast<uint32_t *>(to + 4 * i), vreinterpret_u32_u8(bytes), 0);
    }
#endif
}

// How sixteen channels become units.
struct BfloatUnits {
    static constexpr DotKind kKind = kBfloat;
    explicit BfloatUnits(const Codes &) {}
    void put(uint32_t *to, vf16 x) const { store(reinterpret_cast<BFloat *>(to), x); }
    uint32_t number(float x) const { return float_to_bfloat(x); }
    static constexpr int kBits = 16;
};
struct IntegerUnits {
    static constexpr DotKind kKind = kInteger;
    float inverse, zero;
    explicit IntegerUnits(const Codes &c) : inverse(1.0f / c.scale), zero(static_cast<float>(c.zero)) {}
    void put(uint32_t *to, vf16 x) const {
        const vf16 code = round(x * broadcast(inverse)) + broadcast(zero);
        store_codes(reinterpret_cast<uint8_t *>(to), min(broadcast(255.0f), max(broadcast(0.0f), code)));
    }
    uint32_t number(float x) const {
        const float code = std::nearbyint(x * inverse) + zero;
        return static_cast<uint32_t>(code > 0.0f ? (code < 255.0f ? code : 255.0f) : 0.0f); // a NaN gives 0
    }
    static constexpr int kBits = 8;
};

// Like StageBox, of units.
struct DotBox {
    Axes first;
    int64_t z, y, length, stride, residues;
    const int32_t *residue;
    Axes in;
    int64_t unit; // units of a position
    uint32_t outside;
    bool rows_outside;   // rows outside in y are read,
    bool planes_outside; // and planes outside in z
};

static inline void fill_outside(const DotBox &b, uint32_t *to, int64_t positions) {
    for (int64_t i = 0; i < positions * b.unit; ++i)
        to[i] = b.outside;
}

template <class U, class S>
static inline void dot_blocked_row(const DotBox &b, const S *row, const Norm &norm, const U &units, uint32_t *to) {
    constexpr int64_t kUnits = dot_units(U::kKind);
    constexpr bool kSame = sizeof(S) == 2 && U::kKind == kBfloat;
    for (int64_t q = 0; q < b.residues; ++q, to += b.length * kUnits) {
        const int64_t first = b.first.x + b.residue[q], step = b.stride * kBlock;
        const Span span = inside(0, b.length, b.stride, first, b.in.x);
        const S *from = row + first * kBlock;
        fill_outside(b, to, span.begin);
        if (norm.pending)
            for (int64_t m = span.begin; m < span.end; ++m)
                units.put(to + m * kUnits, normed(norm, load(from + m * step)));
        else if (kSame && b.stride == 1)
            std::memcpy(to + span.begin * kUnits, from + span.begin * kBlock,
                        static_cast<size_t>(span.end - span.begin) * kUnits * 4);
        else if (kSame)
            for (int64_t m = span.begin; m < span.end; ++m)
                std::memcpy(to + m * kUnits, from + m * step, kUnits * 4);
        else
            for (int64_t m = span.begin; m < span.end; ++m)
                units.put(to + m * kUnits, load(from + m * step));
        fill_outside(b, to + span.end * kUnits, b.length - span.end);
    }
}

// A row of the few channels of a row-major source.
template <class U>
static inline void dot_loose_row(const DotBox &b, const Tensor &t, const float *row, const U &units, uint32_t *to) {
    constexpr int64_t kEach = 32 / U::kBits;
    for (int64_t q = 0; q < b.residues; ++q, to += b.length * b.unit) {
        const int64_t first = b.first.x + b.residue[q], step = b.stride * t.strides[4];
        const Span span = inside(0, b.length, b.stride, first, b.in.x);
        fill_outside(b, to, b.length);
        for (int64_t c = 0; c < t.dims[1]; ++c) {
            const float *from = row + c * t.strides[1] + first * t.strides[4];
            const int shift = static_cast<int>(c % kEach) * U::kBits;
            const uint32_t others = ~(((1u << U::kBits) - 1) << shift);
            uint32_t *at = to + c / kEach;
            for (int64_t m = span.begin; m < span.end; ++m)
                at[m * b.unit] = (at[m * b.unit] & others) | units.number(from[m * step]) << shift;
        }
    }
}

// The box of channel block `channel` of item n (of a row-major source: of all its channels).
template <class U>
static inline void dot_stage(const DotBox &b, const Tensor &t, int64_t n, int64_t channel, const U &units,
                             uint32_t *to) {
    const bool loose = t.layout == VOXELRT_LINEAR;
    const Norm norm = loose ? Norm{false, zero(), zero(), zero()} : norm_of(t, n, channel);
    const int64_t row_units = b.residues * b.length * b.unit;
    for (int64_t z = 0; z < b.z; ++z) {
        const int64_t iz = b.first.z + z;
        if (iz < 0 || iz >= b.in.z) {
            if (b.planes_outside)
                fill_outside(b, to + z * b.y * row_units, b.y * b.residues * b.length);
            continue;
        }
        for (int64_t y = 0; y < b.y; ++y) {
            const int64_t iy = b.first.y + y;
            uint32_t *target = to + (z * b.y + y) * row_units;
            if (iy < 0 || iy >= b.in.y) {
                if (b.rows_outside)
                    fill_outside(b, target, b.residues * b.length);
                continue;
            }
            const int64_t at =
                n * t.strides[0] + (loose ? 0 : channel * t.strides[1]) + iz * t.strides[2] + iy * t.strides[3];
            if (loose)
                dot_loose_row(b, t, t.as<const float>() + at, units, target);
            else
                with_stored(t.dtype, [&](auto tag) {
                    dot_blocked_row(b, t.as<const decltype(tag)>() + at, norm, units, target);
                });
        }
    }
}

} // namespace voxelrt::VOXELRT_ISA
