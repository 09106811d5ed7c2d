// Sums of rows, a block a row: the tree in shared memory that every reduction has, with a ragged last column. Then the
// mean of the block is taken off by all threads, from a place in shared memory that one of them wrote.
#include "cuda.cuh"

extern "C" __global__ void __launch_bounds__(128)
    voxelrt_mutants_center(float *out, const float *x, long long columns, long long stride) {
    VOXELRT_DYNAMIC_SHARED(bytes);
    float *sums = reinterpret_cast<float *>(bytes);
    const int thread = (int)threadIdx.x;
    const float *row = x + blockIdx.x * stride;
    float sum = 0.0f;
    for (long long i = thread; i < columns; i += blockDim.x)
        sum += row[i];
    sums[thread] = sum;
    __syncthreads(); // the first barrier
    for (int half = (int)blockDim.x / 2; half > 0; half /= 2) {
        if (thread < half)
            sums[thread] += sums[thread + half];
        __syncthreads(); // the second barrier
    }
    const float mean = sums[0] / (float)columns;
    for (long long i = thread; i < columns; i += blockDim.x)
        out[blockIdx.x * columns + i] = row[i] - mean;
}
