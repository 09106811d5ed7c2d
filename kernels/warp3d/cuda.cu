// warp3d: one thread an output voxel and all its channels, a warp 32 voxels of a row. The affine part of the position
// is worked out in double once a warp, an axis a lane, and shuffled to the others: consumer GPUs have one double unit
// for 64 of float.
#include "cuda.cuh"

#include "interpolate.cuh"

namespace {

using voxelrt::Corners;
using voxelrt::kFar;
using voxelrt::Place;

constexpr unsigned kAll = 0xffffffffu;

struct Field { // of one batch element; component c of a voxel lies at voxel + c · stride
    const void *data;
    int type, first; // the type's code in cuda.py, and 1 where there is no z
    long long stride;
    const float *matrix; // (2, 3, 3): nine doubles as sums of two floats; null for the identity
};

__device__ float component(const Field &f, int c, long long voxel) {
    const long long at = voxel + (c - f.first) * f.stride;
    if (f.type == 1)
        return voxelrt::to_float(((const __half *)f.data)[at]);
    if (f.type == 2)
        return voxelrt::to_float(((const __nv_bfloat16 *)f.data)[at]);
    return ((const float *)f.data)[at];
}

// Add m·u to a place. The whole part is off before the product is rounded.
__device__ void add_product(float high, float low, float u, Place &place) {
    const float size = fabsf(high), v = voxelrt::within(u, size > 1.0f ? kFar / size : kFar);
    const float whole = rintf(v * high);
    place.rest += fmaf(v, high, -whole) + v * low;
    place.index += whole;
}

__device__ void add_displacement(const Field &f, long long voxel, Place *place) {
    float u[3];
    for (int k = 0; k < 3; ++k)
        u[k] = k < f.first ? 0.0f : component(f, k, voxel);
    for (int k = 0; k < 3; ++k) {
        if (!f.matrix) {
            add_product(1.0f, 0.0f, u[k], place[k]);
            continue;
        }
        for (int j = 0; j < 3; ++j)
            if (f.matrix[3 * k + j] != 0.0f)
                add_product(f.matrix[3 * k + j], f.matrix[9 + 3 * k + j], u[j], place[k]);
    }
}

__device__ double limited(double value, double limit) { // a NaN stays
    return value > limit ? limit : value < -limit ? -limit : value;
}

// The places of 32 voxels of a row, from the first one's z, y, x. All lanes of the warp must call it.
__device__ void affine_places(const double *affine, long long z, long long y, long long x, int lane, Place *place) {
    const double *row = affine + 4 * (lane % 3);
    const double start = limited(row[0] * (double)z + row[1] * (double)y + row[2] * (double)x + row[3], kFar);
    const double slope = limited(row[2], kFar / 32), first = floor(start), step = rint(slope);
    const float part = (float)(slope - step), low = (float)(slope - step - (double)part);
    const float index = (float)first, rest = (float)(start - first), whole_step = (float)step;
    for (int k = 0; k < 3; ++k) {
        const float n = (float)lane, p = __shfl_sync(kAll, part, k), whole = rintf(n * p);
        const float along = fmaf(n, p, -whole) + n * __shfl_sync(kAll, low, k);
        place[k].index = __shfl_sync(kAll, index, k) + n * __shfl_sync(kAll, whole_step, k) + whole;
        place[k].rest = __shfl_sync(kAll, rest, k) + along;
    }
}

// What all entries are given, and which voxel a thread has.
struct Grids {
    long long channels, depth, rows, columns; // of the output
    long long size[3], stride[3], batch_stride, channel_stride;
    int padding;
};

struct Voxel {
    bool inside;
    long long out; // of the first channel
    Place place[3];
};

__device__ Voxel voxel_of(const Grids &g, const double *affine, long long affine_n, Field field, long long field_n,
                          long long field_z, long long field_y, long long field_x, int has_field) {
    const int lane = (int)threadIdx.x;
    const long long chunks = (g.columns + 31) / 32, lines = g.depth * g.rows, n = blockIdx.y;
    const long long line = blockIdx.x / chunks * blockDim.y + threadIdx.y, x = blockIdx.x % chunks * 32;
    Voxel made;
    made.inside = line < lines && x + lane < g.columns;
    const long long z = line / g.rows, y = line % g.rows;
    made.out = n * g.channels * lines * g.columns + line * g.columns + x + lane;
    affine_places(affine + n * affine_n, z, y, x, lane, made.place);
    if (has_field && made.inside)
        add_displacement(field, n * field_n + z * field_z + y * field_y + (x + lane) * field_x, made.place);
    for (int k = 0; k < 3; ++k) {
        const float down = floorf(made.place[k].rest);
        made.place[k].index += down;
        made.place[k].rest -= down;
    }
    return made;
}

template <typename T> __device__ void linear(const Grids &g, const Voxel &v, T *out, const T *volume) {
    const long long plane = g.depth * g.rows * g.columns;
    const bool lost = voxelrt::is_lost(v.place);
    Corners c{};
    if (!lost)
        c = voxelrt::corners_at(v.place, g.size, g.stride, g.padding);
    volume += blockIdx.y * g.batch_stride;
    for (long long channel = 0; channel < g.channels; ++channel, volume += g.channel_stride) {
        float sum = lost ? v.place[0].rest + v.place[1].rest + v.place[2].rest : 0.0f;
        for (int i = 0; i < 8 && !lost; ++i)
            sum = fmaf(c.weight[i], c.there[i] ? voxelrt::to_float(volume[c.at[i]]) : 0.0f, sum);
        out[v.out + channel * plane] = voxelrt::from_float<T>(sum);
    }
}

// The nearest voxel's bits, of two equally near ones the even one's (or as ITK has it the upper one's, which then may
// be outside); `nothing` where there is no position.
template <typename T> __device__ void nearest(const Grids &g, const Voxel &v, T *out, const T *volume, T nothing) {
    const long long plane = g.depth * g.rows * g.columns;
    const bool lost = voxelrt::is_lost(v.place);
    bool there = !lost;
    long long at = blockIdx.y * g.batch_stride;
    for (int k = 0; k < 3 && !lost; ++k) {
        const int index = (int)v.place[k].index;
        const bool itk = g.padding == voxelrt::kZerosEdges;
        const bool up = v.place[k].rest > 0.5f || (v.place[k].rest == 0.5f && ((index & 1) || itk));
        const int tap = voxelrt::tap_index(index + up, (int)g.size[k], itk ? voxelrt::kZeros : g.padding);
        there = there && tap >= 0;
        at += (tap < 0 ? 0 : tap) * g.stride[k];
    }
    for (long long channel = 0; channel < g.channels; ++channel, at += g.channel_stride)
        out[v.out + channel * plane] = lost ? nothing : there ? volume[at] : T(0);
}

} // namespace

