// vec.h with AVX2 and FMA: a block is two registers. Included by vec.h alone.
#pragma once

namespace voxelrt::VOXELRT_ISA {

constexpr int kVectorRegisters = 16;
constexpr int kRegistersPerBlock = 2;

struct vf16 {
    __m256 a, b;
};
struct vm16 {
    __m256 a, b;
};

static inline vm16 first_lanes(int n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane)),
            _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lane))};
}
static inline vf16 zero() {
    return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
static inline vf16 broadcast(float x) {
    const __m256 v = _mm256_set1_ps(x);
    return {v, v};
}
static inline vf16 load(const float *p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
static inline void store(float *p, vf16 a) {
    _mm256_storeu_ps(p, a.a);
    _mm256_storeu_ps(p + 8, a.b);
}
// The first n lanes; the others read as zero or stay unwritten. 0 <= n <= 16.
static inline vf16 load_first(const float *p, int n) {
    const vm16 m = first_lanes(n);
    return {_mm256_maskload_ps(p, _mm256_castps_si256(m.a)), _mm256_maskload_ps(p + 8, _mm256_castps_si256(m.b))};
}
static inline vf16 gather(const float *p, const int32_t *at) {
    return {_mm256_i32gather_ps(p, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(at)), 4),
            _mm256_i32gather_ps(p, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(at + 8)), 4)};
}
static inline vf16 gather_near(const float *p, const int32_t *at) {
    return gather(p, at);
}
static inline void store_first(float *p, vf16 a, int n) {
    const vm16 m = first_lanes(n);
    _mm256_maskstore_ps(p, _mm256_castps_si256(m.a), a.a);
    _mm256_maskstore_ps(p + 8, _mm256_castps_si256(m.b), a.b);
}
// Past the caches; p is aligned to 64 bytes. Follow the last one with stream_fence().
static inline void stream(float *p, vf16 a) {
    _mm256_stream_ps(p, a.a);
    _mm256_stream_ps(p + 8, a.b);
}

static inline vf16 operator+(vf16 a, vf16 b) {
    return {_mm256_add_ps(a.a, b.a), _mm256_add_ps(a.b, b.b)};
}
static inline vf16 operator-(vf16 a, vf16 b) {
    return {_mm256_sub_ps(a.a, b.a), _mm256_sub_ps(a.b, b.b)};
}
static inline vf16 operator*(vf16 a, vf16 b) {
    return {_mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b)};
}
static inline vf16 operator/(vf16 a, vf16 b) {
    return {_mm256_div_ps(a.a, b.a), _mm256_div_ps(a.b, b.b)};
}
// a * b + c with one rounding.
static inline vf16 fma(vf16 a, vf16 b, vf16 c) {
    return {_mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b)};
}
// min and max answer x where either is NaN, so a bound first and the value second keeps the value's NaN on x86; on
// NEON a NaN always stays.
static inline vf16 min(vf16 bound, vf16 x) {
    return {_mm256_min_ps(bound.a, x.a), _mm256_min_ps(bound.b, x.b)};
}
static inline vf16 max(vf16 bound, vf16 x) {
    return {_mm256_max_ps(bound.a, x.a), _mm256_max_ps(bound.b, x.b)};
}
static inline vf16 abs(vf16 a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.a), _mm256_andnot_ps(sign, a.b)};
}
static inline vf16 sqrt(vf16 a) {
    return {_mm256_sqrt_ps(a.a), _mm256_sqrt_ps(a.b)};
}
static inline vf16 round(vf16 a) { // to nearest, halves to even
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.a, mode), _mm256_round_ps(a.b, mode)};
}
static inline vf16 floor(vf16 a) {
    return {_mm256_floor_ps(a.a), _mm256_floor_ps(a.b)};
}
static inline __m256 power_of_two(__m256 n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
static inline vf16 power_of_two(vf16 n) { // 2^n for whole n in [-126, 127]
    return {power_of_two(n.a), power_of_two(n.b)};
}
static inline vf16 times_power_of_two(vf16 a, vf16 n) { // a 2^n for whole n <= 0; below 2^-126 some tiny number
    return a * power_of_two(max(broadcast(-126.0f), n));
}
static inline vm16 operator<(vf16 a, vf16 b) {
    return {_mm256_cmp_ps(a.a, b.a, _CMP_LT_OQ), _mm256_cmp_ps(a.b, b.b, _CMP_LT_OQ)};
}
static inline vm16 operator>=(vf16 a, vf16 b) {
    return {_mm256_cmp_ps(a.a, b.a, _CMP_GE_OQ), _mm256_cmp_ps(a.b, b.b, _CMP_GE_OQ)};
}
static inline vm16 is_nan(vf16 a) {
    return {_mm256_cmp_ps(a.a, a.a, _CMP_UNORD_Q), _mm256_cmp_ps(a.b, a.b, _CMP_UNORD_Q)};
}
static inline vf16 select(vm16 m, vf16 yes, vf16 no) {
    return {_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}
static inline bool any(vm16 m) {
    return _mm256_movemask_ps(_mm256_or_ps(m.a, m.b)) != 0;
}
static inline vm16 operator|(vm16 a, vm16 b) {
    return {_mm256_or_ps(a.a, b.a), _mm256_or_ps(a.b, b.b)};
}
static inline vm16 operator~(vm16 a) {
    const __m256 ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    return {_mm256_xor_ps(a.a, ones), _mm256_xor_ps(a.b, ones)};
}
static inline vm16 operator&(vm16 a, vm16 b) {
    return {_mm256_and_ps(a.a, b.a), _mm256_and_ps(a.b, b.b)};
}
static inline void stream_fence() {
    _mm_sfence();
}

struct vi16 { // sixteen 32-bit whole numbers
    __m256i a, b;
};
static inline vi16 to_whole(vf16 a) { // of whole values that fit
    return {_mm256_cvttps_epi32(a.a), _mm256_cvttps_epi32(a.b)};
}
static inline vi16 broadcast_whole(int32_t x) {
    const __m256i v = _mm256_set1_epi32(x);
    return {v, v};
}
static inline void store_whole(int32_t *p, vi16 a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), a.a);
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(p + 8), a.b);
}
static inline vi16 operator+(vi16 a, vi16 b) {
    return {_mm256_add_epi32(a.a, b.a), _mm256_add_epi32(a.b, b.b)};
}
static inline vi16 operator*(vi16 a, vi16 b) {
    return {_mm256_mullo_epi32(a.a, b.a), _mm256_mullo_epi32(a.b, b.b)};
}

} // namespace voxelrt::VOXELRT_ISA
