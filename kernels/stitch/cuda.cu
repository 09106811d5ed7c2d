// stitch: one thread an element, along X first so that a warp reads and writes neighbours.
#include "cuda.cuh"

extern "C" __global__ void __launch_bounds__(256)
    voxelrt_stitch_f32(float *out, const float *sums, const float *logits, const float *weights, long long depth,
                       long long channels, long long rows, long long columns, long long sums_z, long long sums_c,
                       long long sums_y, long long sums_x, long long logits_c, long long logits_z, long long logits_y,
                       long long logits_x, long long weights_z, long long weights_y, long long weights_x, float share,
                       int half) {
    const long long count = depth * channels * rows * columns;
    for (long long i = voxelrt::global_thread(); i < count; i += voxelrt::global_threads()) {
        const long long x = i % columns, y = i / columns % rows;
        const long long c = i / (columns * rows) % channels, z = i / (columns * rows * channels);
        const float weight = share * weights[z * weights_z + y * weights_y + x * weights_x];
        const float logit = logits[c * logits_c + z * logits_z + y * logits_y + x * logits_x];
        const float made = fmaf(weight, logit, sums[z * sums_z + c * sums_c + y * sums_y + x * sums_x]);
        out[i] = half ? __half2float(__float2half_rn(made)) : made;
    }
}
