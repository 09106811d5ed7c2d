// integrate: scaling and squaring in two buffers of interleaved vectors. A corner pair of a voxel, two neighbours'
// three components, is one 32-byte load, so that one voxel's step is four loads; each voxel's position is worked out
// once for its three components, sixteen voxels at a time. Two neighbours' sums are added at the end.
#include "warp3d/position.h"

#include <initializer_list>

namespace voxelrt::VOXELRT_ISA {
namespace {

#define INTEGRATE_PARAMS(S, A) S(i32, steps) S(i32, padding)
VOXELRT_PARAMS(IntegrateParams, INTEGRATE_PARAMS)

constexpr int kMostSteps = 30;
constexpr int64_t kTileZ = 8, kTileY = 8;
constexpr int64_t kSlack = 64; // floats behind a buffer: a pair's load reaches past its last voxel

// ---- eight floats: two neighbours' vectors and two floats nobody looks at ----

#if defined(VOXELRT_ISA_neon)
struct Eight {
    float32x4_t a, b;
};
inline Eight times(const float *p, float w) {
    return {vmulq_n_f32(vld1q_f32(p), w), vmulq_n_f32(vld1q_f32(p + 4), w)};
}
inline Eight plus(Eight sum, const float *p, float w) {
    return {vfmaq_n_f32(sum.a, vld1q_f32(p), w), vfmaq_n_f32(sum.b, vld1q_f32(p + 4), w)};
}
// Writes four floats; the fourth is anything.
inline void blend(Eight sum, float low, float high, float *to) {
    const float32x4_t next = vextq_f32(sum.a, sum.b, 3);
    vst1q_f32(to, vfmaq_n_f32(vmulq_n_f32(sum.a, low), next, high));
}
#else
using Eight = __m256;
inline Eight times(const float *p, float w) {
    return _mm256_mul_ps(_mm256_loadu_ps(p), _mm256_set1_ps(w));
}
inline Eight plus(Eight sum, const float *p, float w) {
    return _mm256_fmadd_ps(_mm256_loadu_ps(p), _mm256_set1_ps(w), sum);
}
inline void blend(Eight sum, float low, float high, float *to) {
    const __m128 first = _mm256_castps256_ps128(sum);
    const __m128 next =
        _mm256_castps256_ps128(_mm256_permutevar8x32_ps(sum, _mm256_setr_epi32(3, 4, 5, 6, 0, 0, 0, 0)));
    _mm_storeu_ps(to, _mm_fmadd_ps(next, _mm_set1_ps(high), _mm_mul_ps(first, _mm_set1_ps(low))));
}
#endif

struct Job {
    int64_t size[3], voxels;
    int padding;
};

struct Corners { // of sixteen voxels: the first corner's number, and the weights
    alignas(64) int32_t at[kLanes];
    alignas(64) float rows[4][kLanes], low[kLanes], high[kLanes];
};

void corners(const Job &job, int64_t z, int64_t y, int64_t x, const float (*moved)[kLanes], Corners &c) {
    const int64_t start[3] = {z, y, x};
    vf16 low[3], high[3];
    Places p;
    for (int k = 0; k < 3; ++k) {
        const vf16 u = within(load(moved[k]), static_cast<float>(kFar)), down = floor(u);
        const vf16 here = broadcast(static_cast<float>(start[k]));
        p.index[k] = (k == 2 ? here + lane_numbers() : here) + down;
        p.rest[k] = u - down;
    }
    if (job.padding == kBorder)
        clamp_places(p, job.size);
    for (int k = 0; k < 3; ++k) {
        const Pair pair = pair_of(p.index[k], p.rest[k], job.size[k]);
        const vm16 lost = is_nan(p.rest[k]);
        low[k] = select(lost, p.rest[k], select(pair.low_there, pair.low, zero()));
        high[k] = select(lost, p.rest[k], select(pair.high_there, pair.high, zero()));
        p.index[k] = select(is_nan(p.index[k]), zero(), p.index[k]);
    }
    store(c.rows[0], low[0] * low[1]);
    store(c.rows[1], low[0] * high[1]);
    store(c.rows[2], high[0] * low[1]);
    store(c.rows[3], high[0] * high[1]);
    store(c.low, low[2]);
    store(c.high, high[2]);
    const vi16 plane = broadcast_whole(static_cast<int32_t>(job.size[1] * job.size[2])),
               row = broadcast_whole(static_cast<int32_t>(job.size[2]));
    store_whole(c.at, to_whole(p.index[0]) * plane + to_whole(p.index[1]) * row + to_whole(p.index[2]));
}

void split(const float *vectors, float (*to)[kLanes], int count) {
    for (int i = 0; i < count; ++i)
        for (int k = 0; k < 3; ++k)
            to[k][i] = vectors[3 * i + k];
}

// One row of a squaring, from interleaved vectors to interleaved ones or, the last time, to planes.
template <class T>
void square_row(const Job &job, int64_t z, int64_t y, const float *field, float *next, T *const *planes) {
    const int64_t up = job.size[0] > 1 ? 3 * job.size[1] * job.size[2] : 0, on = job.size[1] > 1 ? 3 * job.size[2] : 0;
    const int64_t row = (z * job.size[1] + y) * job.size[2];
    for (int64_t x = 0; x < job.size[2]; x += kLanes) {
        const int count = static_cast<int>(job.size[2] - x < kLanes ? job.size[2] - x : kLanes);
        const float *here = field + 3 * (row + x);
        alignas(64) float moved[3][kLanes] = {}, found[3 * kLanes + 4];
        Corners c;
        split(here, moved, count);
        corners(job, z, y, x, moved, c);
        for (int i = 0; i < count; ++i) {
            const float *from = field + 3 * static_cast<int64_t>(c.at[i]);
            Eight sum = times(from, c.rows[0][i]);
            sum = plus(sum, from + on, c.rows[1][i]);
            sum = plus(sum, from + up, c.rows[2][i]);
            sum = plus(sum, from + up + on, c.rows[3][i]);
            blend(sum, c.low[i], c.high[i], found + 3 * i);
        }
        if (next) {
            float *to = next + 3 * (row + x);
            for (int i = 0; i < 3 * count; ++i)
                to[i] = here[i] + found[i];
            continue;
        }
        alignas(64) float parts[3][kLanes];
        split(found, parts, count);
        for (int k = 0; k < 3; ++k)
            if (planes[k])
                for (int i = 0; i < count; ++i)
                    planes[k][row + x + i] = put<T>(moved[k][i] + parts[k][i]);
    }
}

template <class T>
void scale(const Job &job, const T *const *planes, float factor, float *to, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
        for (int k = 0; k < 3; ++k)
            to[3 * i + k] = planes[k] ? get<float>(planes[k][i]) * factor : 0.0f;
    if (end == job.voxels)
        for (int64_t i = 0; i < kSlack; ++i)
            to[3 * end + i] = 0.0f;
}

template <class F> void for_rows(const Job &job, const Env &env, F &&body) {
    const int64_t deep = (job.size[0] + kTileZ - 1) / kTileZ, high = (job.size[1] + kTileY - 1) / kTileY;
    env.parallel(deep * high, [&](int64_t tile, uint32_t) {
        const int64_t z = tile / high * kTileZ, y = tile % high * kTileY;
        for (int64_t i = z; i < job.size[0] && i < z + kTileZ; ++i)
            for (int64_t j = y; j < job.size[1] && j < y + kTileY; ++j)
                body(i, j);
    });
}

template <class T> void integrate(const Step &step, const Env &env) {
    const IntegrateParams p = step.as<IntegrateParams>();
    const Tensor &in = step.in[0], &out = step.out[0];
    const int axes = in.rank - 2;
    Job job{{axes == 3 ? in.dims[2] : 1, in.dims[in.rank - 2], in.dims[in.rank - 1]}, 0, p.padding};
    job.voxels = job.size[0] * job.size[1] * job.size[2];
    float *buffers[2] = {reinterpret_cast<float *>(env.scratch), nullptr};
    buffers[1] = buffers[0] + 3 * job.voxels + kSlack;
    const float factor = 1.0f / static_cast<float>(1u << p.steps);
    for (int64_t n = 0; n < in.dims[0]; ++n) {
        const T *from[3] = {};
        T *to[3] = {};
        for (int k = 0; k < axes; ++k) {
            from[3 - axes + k] = in.as<const T>() + (n * axes + k) * job.voxels;
            to[3 - axes + k] = out.as<T>() + (n * axes + k) * job.voxels;
        }
        if (p.steps == 0) {
            std::memcpy(to[3 - axes], from[3 - axes], static_cast<size_t>(axes * job.voxels) * sizeof(T));
            continue;
        }
        env.parallel_range(job.voxels, 1 << 14, [&](int64_t begin, int64_t end, uint32_t) {
            scale(job, from, factor, buffers[0], begin, end);
        });
        std::memset(buffers[1] + 3 * job.voxels, 0, kSlack * sizeof(float));
        for (int i = 0; i < p.steps; ++i)
            for_rows(job, env, [&](int64_t z, int64_t y) {
                square_row<T>(job, z, y, buffers[i % 2], i + 1 < p.steps ? buffers[(i + 1) % 2] : nullptr, to);
            });
    }
}

uint64_t scratch(const Step &step, uint32_t) {
    const Tensor &in = step.in[0];
    int64_t voxels = 1;
    for (int i = 2; i < in.rank; ++i)
        voxels *= in.dims[i];
    return 2 * static_cast<uint64_t>(3 * voxels + kSlack) * sizeof(float);
}

Message check(const Step &step) {
    if (step.inputs != 1 || step.outputs != 1)
        return fail("takes one input and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &out = step.out[0];
    for (const Tensor *t : {&in, &out})
        if (!t->present() || t->layout != VOXELRT_LINEAR || t->pending() || (t->count() > 0 && !t->contiguous()))
            return "takes linear tensors without gaps, nothing pending";
    if (in.dtype != out.dtype || (in.dtype != VOXELRT_F32 && in.dtype != VOXELRT_F16 && in.dtype != VOXELRT_BF16))
        return "takes and gives float32, float16 or bfloat16";
    if (in.rank < 4 || in.rank > 5 || in.dims[1] != in.rank - 2 || out.rank != in.rank)
        return "a velocity field is (N, 3, Z, Y, X) or (N, 2, Y, X)";
    int64_t voxels = 1;
    for (int i = 0; i < in.rank; ++i) {
        if (in.dims[i] != out.dims[i])
            return fail("axis %d of the output is not the input's", i);
        if (in.dims[i] > kLongest)
            return fail("axis %d is too long", i);
        voxels *= i < 2 ? 1 : in.dims[i];
        if (voxels > INT32_MAX)
            return "the field has more than 2^31 voxels";
    }
    const IntegrateParams p = step.as<IntegrateParams>();
    if (p.steps < 0 || p.steps > kMostSteps)
        return fail("%d steps; at most %d are possible", p.steps, kMostSteps);
    return p.padding == kZeros || p.padding == kBorder ? nullptr : "there is no such padding";
}

Message run(const Step &step, const Env &env) {
    if (step.out[0].count() == 0)
        return nullptr;
    if (step.in[0].dtype == VOXELRT_F16)
        integrate<Half>(step, env);
    else if (step.in[0].dtype == VOXELRT_BF16)
        integrate<BFloat>(step, env);
    else
        integrate<float>(step, env);
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(integrate,
                {{"integrate", 1, IntegrateParamsText, sizeof(IntegrateParams), check, run, scratch, nullptr, nullptr}})
