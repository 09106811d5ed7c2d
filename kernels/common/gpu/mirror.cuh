// Copies of volumes that are mirrored at the centres of the outermost voxels, so that patches need no bounds.
#pragma once

namespace voxelrt {

__device__ inline long long mirrored(long long at, long long size) {
    const long long period = 2 * (size - 1);
    if (period == 0)
        return 0;
    const long long rest = at % period, along = rest < 0 ? rest + period : rest;
    return along < size ? along : period - along;
}

// A copy of volumes (B, Z, Y, X), of `count` elements: `patch` more voxels at each face.
__device__ inline void mirror(float *out, const float *volume, long long count, long long depth, long long rows,
                              long long columns, int patch_z, int patch_y, int patch_x) {
    const long long wide = columns + 2 * patch_x, high = rows + 2 * patch_y, deep = depth + 2 * patch_z;
    for (long long i = global_thread(); i < count; i += global_threads()) {
        const long long x = mirrored(i % wide - patch_x, columns), y = mirrored(i / wide % high - patch_y, rows);
        const long long z = mirrored(i / (wide * high) % deep - patch_z, depth), item = i / (wide * high * deep);
        out[i] = volume[((item * depth + z) * rows + y) * columns + x];
    }
}

} // namespace voxelrt
