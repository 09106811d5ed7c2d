// vf16: sixteen floats, the block of channels that every kernel works on. One zmm with AVX-512, two ymm with AVX2, four
// q registers with NEON. Only intrinsics, so that what a kernel's inner loop becomes is the kernel's decision.
//
// The three have the same names, each in a file of its own: vec_avx512.h, vec_avx2.h, vec_neon.h.
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

#if defined(VOXELRT_ISA_avx512)
#include "vec_avx512.h"
#elif defined(VOXELRT_ISA_avx2)
#include "vec_avx2.h"
#elif defined(VOXELRT_ISA_neon)
#include "vec_neon.h"
#endif

namespace voxelrt::VOXELRT_ISA {

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

#if !defined(VOXELRT_ISA_avx512)
// Lane j of row i becomes lane i of row j.
static inline void transpose(vf16 (&rows)[16]) {
    float from[16 * 16], to[16 * 16];
    for (int i = 0; i < 16; ++i)
        store(from + i * 16, rows[i]);
    for (int i = 0; i < 16; i += kQuad) {
        const float *const quad[kQuad] = {from + i * 16, from + i * 16 + 16, from + i * 16 + 32, from + i * 16 + 48};
        for (int j = 0; j < 16; j += kQuad)
            transpose_quad(quad, j, to + j * 16 + i, 16);
    }
    for (int i = 0; i < 16; ++i)
        rows[i] = load(to + i * 16);
}
#endif

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