#define VOXELRT_WARP_ARGUMENTS                                                                                         \
    const void *field, const double *affine, const float *matrix, long long channels, long long depth, long long rows, \
        long long columns, long long size_z, long long size_y, long long size_x, long long batch_stride,               \
        long long channel_stride, long long stride_z, long long stride_y, long long stride_x, long long field_n,       \
        long long field_c, long long field_z, long long field_y, long long field_x, long long affine_n, int has_field, \
        int field_type, int first, int has_matrix, int padding

#define VOXELRT_WARP_VOXEL                                                                                             \
    const Grids g{                                                                                                     \
        channels,     depth,          rows,   columns, {size_z, size_y, size_x}, {stride_z, stride_y, stride_x},       \
        batch_stride, channel_stride, padding};                                                                        \
    const Voxel voxel = voxel_of(g, affine, affine_n, {field, field_type, first, field_c, has_matrix ? matrix : 0},    \
                                 field_n, field_z, field_y, field_x, has_field);                                       \
    if (!voxel.inside)                                                                                                 \
        return;

// Two blocks: left to itself ptxas aims at more and spills.
#define VOXELRT_WARP_LINEAR(suffix, T)                                                                                 \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                               \
        voxelrt_warp3d_linear_##suffix(T *out, const T *volume, VOXELRT_WARP_ARGUMENTS) {                              \
        VOXELRT_WARP_VOXEL                                                                                             \
        linear(g, voxel, out, volume);                                                                                 \
    }

#define VOXELRT_WARP_NEAREST(suffix, T)                                                                                \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                               \
        voxelrt_warp3d_nearest_##suffix(T *out, const T *volume, VOXELRT_WARP_ARGUMENTS, T nothing) {                  \
        VOXELRT_WARP_VOXEL                                                                                             \
        nearest(g, voxel, out, volume, nothing);                                                                       \
    }

VOXELRT_WARP_LINEAR(f32, float)
VOXELRT_WARP_LINEAR(f16, __half)
VOXELRT_WARP_LINEAR(bf16, __nv_bfloat16)
VOXELRT_WARP_NEAREST(b8, unsigned char)
VOXELRT_WARP_NEAREST(b16, unsigned short)
VOXELRT_WARP_NEAREST(b32, unsigned int)
