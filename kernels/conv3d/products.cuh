// A warp's products from shared memory: its share of a tile is 16 m rows and 8 n columns, and a lane's sums lie as
// tensor cores leave them (see tensor_cores.cuh).
#pragma once

#include "tensor_cores.cuh"

namespace conv3d {

// What operands are multiplied as: `Number` in shared memory, `made` of a float.
struct Fp32 { // without tensor cores
    using Number = float;
    __device__ static float made(float x) { return x; }
};
struct Tf32 {
    using Number = float;
    __device__ static float made(float x) { return voxelrt::round_tf32(x); }
};
struct Fp16 {
    using Number = __half;
    __device__ static __half made(float x) { return __float2half_rn(x); }
};
struct Bf16 {
    using Number = __nv_bfloat16;
    __device__ static __nv_bfloat16 made(float x) { return __float2bfloat16_rn(x); }
};

// Plain multiplications: float32 as it is, and what older tensor cores do not have.
template <int m, int n, int depth, typename T>
__device__ inline void multiply_plainly(float (*sums)[n][4], const T *a, int a_pitch, const T *b, int b_pitch) {
    struct alignas(4 * sizeof(T)) Four {
        T at[4];
    };
    struct alignas(2 * sizeof(T)) Pair {
        T at[2];
    };
    const int lane = (int)threadIdx.x % 32;
#pragma unroll 1
    for (int k = 0; k < depth; k += 4) {
        Four left[2 * m];
#pragma unroll
        for (int i = 0; i < 2 * m; ++i)
            left[i] = *(const Four *)(a + (lane / 4 + 8 * i) * a_pitch + k);
#pragma unroll
        for (int e = 0; e < 4; ++e)
#pragma unroll
            for (int j = 0; j < n; ++j) {
                const Pair right = *(const Pair *)(b + (k + e) * b_pitch + 8 * j + lane % 4 * 2);
#pragma unroll
                for (int i = 0; i < 4 * m; ++i) {
                    float &sum = sums[i / 4][j][i % 4];
                    sum = fmaf(voxelrt::to_float(left[i / 2].at[e]), voxelrt::to_float(right.at[i % 2]), sum);
                }
            }
    }
}

template <int m, int n, int depth, typename T>
__device__ inline void multiply_halves(float (*sums)[n][4], const T *a, int a_pitch, const T *b, int b_pitch) {
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < depth; k += 16) {
        unsigned left[m][4], right[n][2];
#pragma unroll
        for (int i = 0; i < m; ++i)
            voxelrt::load_matrices<false>(left[i], a + (16 * i + lane % 16) * a_pitch + k + lane / 16 * 8);
#pragma unroll
        for (int j = 0; j < n; j += 2)
            voxelrt::load_matrices<true>(right[j], b + (k + lane % 16) * b_pitch + 8 * j + lane / 16 * 8);
#pragma unroll
        for (int i = 0; i < m; ++i)
#pragma unroll
            for (int j = 0; j < n; ++j)
                voxelrt::multiply(sums[i][j], left[i], right[j], T());
    }
}

#if VOXELRT_WIDE_TENSOR_CORES
template <int m, int n, int depth>
__device__ inline void multiply_tf32(float (*sums)[n][4], const float *a, int a_pitch, const float *b, int b_pitch) {
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int k = 0; k < depth; k += 8) {
        unsigned right[n][2];
#pragma unroll
        for (int j = 0; j < n; ++j)
            for (int i = 0; i < 2; ++i)
                right[j][i] = (unsigned)__float_as_int(b[(k + t + 4 * i) * b_pitch + 8 * j + g]);
#pragma unroll
        for (int i = 0; i < m; ++i) {
            unsigned left[4];
            for (int r = 0; r < 4; ++r)
                left[r] = (unsigned)__float_as_int(a[(16 * i + g + r % 2 * 8) * a_pitch + k + t + r / 2 * 4]);
#pragma unroll
            for (int j = 0; j < n; ++j)
                voxelrt::multiply(sums[i][j], left, right[j], 0.0f);
        }
    }
}
#endif

template <typename P, int m, int n, int depth> struct Product {
    using Number = typename P::Number;
    __device__ static void add(float (*sums)[n][4], const Number *a, int a_pitch, const Number *b, int b_pitch) {
        multiply_plainly<m, n, depth>(sums, a, a_pitch, b, b_pitch);
    }
};
template <int m, int n, int depth> struct Product<Fp16, m, n, depth> {
    __device__ static void add(float (*sums)[n][4], const __half *a, int a_pitch, const __half *b, int b_pitch) {
        multiply_halves<m, n, depth>(sums, a, a_pitch, b, b_pitch);
    }
};
#if VOXELRT_WIDE_TENSOR_CORES
template <int m, int n, int depth> struct Product<Bf16, m, n, depth> {
    using Number = __nv_bfloat16;
    __device__ static void add(float (*sums)[n][4], const Number *a, int a_pitch, const Number *b, int b_pitch) {
        multiply_halves<m, n, depth>(sums, a, a_pitch, b, b_pitch);
    }
};
template <int m, int n, int depth> struct Product<Tf32, m, n, depth> {
    __device__ static void add(float (*sums)[n][4], const float *a, int a_pitch, const float *b, int b_pitch) {
        multiply_tf32<m, n, depth>(sums, a, a_pitch, b, b_pitch);
    }
};
#endif

} // namespace conv3d
