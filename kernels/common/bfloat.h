// Sixteen bfloat16 numbers of storage as sixteen floats and back, rounded to nearest even; a NaN stays one. The same
// bits on every instruction set, which the conversions of some processors (no denormals) would not give.
#pragma once

#include "elements.h"
#include "vec.h"

namespace voxelrt::VOXELRT_ISA {

#if defined(VOXELRT_ISA_avx512)

static inline vf16 load(const BFloat *p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
static inline __m256i bfloat_bits(vf16 a) {
    const __m512i bits = _mm512_castps_si512(a.v);
    const __m512i even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i near = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), even);
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __m512i made = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), near, quiet);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(made, 16));
}
static inline void store(BFloat *p, vf16 a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), bfloat_bits(a));
}

#elif defined(VOXELRT_ISA_avx2)

static inline vf16 load(const BFloat *p) {
    const __m128i *from = reinterpret_cast<const __m128i *>(p);
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(from)), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(from + 1)), 16))};
}
static inline __m256i bfloat_bits(__m256 a) { // in the low halves of eight lanes
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i near = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), even);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(near, quiet, nan), 16);
}
static inline __m256i bfloat_bits(vf16 a) {
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(bfloat_bits(a.a), bfloat_bits(a.b)), 0xd8);
}
static inline void store(BFloat *p, vf16 a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), bfloat_bits(a));
}

#elif defined(VOXELRT_ISA_neon)

static inline vf16 load(const BFloat *p) {
    vf16 made;
    for (int i = 0; i < 4; ++i)
        made.v[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p[4 * i].bits), 16));
    return made;
}
static inline void store(BFloat *p, vf16 a) {
    for (int i = 0; i < 4; ++i) {
        const uint32x4_t bits = vreinterpretq_u32_f32(a.v[i]);
        const uint32x4_t even = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
        const uint32x4_t near = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), even);
        const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
        vst1_u16(&p[4 * i].bits, vshrn_n_u32(vbslq_u32(vceqq_f32(a.v[i], a.v[i]), near, quiet), 16));
    }
}

#endif

// Past the caches; p is aligned to 32 bytes. Follow the last one with stream_fence().
static inline void stream(BFloat *p, vf16 a) {
#if defined(VOXELRT_ISA_neon)
    store(p, a);
#else
    _mm256_stream_si256(reinterpret_cast<__m256i *>(p), bfloat_bits(a));
#endif
}

// The two dtypes that a blocked volume of floats is stored in.
static inline bool stored_float(int dtype) {
    return dtype == VOXELRT_F32 || dtype == VOXELRT_BF16;
}
static inline int64_t stored_bytes(int dtype) {
    return dtype == VOXELRT_BF16 ? 2 : 4;
}
// Call body(T()) with float or BFloat.
template <class F> static inline void with_stored(int dtype, F &&body) {
    if (dtype == VOXELRT_BF16)
        body(BFloat());
    else
        body(float());
}

} // namespace voxelrt::VOXELRT_ISA
