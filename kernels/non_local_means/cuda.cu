// non_local_means: one thread a pillar of four voxels along z. For an offset of the window, the squared differences of
// a plane of the patch are summed once and belong to every voxel of the pillar whose patch has that plane: with patches
// of 3³ that is 13.5 differences a pair of voxels instead of 27. The patches read a copy that is mirrored at the faces.
#include "cuda.cuh"

#include "mirror.cuh"

namespace {

constexpr int kPillar = 4;

struct Volume { // the mirrored copy: `patch` more voxels at each face
    long long size[3], plane, row;
    int patch[3];
};

// Sums of squared differences of patches around a pillar's voxels and those at an offset from them. Planes of voxels
// whose pair lies outside the volume are left out; nobody asks for these.
__device__ void patch_differences(const Volume &v, const float *here, const float *there, long long z, long long oz,
                                  float *sums) {
    for (int k = 0; k < kPillar; ++k)
        sums[k] = 0.0f;
    const long long low = -v.patch[0], high = v.size[0] + v.patch[0];
    for (int t = -v.patch[0]; t < kPillar + v.patch[0]; ++t) {
        if (z + t >= high || z + t + oz < low || z + t + oz >= high)
            continue;
        float sum = 0.0f;
        for (int y = -v.patch[1]; y <= v.patch[1]; ++y)
            for (int x = -v.patch[2]; x <= v.patch[2]; ++x) {
                const long long at = t * v.plane + y * v.row + x;
                const float difference = here[at] - there[at];
                sum = fmaf(difference, difference, sum);
            }
        for (int k = 0; k < kPillar; ++k)
            sums[k] += t - k <= v.patch[0] && k - t <= v.patch[0] ? sum : 0.0f;
    }
}

} // namespace

extern "C" __global__ void __launch_bounds__(256)
    voxelrt_non_local_means_mirror(float *out, const float *volume, long long count, long long depth, long long rows,
                                   long long columns, int patch_z, int patch_y, int patch_x) {
    voxelrt::mirror(out, volume, count, depth, rows, columns, patch_z, patch_y, patch_x);
}

extern "C" __global__ void __launch_bounds__(128)
    voxelrt_non_local_means_mean(float *out, const float *copy, long long depth, long long rows, long long columns,
                                 int search_z, int search_y, int search_x, int patch_z, int patch_y, int patch_x,
                                 float slope, float offset, float noise, int squares) {
    Volume v{{depth, rows, columns}, 0, columns + 2 * patch_x, {patch_z, patch_y, patch_x}};
    v.plane = v.row * (rows + 2 * patch_y);
    const long long i = voxelrt::global_thread(), pillars = (depth + kPillar - 1) / kPillar;
    if (i >= pillars * rows * columns)
        return;
    const long long x = i % columns, y = i / columns % rows, z = i / (columns * rows) * kPillar;
    const float *const here =
        copy + (blockIdx.y * (depth + 2 * patch_z) + z + patch_z) * v.plane + (y + patch_y) * v.row + x + patch_x;
    float total[kPillar] = {}, weights[kPillar] = {}, sums[kPillar];
    for (long long oz = -search_z; oz <= search_z; ++oz) {
        if (z + oz >= depth || z + kPillar - 1 + oz < 0)
            continue;
        for (long long oy = -search_y; oy <= search_y; ++oy)
            for (long long ox = -search_x; ox <= search_x; ++ox) {
                if (y + oy < 0 || y + oy >= rows || x + ox < 0 || x + ox >= columns)
                    continue;
                const float *const there = here + oz * v.plane + oy * v.row + ox;
                patch_differences(v, here, there, z, oz, sums);
                for (int k = 0; k < kPillar; ++k) {
                    if (z + k >= depth || z + k + oz < 0 || z + k + oz >= depth)
                        continue;
                    const float weight = expf(-fmaxf(sums[k] * slope - offset, 0.0f)), value = there[k * v.plane];
                    total[k] = fmaf(weight, squares ? value * value : value, total[k]);
                    weights[k] += weight;
                }
            }
    }
    for (int k = 0; k < kPillar; ++k)
        if (z + k < depth) {
            const float mean = total[k] / weights[k];
            out[((blockIdx.y * depth + z + k) * rows + y) * columns + x] =
                squares ? sqrtf(fmaxf(mean - noise, 0.0f)) : mean;
        }
}
