// A window's logits into a slab of sums and counts, where they lie: one thread a voxel and all its channels, so that
// its weight is read once. What the stitch op gives new memory for is added in place here.
#include "cuda.cuh"

extern "C" __global__ void __launch_bounds__(256)
    voxelrt_slab_add_f32(float *sums, float *counts, const float *logits, const float *weights, long long depth,
                         long long channels, long long rows, long long columns, long long sums_z, long long sums_c,
                         long long sums_y, long long counts_z, long long counts_y, long long logits_c,
                         long long logits_z, long long logits_y, long long logits_x, long long weights_z,
                         long long weights_y, float share) {
    const long long count = depth * rows * columns;
    for (long long i = voxelrt::global_thread(); i < count; i += voxelrt::global_threads()) {
        const long long x = i % columns, y = i / columns % rows, z = i / (columns * rows);
        const float weight = share * weights[z * weights_z + y * weights_y + x];
        counts[z * counts_z + y * counts_y + x] += weight;
        const float *from = logits + z * logits_z + y * logits_y + x * logits_x;
        float *to = sums + z * sums_z + y * sums_y + x;
        for (long long c = 0; c < channels; ++c, from += logits_c, to += sums_c)
            *to = fmaf(weight, *from, *to);
    }
}
