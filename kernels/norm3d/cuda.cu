// norm3d, channels last: (N, S, C). Moments of chunks, exact about their own means; their merge in double, in a fixed
// order; the normalised volume with its activation. The same partial moments come out of a convolution's epilogue.
#include "cuda.cuh"

#include "moments.cuh"

constexpr int CHANNELS = 32, ROWS = 8, CHUNK = 128;

// means and squares (N, chunks, C): of each chunk of voxels, the mean and the sum of squared differences to it.
template <typename T>
__device__ void moments(float *means, float *squares, const T *x, long long voxels, long long channels) {
    __shared__ float sums[ROWS][CHANNELS];
    const int lane = (int)threadIdx.x, row = (int)threadIdx.y;
    const long long c = (long long)blockIdx.y * CHANNELS + lane, n = blockIdx.z;
    const long long first = (long long)blockIdx.x * CHUNK;
    const float count = (float)(voxels - first < CHUNK ? voxels - first : CHUNK);
    float kept[CHUNK / ROWS], sum = 0.0f;
#pragma unroll
    for (int i = 0; i < CHUNK / ROWS; ++i) {
        const long long voxel = first + row + (long long)i * ROWS;
        kept[i] = voxel < voxels && c < channels ? voxelrt::to_float(x[(n * voxels + voxel) * channels + c]) : 0.0f;
        sum += kept[i];
    }
    sums[row][lane] = sum;
    __syncthreads();
    float mean = 0.0f;
    for (int r = 0; r < ROWS; ++r)
        mean += sums[r][lane];
    mean /= count;
    float square = 0.0f;
#pragma unroll
    for (int i = 0; i < CHUNK / ROWS; ++i) {
        const float away = first + row + (long long)i * ROWS < voxels ? kept[i] - mean : 0.0f;
        square = fmaf(away, away, square);
    }
    __syncthreads();
    sums[row][lane] = square;
    __syncthreads();
    if (row == 0 && c < channels) {
        float total = 0.0f;
        for (int r = 0; r < ROWS; ++r)
            total += sums[r][lane];
        const long long place = (n * gridDim.x + blockIdx.x) * channels + c;
        means[place] = mean;
        squares[place] = total;
    }
}

template <typename T>
__device__ void apply(T *out, const T *x, const float *scale, const float *shift, long long voxels, long long channels,
                      long long scale_n, long long scale_c, long long shift_n, long long shift_c, int number,
                      float alpha, float beta) {
    const long long c = (long long)blockIdx.y * CHANNELS + threadIdx.x, n = blockIdx.z;
    if (c >= channels)
        return;
    const float a = scale[n * scale_n + c * scale_c], b = shift[n * shift_n + c * shift_c];
    const long long first = (long long)blockIdx.x * CHUNK;
    for (long long voxel = first + threadIdx.y; voxel < first + CHUNK && voxel < voxels; voxel += ROWS) {
        const long long place = (n * voxels + voxel) * channels + c;
        const float y = fmaf(voxelrt::to_float(x[place]), a, b);
        out[place] = voxelrt::from_float<T>(voxelrt::activate(number, y, alpha, beta));
    }
}

#define VOXELRT_NORM3D(T, suffix)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256) voxelrt_norm3d_moments_##suffix(                                 \
        float *means, float *squares, const T *x, long long voxels, long long channels) {                              \
        moments(means, squares, x, voxels, channels);                                                                  \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        voxelrt_norm3d_apply_##suffix(T *out, const T *x, const float *scale, const float *shift, long long voxels,    \
                                      long long channels, long long scale_n, long long scale_c, long long shift_n,     \
                                      long long shift_c, int number, float alpha, float beta) {                        \
        apply(out, x, scale, shift, voxels, channels, scale_n, scale_c, shift_n, shift_c, number, alpha, beta);        \
    }
VOXELRT_NORM3D(float, f32)
VOXELRT_NORM3D(__half, f16)
VOXELRT_NORM3D(__nv_bfloat16, bf16)

VOXELRT_MERGE_MOMENTS(voxelrt_norm3d_merge)
