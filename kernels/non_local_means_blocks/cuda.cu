// non_local_means_blocks: one thread a block, whose centre is on every second voxel along axes where patches have a
// radius. Its own patch, a partner's and the weighted sums are in registers for patches of 3^3 and 1 x 3^2, so that a
// partner is loaded once. Blocks write whole answers, [value][block], and a voxel takes the mean of those that hold it:
// nothing is added up by several threads, so the order of all sums is fixed.
#include "cuda.cuh"

#include "mirror.cuh"

namespace {

constexpr float kLeast = 100.0f; // bits below one of a weight that still counts: float32 could not divide by much less

struct Shape { // of a volume; its copy has `patch` more voxels at each face
    long long depth, rows, columns;
    int patch[3];

    __device__ long long row() const { return columns + 2 * patch[2]; }
    __device__ long long plane() const { return row() * (rows + 2 * patch[1]); }
    // Where a voxel of an item is in the copy, and where in volumes without a border.
    __device__ long long in_copy(long long item, long long z, long long y, long long x) const {
        return (item * (depth + 2 * patch[0]) + z + patch[0]) * plane() + (y + patch[1]) * row() + x + patch[2];
    }
    __device__ long long voxel(long long item, long long z, long long y, long long x) const {
        return ((item * depth + z) * rows + y) * columns + x;
    }
    __device__ int step(int axis) const { return patch[axis] > 0 ? 2 : 1; }
    __device__ long long centres(int axis) const {
        const long long size = axis == 0 ? depth : axis == 1 ? rows : columns;
        return (size + step(axis) - 1) / step(axis);
    }
    __device__ long long blocks() const { return centres(0) * centres(1) * centres(2); }
    __device__ int values() const { return (2 * patch[0] + 1) * (2 * patch[1] + 1) * (2 * patch[2] + 1); }
};

// Call body(i, offset in the copy) for the values of a patch, in their order.
template <class F> __device__ void each_value(const Shape &shape, F &&body) {
    const long long plane = shape.plane(), row = shape.row();
    int i = 0;
    for (int z = -shape.patch[0]; z <= shape.patch[0]; ++z)
        for (int y = -shape.patch[1]; y <= shape.patch[1]; ++y)
            for (int x = -shape.patch[2]; x <= shape.patch[2]; ++x)
                body(i++, z * plane + y * row + x);
}

// The same for radii that the compiler knows, which makes `i` a constant.
template <int P0, int P1, int P2, class F> __device__ void each_known(const Shape &shape, F &&body) {
    const long long plane = shape.plane(), row = shape.row();
#pragma unroll
    for (int z = -P0; z <= P0; ++z)
#pragma unroll
        for (int y = -P1; y <= P1; ++y)
#pragma unroll
            for (int x = -P2; x <= P2; ++x)
                body(((z + P0) * (2 * P1 + 1) + y + P1) * (2 * P2 + 1) + x + P2, z * plane + y * row + x);
}

struct Weighing { // what decides of a partner
    int search[3];
    float slope, noise, like_means, like_variances;
    int own, squares;
};

__device__ bool like(float other, float own, float share) {
    return own > 0.0f && other > share * own && share * other < own;
}

// A thread's block, and the weights of its partners.
struct Block {
    const Shape &shape;
    const Weighing &by;
    long long index, item, z, y, x;
    float total = 0.0f, most = 0.0f;

    __device__ Block(const Shape &of, const Weighing &weighing)
        : shape(of), by(weighing), index(voxelrt::global_thread()), item(blockIdx.y) {
        x = index % of.centres(2) * of.step(2);
        y = index / of.centres(2) % of.centres(1) * of.step(1);
        z = index / (of.centres(2) * of.centres(1)) * of.step(0);
    }
    __device__ bool exists() const { return index < shape.blocks(); }
    __device__ long long in_copy() const { return shape.in_copy(item, z, y, x); }

