// Scale and shift of a norm from the moments of chunks of voxels, as norm3d's own pass and a convolution's tiles make
// them. For a block of 128 threads.
#pragma once

namespace voxelrt {

struct Merging {
    long long voxels, channels, chunk, chunks, group, gamma_n, gamma_c, beta_n, beta_c;
    float epsilon;
};

// A block a group of channels of one item: merges the chunks' moments (Chan, Golub and LeVeque 1983) in double, in a
// fixed order, and makes of them the scale and shift of each channel. `chunk` voxels are in each chunk but the last.
__device__ inline void merge_moments(float *scale, float *shift, const float *means, const float *squares,
                                     const float *gamma, const float *beta, const Merging &of) {
    __shared__ double counts[128], centers[128], spreads[128];
    const int thread = (int)threadIdx.x;
    const long long n = blockIdx.y, first = (long long)blockIdx.x * of.group;
    double count = 0.0, center = 0.0, spread = 0.0;
    for (long long i = thread; i < of.chunks * of.group; i += blockDim.x) {
        const long long which = i / of.group, place = (n * of.chunks + which) * of.channels + first + i % of.group;
        const double more = (double)(which + 1 < of.chunks ? of.chunk : of.voxels - which * of.chunk);
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
    const double inverse = 1.0 / sqrt(spreads[0] / counts[0] + (double)of.epsilon);
    for (long long c = first + thread; c < first + of.group; c += blockDim.x) {
        const double factor = inverse * (double)gamma[n * of.gamma_n + c * of.gamma_c];
        scale[n * of.channels + c] = (float)factor;
        shift[n * of.channels + c] = (float)((double)beta[n * of.beta_n + c * of.beta_c] - centers[0] * factor);
    }
}

} // namespace voxelrt

#define VOXELRT_MERGE_MOMENTS(name)                                                                                    \
    extern "C" __global__ void __launch_bounds__(128) name(                                                            \
        float *scale, float *shift, const float *means, const float *squares, const float *gamma, const float *beta,   \
        long long voxels, long long channels, long long chunk, long long chunks, long long group, long long gamma_n,   \
        long long gamma_c, long long beta_n, long long beta_c, float epsilon) {                                        \
        voxelrt::merge_moments(scale, shift, means, squares, gamma, beta,                                              \
                               {voxels, channels, chunk, chunks, group, gamma_n, gamma_c, beta_n, beta_c, epsilon});   \
    }
