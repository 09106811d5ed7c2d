// A warp's products on tensor cores. With g = lane / 4 and t = lane % 4 a lane holds of a result of 16 rows and 8
// columns (g, 2t), (g, 2t + 1), (g + 8, 2t) and (g + 8, 2t + 1), whatever the operands' type.
//
// All lanes of the warp must call these. Under the tests' shim its own emulation takes the instructions' place.
#pragma once

#include "cuda.cuh"

#ifdef VOXELRT_SHIM
#include "warp_products.h"
#endif

namespace voxelrt {

// float32 as TF32: ten bits of fraction, ties away from zero.
__device__ inline float round_tf32(float x) {
#if defined(VOXELRT_SHIM) || __CUDA_ARCH__ < 800
    const unsigned bits = (unsigned)__float_as_int(x);
    return (bits & 0x7f800000u) == 0x7f800000u ? x : __int_as_float((int)((bits + 0x1000u) & 0xffffe000u));
#else
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __int_as_float((int)bits);
#endif
}

// c += a b, 16 x 16 by 16 x 8: two halves a register.
__device__ inline void multiply(float *c, const unsigned *a, const unsigned *b, __half) {
#ifdef VOXELRT_SHIM
    voxelrt_shim::multiply<__half>(c, a, b);
#elif __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    for (int k = 0; k < 2; ++k)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
#endif
}

#if defined(VOXELRT_SHIM) || __CUDA_ARCH__ >= 800
#define VOXELRT_WIDE_TENSOR_CORES 1 // of bfloat16 and TF32

__device__ inline void multiply(float *c, const unsigned *a, const unsigned *b, __nv_bfloat16) {
#ifdef VOXELRT_SHIM
    voxelrt_shim::multiply<__nv_bfloat16>(c, a, b);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// 16 x 8 by 8 x 8: a TF32 number a register.
__device__ inline void multiply(float *c, const unsigned *a, const unsigned *b, float) {
#ifdef VOXELRT_SHIM
    voxelrt_shim::multiply<float>(c, a, b);
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
#else
#define VOXELRT_WIDE_TENSOR_CORES 0
#endif

// Four 8 x 8 matrices of 16-bit numbers from shared memory; lane l gives the address of row l % 8 of matrix l / 8. A
// lane gets (g, 2t) and (g, 2t + 1) of each, or of each turned over.
template <bool turned> __device__ inline void load_matrices(unsigned *to, const void *row) {
#ifdef VOXELRT_SHIM
    voxelrt_shim::load_matrices(to, row, turned);
#else
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    if (turned)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(at)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(at)
                     : "memory");
#endif
}

} // namespace voxelrt