    // Call body(offset in the copy) for every partner.
    template <class F> __device__ void each_partner(const float *means, const float *variances, F &&body) const {
        const long long here = shape.voxel(item, z, y, x);
        const float mean = means[here], variance = variances[here];
        for (long long oz = -by.search[0]; oz <= by.search[0]; ++oz) {
            if (z + oz < 0 || z + oz >= shape.depth)
                continue;
            for (long long oy = -by.search[1]; oy <= by.search[1]; ++oy) {
                if (y + oy < 0 || y + oy >= shape.rows)
                    continue;
                for (long long ox = -by.search[2]; ox <= by.search[2]; ++ox) {
                    if (x + ox < 0 || x + ox >= shape.columns || (oz == 0 && oy == 0 && ox == 0))
                        continue;
                    const long long there = here + (oz * shape.rows + oy) * shape.columns + ox;
                    if (like(means[there], mean, by.like_means) && like(variances[there], variance, by.like_variances))
                        body(oz * shape.plane() + oy * shape.row() + ox);
                }
            }
        }
    }
    // The weight of a partner with a sum of squared differences, times log2(e) in the slope.
    __device__ float weight(float differences) {
        const float bits = differences * by.slope, found = bits <= kLeast ? exp2f(-bits) : 0.0f;
        total += found;
        most = fmaxf(most, found);
        return found;
    }
    // A block counts as much as its best partner, or nothing where it has partners; alone it stays.
    __device__ float itself() const { return most > 0.0f ? (by.own ? most : 0.0f) : 1.0f; }
    __device__ float answer(float sum, float own) const {
        const float self = itself(), mean = fmaf(by.squares ? self * own : self, own, sum) / (total + self);
        return by.squares ? sqrtf(fmaxf(mean - by.noise, 0.0f)) : mean;
    }
};

template <int P0, int P1, int P2, bool Squares>
__device__ void known_patch(float *answers, const float *copy, const float *means, const float *variances, Block &block,
                            const Shape &shape) {
    constexpr int kValues = (2 * P0 + 1) * (2 * P1 + 1) * (2 * P2 + 1);
    const float *const here = copy + block.in_copy();
    float own[kValues], sum[kValues], found[kValues];
    each_known<P0, P1, P2>(shape, [&](int i, long long at) {
        own[i] = here[at];
        sum[i] = 0.0f;
    });
    block.each_partner(means, variances, [&](long long offset) {
        float apart[2] = {0.0f, 0.0f};
        each_known<P0, P1, P2>(shape, [&](int i, long long at) {
            found[i] = here[offset + at];
            const float difference = found[i] - own[i];
            apart[i % 2] = fmaf(difference, difference, apart[i % 2]);
        });
        const float weight = block.weight(apart[0] + apart[1]);
        each_known<P0, P1, P2>(
            shape, [&](int i, long long) { sum[i] = fmaf(Squares ? weight * found[i] : weight, found[i], sum[i]); });
    });
    const long long blocks = shape.blocks();
    float *const to = answers + block.item * kValues * blocks + block.index;
#pragma unroll
    for (int i = 0; i < kValues; ++i)
        to[i * blocks] = block.answer(sum[i], own[i]);
}

template <int P0, int P1, int P2>
__device__ void known_patches(float *answers, const float *copy, const float *means, const float *variances,
                              const Shape &shape, const Weighing &by) {
    Block block(shape, by);
    if (!block.exists())
        return;
    if (by.squares)
        known_patch<P0, P1, P2, true>(answers, copy, means, variances, block, shape);
    else
        known_patch<P0, P1, P2, false>(answers, copy, means, variances, block, shape);
}

// The blocks of an axis that hold a voxel: from `first` to `last`.
__device__ void holders(const Shape &shape, int axis, long long at, long long &first, long long &last) {
    const long long step = shape.step(axis), radius = shape.patch[axis], end = shape.centres(axis) - 1;
    first = at > radius ? (at - radius + step - 1) / step : 0;
    last = (at + radius) / step < end ? (at + radius) / step : end;
}

} // namespace

extern "C" __global__ void __launch_bounds__(256)
    voxelrt_non_local_means_blocks_mirror(float *out, const float *volume, long long count, long long depth,
                                          long long rows, long long columns, int patch_z, int patch_y, int patch_x) {
    voxelrt::mirror(out, volume, count, depth, rows, columns, patch_z, patch_y, patch_x);
}

// The least value of each volume, a block of threads each.
extern "C" __global__ void __launch_bounds__(256)
    voxelrt_non_local_means_blocks_least(float *least, const float *volume, long long voxels) {
    __shared__ float found[256];
    const int thread = (int)threadIdx.x;
    const float *const own = volume + blockIdx.y * voxels;
    float value = own[0];
    for (long long i = thread; i < voxels; i += blockDim.x)
        value = fminf(value, own[i]);
    found[thread] = value;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (thread < half)
            found[thread] = fminf(found[thread], found[thread + half]);
        __syncthreads();
    }
    if (thread == 0)
        least[blockIdx.y] = found[0];
}

// Means of the patches around all voxels, above the volume's least value where that is asked for, and their variances.
extern "C" __global__ void __launch_bounds__(128)
    voxelrt_non_local_means_blocks_describe(float *means, float *variances, const float *copy, const float *least,
                                            long long depth, long long rows, long long columns, int patch_z,
                                            int patch_y, int patch_x, int above_least) {
    const Shape shape{depth, rows, columns, {patch_z, patch_y, patch_x}};
    const long long i = voxelrt::global_thread(), item = blockIdx.y;
    if (i >= depth * rows * columns)
        return;
    const long long x = i % columns, y = i / columns % rows, z = i / (columns * rows);
    const float *const here = copy + shape.in_copy(item, z, y, x);
    const float share = 1.0f / (float)shape.values();
    float sum = 0.0f, squares = 0.0f;
    each_value(shape, [&](int, long long at) { sum += here[at]; });
    const float mean = sum * share;
    each_value(shape, [&](int, long long at) { squares = fmaf(here[at] - mean, here[at] - mean, squares); });
    means[shape.voxel(item, z, y, x)] = above_least ? mean - least[item] : mean;
    variances[shape.voxel(item, z, y, x)] = squares * share;
}

