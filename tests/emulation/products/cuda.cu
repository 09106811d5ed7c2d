// A warp a block: registers in, one product or one load of matrices, registers out.
#include "tensor_cores.cuh"

template <typename T> __device__ void product(float *out, const unsigned *a, const unsigned *b, const float *c) {
    const long long at = voxelrt::global_thread();
    float sums[4];
    unsigned left[4], right[2];
    for (int i = 0; i < 4; ++i)
        sums[i] = c[4 * at + i], left[i] = a[4 * at + i];
    for (int i = 0; i < 2; ++i)
        right[i] = b[2 * at + i];
    voxelrt::multiply(sums, left, right, T());
    for (int i = 0; i < 4; ++i)
        out[4 * at + i] = sums[i];
}

#define VOXELRT_PRODUCT(name, T)                                                                                       \
    extern "C" __global__ void voxelrt_products_##name(float *out, const unsigned *a, const unsigned *b,               \
                                                       const float *c) {                                               \
        product<T>(out, a, b, c);                                                                                      \
    }
VOXELRT_PRODUCT(f16, __half)
VOXELRT_PRODUCT(bf16, __nv_bfloat16)
VOXELRT_PRODUCT(tf32, float)

// `numbers` are 16 rows of 16, and the four matrices its quarters: upper left, lower left, upper right, lower right.
extern "C" __global__ void voxelrt_products_load(unsigned *out, const unsigned short *numbers, int turned) {
    __shared__ __align__(16) unsigned short rows[16][24];
    const int lane = (int)threadIdx.x;
    for (int i = lane; i < 256; i += 32)
        rows[i / 16][i % 16] = numbers[i];
    __syncthreads();
    unsigned to[4];
    const unsigned short *const row = &rows[lane % 16][lane / 16 * 8];
    if (turned)
        voxelrt::load_matrices<true>(to, row);
    else
        voxelrt::load_matrices<false>(to, row);
    for (int i = 0; i < 4; ++i)
        out[4 * lane + i] = to[i];
}

extern "C" __global__ void voxelrt_products_round(float *out, const float *numbers) {
    const long long at = voxelrt::global_thread();
    out[at] = voxelrt::round_tf32(numbers[at]);
}
