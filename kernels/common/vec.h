// vf16: sixteen floats, the block of channels that every kernel works on. One zmm with AVX-512, two ymm with AVX2, four
// q registers with NEON. Only intrinsics, so that what a kernel's inner loop becomes is the kernel's decision.
//
// Included inside no namespace; everything is in voxelrt::VOXELRT_ISA, so that two builds share no inline function.
#pragma once

#include <cstdint>

#if defined(VOXELRT_ISA_neon)
#include <arm_neon.h>
#else
#if defined(__GNUC__) && !defined(__clang__)
// gcc's own "undefined" vectors set off its warning once inlined (gcc bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#endif

namespace voxelrt::VOXELRT_ISA {

#if defined(VOXELRT_ISA_avx512)

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

#elif defined(VOXELRT_ISA_avx2)

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

#elif defined(VOXELRT_ISA_neon)

constexpr int kVectorRegisters = 32;
constexpr int kRegistersPerBlock = 4;

struct vf16 {
    float32x4_t v[4];
};
struct vm16 {
    uint32x4_t v[4];
};

// Write `result` with the expression of i for each of the four quarters.
#define VOXELRT_QUARTERS(Type, expression)                                                                             \
    Type result;                                                                                                       \
    for (int i = 0; i < 4; ++i)                                                                                        \
        result.v[i] = (expression);                                                                                    \
    return result;

static inline vm16 first_lanes(int n) {
    const uint32_t lanes[4] = {0, 1, 2, 3};
    VOXELRT_QUARTERS(vm16, vcltq_s32(vreinterpretq_s32_u32(vld1q_u32(lanes)), vdupq_n_s32(n - 4 * i)))
}
static inline vf16 zero() {
    VOXELRT_QUARTERS(vf16, vdupq_n_f32(0.0f))
}
static inline vf16 broadcast(float x) {
    VOXELRT_QUARTERS(vf16, vdupq_n_f32(x))
}
static inline vf16 load(const float *p) {
    VOXELRT_QUARTERS(vf16, vld1q_f32(p + 4 * i))
}
static inline void store(float *p, vf16 a) {
    for (int i = 0; i < 4; ++i)
        vst1q_f32(p + 4 * i, a.v[i]);
}
// The first n lanes; the others read as zero or stay unwritten. 0 <= n <= 16.
static inline vf16 load_first(const float *p, int n) {
    float lanes[16] = {};
    for (int i = 0; i < n; ++i)
        lanes[i] = p[i];
    return load(lanes);
}
static inline vf16 gather(const float *p, const int32_t *at) {
    float lane[16];
    for (int i = 0; i < 16; ++i)
        lane[i] = p[at[i]];
    return load(lane);
}
static inline vf16 gather_near(const float *p, const int32_t *at) {
    return gather(p, at);
}
static inline void store_first(float *p, vf16 a, int n) {
    float lanes[16];
    store(lanes, a);
    for (int i = 0; i < n; ++i)
        p[i] = lanes[i];
}
// NEON has no such store; an ordinary one.
static inline void stream(float *p, vf16 a) {
    store(p, a);
}
static inline void stream_fence() {}

static inline vf16 operator+(vf16 a, vf16 b) {
    VOXELRT_QUARTERS(vf16, vaddq_f32(a.v[i], b.v[i]))
}
static inline vf16 operator-(vf16 a, vf16 b) {
    VOXELRT_QUARTERS(vf16, vsubq_f32(a.v[i], b.v[i]))
}
static inline vf16 operator*(vf16 a, vf16 b) {
    VOXELRT_QUARTERS(vf16, vmulq_f32(a.v[i], b.v[i]))
}
static inline vf16 operator/(vf16 a, vf16 b) {
    VOXELRT_QUARTERS(vf16, vdivq_f32(a.v[i], b.v[i]))
}
// a * b + c with one rounding.
static inline vf16 fma(vf16 a, vf16 b, vf16 c) {
    VOXELRT_QUARTERS(vf16, vfmaq_f32(c.v[i], a.v[i], b.v[i]))
}
// min and max: a NaN stays (on x86 only the second argument's does).
static inline vf16 min(vf16 bound, vf16 x) {
    VOXELRT_QUARTERS(vf16, vminq_f32(bound.v[i], x.v[i]))
}
static inline vf16 max(vf16 bound, vf16 x) {
    VOXELRT_QUARTERS(vf16, vmaxq_f32(bound.v[i], x.v[i]))
}
static inline vf16 abs(vf16 a) {
    VOXELRT_QUARTERS(vf16, vabsq_f32(a.v[i]))
}
static inline vf16 sqrt(vf16 a) {
    VOXELRT_QUARTERS(vf16, vsqrtq_f32(a.v[i]))
}
static inline vf16 round(vf16 a) {
    VOXELRT_QUARTERS(vf16, vrndnq_f32(a.v[i]))
}
static inline vf16 floor(vf16 a) {
    VOXELRT_QUARTERS(vf16, vrndmq_f32(a.v[i]))
}
static inline vf16 power_of_two(vf16 n) { // 2^n for whole n in [-126, 127]
    VOXELRT_QUARTERS(vf16, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v[i]), vdupq_n_s32(127)), 23)))
}
static inline vf16 times_power_of_two(vf16 a, vf16 n) { // a 2^n for whole n <= 0; below 2^-126 some tiny number
    return a * power_of_two(max(broadcast(-126.0f), n));
}
static inline vm16 operator<(vf16 a, vf16 b) {
    VOXELRT_QUARTERS(vm16, vcltq_f32(a.v[i], b.v[i]))
}
static inline vm16 operator>=(vf16 a, vf16 b) {
    VOXELRT_QUARTERS(vm16, vcgeq_f32(a.v[i], b.v[i]))
}
static inline vm16 is_nan(vf16 a) {
    VOXELRT_QUARTERS(vm16, vmvnq_u32(vceqq_f32(a.v[i], a.v[i])))
}
static inline vf16 select(vm16 m, vf16 yes, vf16 no) {
    VOXELRT_QUARTERS(vf16, vbslq_f32(m.v[i], yes.v[i], no.v[i]))
}
static inline bool any(vm16 m) {
    return vmaxvq_u32(vorrq_u32(vorrq_u32(m.v[0], m.v[1]), vorrq_u32(m.v[2], m.v[3]))) != 0;
}
static inline vm16 operator|(vm16 a, vm16 b) {
    VOXELRT_QUARTERS(vm16, vorrq_u32(a.v[i], b.v[i]))
}
static inline vm16 operator~(vm16 a) {
    VOXELRT_QUARTERS(vm16, vmvnq_u32(a.v[i]))
}
static inline vm16 operator&(vm16 a, vm16 b) {
    VOXELRT_QUARTERS(vm16, vandq_u32(a.v[i], b.v[i]))
}