extern "C" __global__ void __launch_bounds__(128, 3)
    voxelrt_non_local_means_blocks_cube(float *answers, const float *copy, const float *means, const float *variances,
                                        long long depth, long long rows, long long columns, int search_z, int search_y,
                                        int search_x, int, int, int, float slope, float noise, float like_means,
                                        float like_variances, int own, int squares) {
    const Shape shape{depth, rows, columns, {1, 1, 1}};
    const Weighing by{{search_z, search_y, search_x}, slope, noise, like_means, like_variances, own, squares};
    known_patches<1, 1, 1>(answers, copy, means, variances, shape, by);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    voxelrt_non_local_means_blocks_square(float *answers, const float *copy, const float *means, const float *variances,
                                          long long depth, long long rows, long long columns, int search_z,
                                          int search_y, int search_x, int, int, int, float slope, float noise,
                                          float like_means, float like_variances, int own, int squares) {
    const Shape shape{depth, rows, columns, {0, 1, 1}};
    const Weighing by{{search_z, search_y, search_x}, slope, noise, like_means, like_variances, own, squares};
    known_patches<0, 1, 1>(answers, copy, means, variances, shape, by);
}

// Patches of any radii: the sums are where the answers will be.
extern "C" __global__ void __launch_bounds__(128, 4)
    voxelrt_non_local_means_blocks_any(float *answers, const float *copy, const float *means, const float *variances,
                                       long long depth, long long rows, long long columns, int search_z, int search_y,
                                       int search_x, int patch_z, int patch_y, int patch_x, float slope, float noise,
                                       float like_means, float like_variances, int own, int squares) {
    const Shape shape{depth, rows, columns, {patch_z, patch_y, patch_x}};
    const Weighing by{{search_z, search_y, search_x}, slope, noise, like_means, like_variances, own, squares};
    Block block(shape, by);
    if (!block.exists())
        return;
    const long long blocks = shape.blocks();
    const float *const here = copy + block.in_copy();
    float *const sums = answers + block.item * shape.values() * blocks + block.index;
    for (int i = 0; i < shape.values(); ++i)
        sums[i * blocks] = 0.0f;
    block.each_partner(means, variances, [&](long long offset) {
        float apart = 0.0f;
        each_value(shape, [&](int, long long at) {
            const float difference = here[offset + at] - here[at];
            apart = fmaf(difference, difference, apart);
        });
        const float weight = block.weight(apart);
        each_value(shape, [&](int i, long long at) {
            const float value = here[offset + at];
            sums[i * blocks] = fmaf(squares ? weight * value : weight, value, sums[i * blocks]);
        });
    });
    each_value(shape, [&](int i, long long at) { sums[i * blocks] = block.answer(sums[i * blocks], here[at]); });
}

// A voxel is the mean of the answers of the blocks that hold it.
extern "C" __global__ void __launch_bounds__(128, 4)
    voxelrt_non_local_means_blocks_mean(float *out, const float *answers, long long depth, long long rows,
                                        long long columns, int patch_z, int patch_y, int patch_x) {
    const Shape shape{depth, rows, columns, {patch_z, patch_y, patch_x}};
    const long long i = voxelrt::global_thread(), item = blockIdx.y, blocks = shape.blocks();
    if (i >= depth * rows * columns)
        return;
    const long long at[3] = {i / (columns * rows), i / columns % rows, i % columns};
    long long first[3], last[3];
    for (int axis = 0; axis < 3; ++axis)
        holders(shape, axis, at[axis], first[axis], last[axis]);
    const float *const given = answers + item * shape.values() * blocks;
    float sum = 0.0f;
    for (long long z = first[0]; z <= last[0]; ++z)
        for (long long y = first[1]; y <= last[1]; ++y)
            for (long long x = first[2]; x <= last[2]; ++x) {
                const long long block = (z * shape.centres(1) + y) * shape.centres(2) + x;
                const long long pz = at[0] - z * shape.step(0) + patch_z, py = at[1] - y * shape.step(1) + patch_y,
                                px = at[2] - x * shape.step(2) + patch_x;
                sum += given[((pz * (2 * patch_y + 1) + py) * (2 * patch_x + 1) + px) * blocks + block];
            }
    const long long count = (last[0] - first[0] + 1) * (last[1] - first[1] + 1) * (last[2] - first[2] + 1);
    out[shape.voxel(item, at[0], at[1], at[2])] = sum / (float)count;
}
