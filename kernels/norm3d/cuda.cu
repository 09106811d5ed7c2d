// norm3d, channels last: (N, S, C). Moments of chunks, exact about their own means; their merge in double, in a fixed
// order; the normalised volume with its activation. The same partial moments come out of a convolution's epilogue.
#include "cuda.cuh"

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

// A block a group of channels of one item: merges the chunks' moments (Chan, Golub and LeVeque 1983) and makes of them
// the scale and shift of each channel. `chunk` voxels are in each chunk but the last.
extern "C" __global__ void __launch_bounds__(128)
    voxelrt_norm3d_merge(float *scale, float *shift, const float *means, const float *squares, const float *gamma,
                         const float *beta, long long voxels, long long channels, long long chunk, long long chunks,
                         long long group, long long gamma_n, long long gamma_c, long long beta_n, long long beta_c,
                         float epsilon) {
    __shared__ double counts[128], centers[128], spreads[128];
    const int thread = (int)threadIdx.x;
    const long long n = blockIdx.y, first = (long long)blockIdx.x * group;
    double count = 0.0, center = 0.0, spread = 0.0;
    for (long long i = thread; i < chunks * group; i += blockDim.x) {
        const long long which = i / group, place = (n * chunks + which) * channels + first + i % group;
        const double more = (double)(which + 1 < chunks ? chunk : voxels - which * chunk);
        const double away = (double)means[place] - center, whole = count + more;
        spread += (double)squares[place] + away * away * count * more / whole;
        center += away * more / whole;
        count = whole;
    }
    counts[thread] = count, centers[thread] = center, spreads[thread] = spread;
    __syncthreads();
    for (int half = 64; half > 0; half /= 2) {
        if (thread < half && counts[thread + half] > 0.0) {
            const double more = counts[thread + half], whole = counts[thread] + more;
            const double away = centers[thread + half] - centers[thread];
            spreads[thread] += spreads[thread + half] + away * away * counts[thread] * more / whole;
            centers[thread] += away * more / whole;
            counts[thread] = whole;
        }
        __syncthreads();
    }
    const double inverse = 1.0 / sqrt(spreads[0] / counts[0] + (double)epsilon);
    for (long long c = first + thread; c < first + group; c += blockDim.x) {
        const double factor = inverse * (double)gamma[n * gamma_n + c * gamma_c];
        scale[n * channels + c] = (float)factor;
        shift[n * channels + c] = (float)((double)beta[n * beta_n + c * beta_c] - centers[0] * factor);
    }
}