struct vi16 { // sixteen 32-bit whole numbers
    int32x4_t v[4];
};
static inline vi16 to_whole(vf16 a) { // of whole values that fit
    VOXELRT_QUARTERS(vi16, vcvtq_s32_f32(a.v[i]))
}
static inline vi16 broadcast_whole(int32_t x) {
    VOXELRT_QUARTERS(vi16, vdupq_n_s32(x))
}
static inline void store_whole(int32_t *p, vi16 a) {
    for (int i = 0; i < 4; ++i)
        vst1q_s32(p + 4 * i, a.v[i]);
}
static inline vi16 operator+(vi16 a, vi16 b) {
    VOXELRT_QUARTERS(vi16, vaddq_s32(a.v[i], b.v[i]))
}
static inline vi16 operator*(vi16 a, vi16 b) {
    VOXELRT_QUARTERS(vi16, vmulq_s32(a.v[i], b.v[i]))
}
#undef VOXELRT_QUARTERS

#endif

// 2^t for t <= 0: 2^n times a minimax polynomial of what is left in [-1/2, 1/2]; relative error 2.3e-7. A NaN stays.
static inline vf16 exp2_negative(vf16 t) {
    t = max(broadcast(-1000.0f), t); // -inf has no fraction
    const vf16 n = round(t), f = t - n;
    vf16 p = broadcast(0.00132764725f);
    p = fma(p, f, broadcast(0.00967554096f));
    p = fma(p, f, broadcast(0.0555071309f));
    p = fma(p, f, broadcast(0.240221202f));
    p = fma(p, f, broadcast(0.693146944f));
    p = fma(p, f, broadcast(1.00000012f));
    return times_power_of_two(p, n);
}

constexpr int kQuad = 4;
// to[j * step + i] = from[i][at + j] for i and j in [0, 4).
static inline void transpose_quad(const float *const from[kQuad], int64_t at, float *to, int64_t step) {
#if defined(VOXELRT_ISA_neon)
    const float32x4x2_t ab = vtrnq_f32(vld1q_f32(from[0] + at), vld1q_f32(from[1] + at)),
                        cd = vtrnq_f32(vld1q_f32(from[2] + at), vld1q_f32(from[3] + at));
    vst1q_f32(to, vcombine_f32(vget_low_f32(ab.val[0]), vget_low_f32(cd.val[0])));
    vst1q_f32(to + step, vcombine_f32(vget_low_f32(ab.val[1]), vget_low_f32(cd.val[1])));
    vst1q_f32(to + 2 * step, vcombine_f32(vget_high_f32(ab.val[0]), vget_high_f32(cd.val[0])));
    vst1q_f32(to + 3 * step, vcombine_f32(vget_high_f32(ab.val[1]), vget_high_f32(cd.val[1])));
#else
    __m128 a = _mm_loadu_ps(from[0] + at), b = _mm_loadu_ps(from[1] + at), c = _mm_loadu_ps(from[2] + at),
           d = _mm_loadu_ps(from[3] + at);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(to, a);
    _mm_storeu_ps(to + step, b);
    _mm_storeu_ps(to + 2 * step, c);
    _mm_storeu_ps(to + 3 * step, d);
#endif
}

// The sum of all lanes, always in the same order on every instruction set.
static inline float sum(vf16 a) {
    float lanes[16];
    store(lanes, a);
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; ++i)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

} // namespace voxelrt::VOXELRT_ISA
