// Dot products of narrow numbers: a 32-bit unit holds two bfloat16 or four 8-bit numbers, of neighbouring channels. A
// register holds a unit for each of sixteen output channels (weights), or one unit sixteen times (a position).
//
// Each type below multiplies one way. It has `Sum` (sixteen sums), and takes a unit in `kParts` steps, each of which
// loads weights, spreads a position's unit and adds their products: what a processor without the instruction cannot do
// at once it does a half of the unit at a time, in the order in which the instruction adds.
#pragma once

#include "conv_shape.h"
#include "vec.h"

namespace voxelrt::VOXELRT_ISA {

enum DotKind : int32_t { kBfloat = 0, kInteger = 1 };    // what is multiplied
enum DotWay : int32_t { kBestWay = 0, kWidenedWay = 1 }; // with the processor's own instruction, or without one
constexpr int kDotKinds = 2;
constexpr int64_t dot_units(int kind) { // of a block of channels
    return kind == kBfloat ? 8 : 4;
}
constexpr int64_t dot_channels(int kind) { // of a unit
    return kind == kBfloat ? 2 : 4;
}

#if defined(VOXELRT_ISA_avx512)

using Units = __m512i;
static inline Units load_units(const uint32_t *p) {
    return _mm512_loadu_si512(p);
}
static inline Units spread_unit(const uint32_t *p) {
    return _mm512_set1_epi32(static_cast<int>(*p));
}
// The instructions are named rather than called through intrinsics: these sources are compiled for processors without.
struct BfloatBest {
    using Sum = __m512;
    static constexpr int kParts = 1;
    static inline Sum none() { return _mm512_setzero_ps(); }
    static inline Units part(int, Units unit) { return unit; }
    static inline Sum add(Sum sum, Units a, Units b) {
        asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
        return sum;
    }
    static inline void put(float *to, Sum sum) { _mm512_storeu_ps(to, sum); }
};
struct IntegerBest {
    using Sum = __m512i;
    static constexpr int kParts = 1;
    static inline Sum none() { return _mm512_setzero_si512(); }
    static inline Units part(int, Units unit) { return unit; }
    static inline Sum add(Sum sum, Units unsigned_a, Units signed_b) {
        asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_a), "v"(signed_b));
        return sum;
    }
    static inline void put(float *to, Sum sum) { _mm512_storeu_si512(to, sum); }
};
struct BfloatWidened {
    using Sum = __m512;
    static constexpr int kParts = 2;
    static inline Sum none() { return _mm512_setzero_ps(); }
    static inline Units part(int i, Units unit) {
        return i ? _mm512_slli_epi32(unit, 16)
                 : _mm512_and_si512(unit, _mm512_set1_epi32(static_cast<int>(0xffff0000)));
    }
    static inline Sum add(Sum sum, Units a, Units b) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
    }
    static inline void put(float *to, Sum sum) { _mm512_storeu_ps(to, sum); }
};
// Bytes widened to 16 bits before they are multiplied: vpmaddubsw, which multiplies them as they are, cuts 255 * 127 *
// 2 off at 32767.
struct IntegerWidened {
    using Sum = __m512i;
    static constexpr int kParts = 2;
    static inline Sum none() { return _mm512_setzero_si512(); }
    static inline Units part(int i, Units unit) {
        return i ? _mm512_srli_epi16(unit, 8) : _mm512_and_si512(unit, _mm512_set1_epi32(0x00ff00ff));
    }
    static inline Units signed_part(int i, Units unit) {
        return _mm512_srai_epi16(i ? unit : _mm512_slli_epi16(unit, 8), 8);
    }
    static inline Sum add(Sum sum, Units a, Units b) { return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)); }
    static inline void put(float *to, Sum sum) { _mm512_storeu_si512(to, sum); }
};

#elif defined(VOXELRT_ISA_avx2)

