// vec.h with AVX-512: a block is one register. Included by vec.h alone.
#pragma once

namespace voxelrt::VOXELRT_ISA {

constexpr int kVectorRegisters = 32; // of the machine
constexpr int kRegistersPerBlock = 1;

struct vf16 {
    __m512 v;
};
struct vm16 { // one answer a lane
    __mmask16 m;
};

static inline vf16 zero() {
    return {_mm512_setzero_ps()};
}
static inline vf16 broadcast(float x) {
    return {_mm512_set1_ps(x)};
}
static inline vf16 load(const float *p) {
    return {_mm512_loadu_ps(p)};
}
static inline void store(float *p, vf16 a) {
    _mm512_storeu_ps(p, a.v);
}
// The first n lanes; the others read as zero or stay unwritten. 0 <= n <= 16.
static inline vf16 load_first(const float *p, int n) {
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p)};
}
// p[at[0]] .. p[at[15]].
static inline vf16 gather(const float *p, const int32_t *at) {
    return {_mm512_i32gather_ps(_mm512_loadu_si512(at), p, 4)};
}
// The same where every place is below 32. All of p[0] .. p[31] may be read.
static inline vf16 gather_near(const float *p, const int32_t *at) {
    return {_mm512_permutex2var_ps(_mm512_loadu_ps(p), _mm512_loadu_si512(at), _mm512_loadu_ps(p + 16))};
}
static inline void store_first(float *p, vf16 a, int n) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), a.v);
}
// Past the caches; p is aligned to 64 bytes. Follow the last one with stream_fence().
static inline void stream(float *p, vf16 a) {
    _mm512_stream_ps(p, a.v);
}

static inline vf16 operator+(vf16 a, vf16 b) {
    return {_mm512_add_ps(a.v, b.v)};
}
static inline vf16 operator-(vf16 a, vf16 b) {
    return {_mm512_sub_ps(a.v, b.v)};
}
static inline vf16 operator*(vf16 a, vf16 b) {
    return {_mm512_mul_ps(a.v, b.v)};
}
static inline vf16 operator/(vf16 a, vf16 b) {
    return {_mm512_div_ps(a.v, b.v)};
}
// a * b + c with one rounding.
static inline vf16 fma(vf16 a, vf16 b, vf16 c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
// min and max answer x where either is NaN, so a bound first and the value second keeps the value's NaN on x86; on
// NEON a NaN always stays.
static inline vf16 min(vf16 bound, vf16 x) {
    return {_mm512_min_ps(bound.v, x.v)};
}
static inline vf16 max(vf16 bound, vf16 x) {
    return {_mm512_max_ps(bound.v, x.v)};
}
static inline vf16 abs(vf16 a) {
    return {_mm512_abs_ps(a.v)};
}
static inline vf16 sqrt(vf16 a) {
    return {_mm512_sqrt_ps(a.v)};
}
static inline vf16 round(vf16 a) { // to nearest, halves to even
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
static inline vf16 floor(vf16 a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
}
static inline vf16 power_of_two(vf16 n) { // 2^n for whole n in [-126, 127]
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
}
static inline vf16 times_power_of_two(vf16 a, vf16 n) { // a 2^n for whole n <= 0; below 2^-126 some tiny number
    return {_mm512_scalef_ps(a.v, n.v)};
}
static inline vm16 operator<(vf16 a, vf16 b) {
    return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)};
}
static inline vm16 operator>=(vf16 a, vf16 b) {
    return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)};
}
static inline vm16 is_nan(vf16 a) {
    return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)};
}
static inline vf16 select(vm16 m, vf16 yes, vf16 no) {
    return {_mm512_mask_blend_ps(m.m, no.v, yes.v)};
}
static inline vm16 first_lanes(int n) {
    return {static_cast<__mmask16>((1u << n) - 1)};
}
static inline bool any(vm16 m) {
    return m.m != 0;
}
static inline vm16 operator|(vm16 a, vm16 b) {
    return {static_cast<__mmask16>(a.m | b.m)};
}
static inline vm16 operator~(vm16 a) {
    return {static_cast<__mmask16>(~a.m)};
}
static inline vm16 operator&(vm16 a, vm16 b) {
    return {static_cast<__mmask16>(a.m & b.m)};
}
static inline void stream_fence() {
    _mm_sfence();
}

// Lane j of row i becomes lane i of row j.
static inline void transpose(vf16 (&rows)[16]) {
    __m512 pairs[16], quads[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        pairs[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
        pairs[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) // quads[i + j]: lanes 4 k + j of rows i to i + 3, for k in [0, 4)
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
            const __m512d a = _mm512_castps_pd(pairs[i + j]), b = _mm512_castps_pd(pairs[i + j + 2]);
            quads[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            quads[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const __m512 low = _mm512_shuffle_f32x4(quads[j], quads[4 + j], 0x44),
                     high = _mm512_shuffle_f32x4(quads[j], quads[4 + j], 0xee),
                     low2 = _mm512_shuffle_f32x4(quads[8 + j], quads[12 + j], 0x44),
                     high2 = _mm512_shuffle_f32x4(quads[8 + j], quads[12 + j], 0xee);
        rows[j].v = _mm512_shuffle_f32x4(low, low2, 0x88);
        rows[4 + j].v = _mm512_shuffle_f32x4(low, low2, 0xdd);
        rows[8 + j].v = _mm512_shuffle_f32x4(high, high2, 0x88);
        rows[12 + j].v = _mm512_shuffle_f32x4(high, high2, 0xdd);
    }
}

struct vi16 { // sixteen 32-bit whole numbers
    __m512i v;
};
static inline vi16 to_whole(vf16 a) { // of whole values that fit
    return {_mm512_cvttps_epi32(a.v)};
}
static inline vi16 broadcast_whole(int32_t x) {
    return {_mm512_set1_epi32(x)};
}
static inline void store_whole(int32_t *p, vi16 a) {
    _mm512_storeu_si512(p, a.v);
}
static inline vi16 operator+(vi16 a, vi16 b) {
    return {_mm512_add_epi32(a.v, b.v)};
}
static inline vi16 operator*(vi16 a, vi16 b) {
    return {_mm512_mullo_epi32(a.v, b.v)};
}

} // namespace voxelrt::VOXELRT_ISA
