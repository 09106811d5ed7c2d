// integrate: scaling and squaring between two buffers of vectors (z, y, x and a pad), so that a corner of a voxel is
// one 16-byte load. One thread a voxel; the last squaring writes the planes of the answer.
#include "cuda.cuh"

#include "interpolate.cuh"

namespace {

using voxelrt::Place;

// The planes of a field's components; where there is no z, `first` is 1.
struct Planes {
    long long batch_stride, component_stride, z, y, x;
    int first;
};

struct Voxel {
    long long n, z, y, x;
};

__device__ Voxel voxel_at(long long i, const long long *size) {
    const long long line = i / size[2], plane = line / size[1];
    return {plane / size[0], plane % size[0], line % size[1], i % size[2]};
}

// u(x) + u(x + u(x)) at voxel i of all batch elements; NaN vectors give NaN.
__device__ float4 squared(const float4 *field, long long i, const long long *size, int padding) {
    const Voxel v = voxel_at(i, size);
    const float4 here = field[i];
    const long long start[3] = {v.z, v.y, v.x}, stride[3] = {size[1] * size[2], size[2], 1};
    const float moved[3] = {here.x, here.y, here.z};
    Place place[3];
    for (int k = 0; k < 3; ++k) {
        const float u = voxelrt::within(moved[k], voxelrt::kFar), down = floorf(u);
        place[k] = {(float)start[k] + down, u - down};
    }
    float4 sum = here;
    if (voxelrt::is_lost(place)) {
        const float nothing = place[0].rest + place[1].rest + place[2].rest;
        return make_float4(nothing, nothing, nothing, 0.0f);
    }
    const voxelrt::Corners c = voxelrt::corners_at(place, size, stride, padding);
    const float4 *const mine = field + v.n * size[0] * stride[0];
    float4 found = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int corner = 0; corner < 8; ++corner)
        if (c.there[corner]) {
            const float4 u = mine[c.at[corner]];
            found.x = fmaf(c.weight[corner], u.x, found.x);
            found.y = fmaf(c.weight[corner], u.y, found.y);
            found.z = fmaf(c.weight[corner], u.z, found.z);
        }
    sum.x += found.x;
    sum.y += found.y;
    sum.z += found.z;
    return sum;
}

template <typename T>
__device__ void scale(float4 *out, const T *velocity, long long count, const long long *size, const Planes &p,
                      float factor) {
    for (long long i = voxelrt::global_thread(); i < count; i += voxelrt::global_threads()) {
        const Voxel v = voxel_at(i, size);
        const T *from = velocity + v.n * p.batch_stride + v.z * p.z + v.y * p.y + v.x * p.x;
        float u[3];
        for (int k = 0; k < 3; ++k)
            u[k] = k < p.first ? 0.0f : voxelrt::to_float(from[(k - p.first) * p.component_stride]) * factor;
        out[i] = make_float4(u[0], u[1], u[2], 0.0f);
    }
}

template <typename T>
__device__ void finish(T *out, const float4 *field, long long count, const long long *size, int first, int steps,
                       int padding) {
    const long long voxels = size[0] * size[1] * size[2];
    for (long long i = voxelrt::global_thread(); i < count; i += voxelrt::global_threads()) {
        const float4 made = steps ? squared(field, i, size, padding) : field[i];
        const float u[3] = {made.x, made.y, made.z};
        T *to = out + i / voxels * (3 - first) * voxels + i % voxels;
        for (int k = 0; k < 3; ++k)
            if (k >= first)
                to[(k - first) * voxels] = voxelrt::from_float<T>(u[k]);
    }
}

} // namespace

#define VOXELRT_INTEGRATE(suffix, T)                                                                                   \
    extern "C" __global__ void __launch_bounds__(256) voxelrt_integrate_scale_##suffix(                                \
        float4 *out, const T *velocity, long long count, long long size_z, long long size_y, long long size_x,         \
        long long batch_stride, long long component_stride, long long stride_z, long long stride_y,                    \
        long long stride_x, int first, float factor) {                                                                 \
        const long long size[3] = {size_z, size_y, size_x};                                                            \
        const Planes planes{batch_stride, component_stride, stride_z, stride_y, stride_x, first};                      \
        scale(out, velocity, count, size, planes, factor);                                                             \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        voxelrt_integrate_finish_##suffix(T *out, const float4 *field, long long count, long long size_z,              \
                                          long long size_y, long long size_x, int first, int steps, int padding) {     \
        const long long size[3] = {size_z, size_y, size_x};                                                            \
        finish(out, field, count, size, first, steps, padding);                                                        \
    }

VOXELRT_INTEGRATE(f32, float)
VOXELRT_INTEGRATE(f16, __half)
VOXELRT_INTEGRATE(bf16, __nv_bfloat16)

extern "C" __global__ void __launch_bounds__(256)
    voxelrt_integrate_square(float4 *out, const float4 *field, long long count, long long size_z, long long size_y,
                             long long size_x, int padding) {
    const long long size[3] = {size_z, size_y, size_x};
    for (long long i = voxelrt::global_thread(); i < count; i += voxelrt::global_threads())
        out[i] = squared(field, i, size, padding);
}