struct Units {
    __m256i a, b;
};
struct FloatSum {
    __m256 a, b;
};
static inline Units load_units(const uint32_t *p) {
    const __m256i *from = reinterpret_cast<const __m256i *>(p);
    return {_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)};
}
static inline Units spread_unit(const uint32_t *p) {
    const __m256i v = _mm256_set1_epi32(static_cast<int>(*p));
    return {v, v};
}
struct BfloatWidened {
    using Sum = FloatSum;
    static constexpr int kParts = 2;
    static inline Sum none() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
    static inline __m256i half(int i, __m256i unit) {
        return i ? _mm256_slli_epi32(unit, 16)
                 : _mm256_and_si256(unit, _mm256_set1_epi32(static_cast<int>(0xffff0000)));
    }
    static inline Units part(int i, Units unit) { return {half(i, unit.a), half(i, unit.b)}; }
    static inline Sum add(Sum sum, Units a, Units b) {
        return {_mm256_fmadd_ps(_mm256_castsi256_ps(a.a), _mm256_castsi256_ps(b.a), sum.a),
                _mm256_fmadd_ps(_mm256_castsi256_ps(a.b), _mm256_castsi256_ps(b.b), sum.b)};
    }
    static inline void put(float *to, Sum sum) {
        _mm256_storeu_ps(to, sum.a);
        _mm256_storeu_ps(to + 8, sum.b);
    }
};
// See the note above: widened, so that nothing is cut off.
struct IntegerWidened {
    using Sum = Units;
    static constexpr int kParts = 2;
    static inline Sum none() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    static inline __m256i half(int i, __m256i unit) {
        return i ? _mm256_srli_epi16(unit, 8) : _mm256_and_si256(unit, _mm256_set1_epi32(0x00ff00ff));
    }
    static inline __m256i signed_half(int i, __m256i unit) {
        return _mm256_srai_epi16(i ? unit : _mm256_slli_epi16(unit, 8), 8);
    }
    static inline Units part(int i, Units unit) { return {half(i, unit.a), half(i, unit.b)}; }
    static inline Units signed_part(int i, Units unit) { return {signed_half(i, unit.a), signed_half(i, unit.b)}; }
    static inline Sum add(Sum sum, Units a, Units b) {
        return {_mm256_add_epi32(sum.a, _mm256_madd_epi16(a.a, b.a)),
                _mm256_add_epi32(sum.b, _mm256_madd_epi16(a.b, b.b))};
    }
    static inline void put(float *to, Sum sum) {
        __m256i *at = reinterpret_cast<__m256i *>(to);
        _mm256_storeu_si256(at, sum.a);
        _mm256_storeu_si256(at + 1, sum.b);
    }
};

#elif defined(VOXELRT_ISA_neon)

struct Units {
    uint32x4_t v[4];
};
static inline Units load_units(const uint32_t *p) {
    return {{vld1q_u32(p), vld1q_u32(p + 4), vld1q_u32(p + 8), vld1q_u32(p + 12)}};
}
static inline Units spread_unit(const uint32_t *p) {
    const uint32x4_t v = vld1q_dup_u32(p);
    return {{v, v, v, v}};
}
struct BfloatWidened {
    using Sum = vf16;
    static constexpr int kParts = 2;
    static inline Sum none() { return zero(); }
    static inline Units part(int i, Units unit) {
        for (uint32x4_t &v : unit.v)
            v = i ? vshlq_n_u32(v, 16) : vandq_u32(v, vdupq_n_u32(0xffff0000));
        return unit;
    }
    static inline Sum add(Sum sum, Units a, Units b) {
        for (int i = 0; i < 4; ++i)
            sum.v[i] = vfmaq_f32(sum.v[i], vreinterpretq_f32_u32(a.v[i]), vreinterpretq_f32_u32(b.v[i]));
        return sum;
    }
    static inline void put(float *to, Sum sum) { store(to, sum); }
};
struct IntegerWidened {
    struct Sum {
        int32x4_t v[4];
    };
    static constexpr int kParts = 2;
    static inline Sum none() { return {{vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)}}; }
    static inline Units part(int i, Units unit) {
        for (uint32x4_t &v : unit.v) {
            const uint16x8_t pairs = vreinterpretq_u16_u32(v);
            v = vreinterpretq_u32_u16(i ? vshrq_n_u16(pairs, 8) : vandq_u16(pairs, vdupq_n_u16(0xff)));
        }
        return unit;
    }
    static inline Units signed_part(int i, Units unit) {
        for (uint32x4_t &v : unit.v) {
            const int16x8_t pairs = vreinterpretq_s16_u32(v);
            v = vreinterpretq_u32_s16(vshrq_n_s16(i ? pairs : vshlq_n_s16(pairs, 8), 8));
        }
        return unit;
    }
    static inline Sum add(Sum sum, Units a, Units b) {
        for (int i = 0; i < 4; ++i) {
            const int16x8_t x = vreinterpretq_s16_u32(a.v[i]), w = vreinterpretq_s16_u32(b.v[i]);
            sum.v[i] =
                vaddq_s32(sum.v[i], vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(w)), vmull_high_s16(x, w)));
        }
        return sum;
    }
    static inline void put(float *to, Sum sum) {
        for (int i = 0; i < 4; ++i)
            vst1q_s32(reinterpret_cast<int32_t *>(to) + 4 * i, sum.v[i]);
    }
};

#endif

// A tile of output positions for one or two blocks of output channels; sums go to `sums`, a block of sixteen after the
// other, positions in order. Position (r, x) reads src + r * src_row + x * (a block's units, or src_x).
struct DotTile {
    const uint32_t *src, *weights;
    struct Step {
        int64_t src, weight; // units; taps
    };
    const Step *z, *y, *x;
    int64_t nz, ny, nx;
    int64_t blocks, src_block, weight_block;
    int64_t units, units_last; // of a tap, in the last block of channels
    int64_t src_row, src_x;
    float *sums;
};
using DotFunction = void (*)(const DotTile &);
// As conv_tile.h, with 1, 2 or 4 rows. Loose: positions lie src_x units apart, rows is 1; so are all of kWidenedWay.
DotFunction dot_tile(DotKind kind, DotWay way, int blocks, int rows, int x, bool loose);

} // namespace voxelrt::VOXELRT_ISA
