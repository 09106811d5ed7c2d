// integrate: scaling and squaring in two buffers of rows: x's of one component, then of the next. Sixteen voxels of a
// row look near each other where a field is smooth: then each row that one of them needs is loaded once and its voxels
// are picked by permutes, weighted with 0 where a voxel does not need that row. Elsewhere every voxel's pairs are
// loaded.
#include "warp3d/sample.h"

#include <initializer_list>

namespace voxelrt::VOXELRT_ISA {
namespace {

#define INTEGRATE_PARAMS(S, A) S(i32, steps) S(i32, padding)
VOXELRT_PARAMS(IntegrateParams, INTEGRATE_PARAMS)

constexpr int kMostSteps = 30;
constexpr int64_t kTileZ = 8, kTileY = 8;
constexpr int64_t kWindow = 32;      // floats of a row of which permutes pick
constexpr int64_t kSlack = 64;       // floats behind a buffer: a window reaches past its last voxel
constexpr int64_t kMostRows = 16;    // of all planes, beyond which loading pairs is cheaper
constexpr int64_t kAhead = 3;        // planes
constexpr int64_t kCached = 1 << 20; // voxels whose two buffers may stay in a cache

struct Job {
    int64_t size[3], voxels;
    int padding;

    int64_t row() const { return 3 * size[2]; }
    int64_t plane() const { return size[1] * row(); }
};

struct Corners { // of sixteen voxels: the first of the two neighbours along each axis, and their weights
    vf16 index[3], low[3], high[3];
};

// Where sixteen voxels look, before anything is said of what lies outside.
Places places(const Job &job, int64_t z, int64_t y, int64_t x, const vf16 *moved, vm16 used) {
    const int64_t start[3] = {z, y, x};
    Places p;
    for (int k = 0; k < 3; ++k) {
        const vf16 u = select(used, within(moved[k], static_cast<float>(kFar)), zero()), down = floor(u);
        const vf16 here = broadcast(static_cast<float>(start[k]));
        p.index[k] =
            (k == 2 ? min(broadcast(static_cast<float>(job.size[2] - 1)), here + lane_numbers()) : here) + down;
        p.rest[k] = u - down;
    }
    return p;
}

Corners corners(const Job &job, Places p) {
    Corners c;
    if (job.padding == kBorder)
        clamp_places(p, job.size);
    for (int k = 0; k < 3; ++k) {
        const Pair pair = pair_of(p.index[k], p.rest[k], job.size[k]);
        const vm16 lost = is_nan(p.rest[k]);
        c.low[k] = select(lost, p.rest[k], select(pair.low_there, pair.low, zero()));
        c.high[k] = select(lost, p.rest[k], select(pair.high_there, pair.high, zero()));
        c.index[k] = select(is_nan(p.index[k]), zero(), p.index[k]);
    }
    return c;
}

#if !defined(VOXELRT_ISA_neon)
// Permutes pick two neighbours at each of sixteen places from a window of each row: of all lanes one of 32 floats, or
// of each half of the lanes its own of 16.
#if defined(VOXELRT_ISA_avx512)
inline float lowest(vf16 a) { // of all lanes, none of which is NaN
    return _mm512_reduce_min_ps(a.v);
}
inline float highest(vf16 a) {
    return _mm512_reduce_max_ps(a.v);
}

struct Picks {
    __m512i left, right;
    int64_t begin;

    bool find(vf16 x, float low, float high) {
        begin = static_cast<int64_t>(low);
        left = _mm512_cvttps_epi32(_mm512_sub_ps(x.v, _mm512_set1_ps(low)));
        right = _mm512_add_epi32(left, _mm512_set1_epi32(1));
        return high - low < kWindow - 1;
    }
    void pick(const float *row, vf16 &low, vf16 &high) const {
        const __m512 a = _mm512_loadu_ps(row + begin), b = _mm512_loadu_ps(row + begin + 16);
        low.v = _mm512_permutex2var_ps(a, left, b);
        high.v = _mm512_permutex2var_ps(a, right, b);
    }
};
#else
inline __m128 halves(__m256 a, bool least) {
    const __m128 x = _mm256_castps256_ps128(a), y = _mm256_extractf128_ps(a, 1);
    const auto of = [&](__m128 i, __m128 j) { return least ? _mm_min_ps(i, j) : _mm_max_ps(i, j); };
    const __m128 four = of(x, y), two = of(four, _mm_movehl_ps(four, four));
    return of(two, _mm_movehdup_ps(two));
}
inline float lowest(__m256 a) {
    return _mm_cvtss_f32(halves(a, true));
}
inline float highest(__m256 a) {
    return _mm_cvtss_f32(halves(a, false));
}
inline float lowest(vf16 a) { // of all lanes, none of which is NaN
    return lowest(_mm256_min_ps(a.a, a.b));
}
inline float highest(vf16 a) {
    return highest(_mm256_max_ps(a.a, a.b));
}

struct Eight {
    __m256i left, right;
    __m256 left_far, right_far; // picked from the window's second vector
    int64_t begin;

    bool find(__m256 x) {
        const float low = lowest(x);
        begin = static_cast<int64_t>(low);
        left = _mm256_cvttps_epi32(_mm256_sub_ps(x, _mm256_set1_ps(low)));
        right = _mm256_add_epi32(left, _mm256_set1_epi32(1));
        left_far = _mm256_castsi256_ps(_mm256_cmpgt_epi32(left, _mm256_set1_epi32(7)));
        right_far = _mm256_castsi256_ps(_mm256_cmpgt_epi32(right, _mm256_set1_epi32(7)));
        return highest(x) - low < kWindow / 2 - 1;
    }
    void pick(const float *row, __m256 &low, __m256 &high) const {
        const __m256 a = _mm256_loadu_ps(row + begin), b = _mm256_loadu_ps(row + begin + 8);
        low = _mm256_blendv_ps(_mm256_permutevar8x32_ps(a, left), _mm256_permutevar8x32_ps(b, left), left_far);
        high = _mm256_blendv_ps(_mm256_permutevar8x32_ps(a, right), _mm256_permutevar8x32_ps(b, right), right_far);
    }
};

struct Picks {
    Eight a, b;

    bool find(vf16 x, float, float) { return a.find(x.a) && b.find(x.b); }
    void pick(const float *row, vf16 &low, vf16 &high) const {
        a.pick(row, low.a, high.a);
        b.pick(row, low.b, high.b);
    }
};
#endif

struct Box { // what sixteen voxels need: planes and rows from the first, and the places along x
    int64_t first[2], count[2];
    Picks picks;

    // False where a place is no number, outside, or one of too many.
    bool find(const Job &job, const vf16 *index) {
        float low[3], high[3];
        for (int k = 0; k < 3; ++k) {
            low[k] = lowest(index[k]);
            high[k] = highest(index[k]);
            if (!(low[k] >= 0.0f && high[k] < static_cast<float>(job.size[k] - 1)))
                return false;
        }
        if (!((high[0] - low[0] + 2.0f) * (high[1] - low[1] + 2.0f) <= static_cast<float>(kMostRows)))
            return false;
        for (int k = 0; k < 2; ++k) {
            first[k] = static_cast<int64_t>(low[k]);
            count[k] = static_cast<int64_t>(high[k] - low[k]) + 2;
        }
        return picks.find(index[2], low[2], high[2]);
    }
};

// Each plane's (or row's) share in what the voxels look at.
inline void shares(const vf16 &index, const vf16 &rest, int64_t first, int64_t count, vf16 *share) {
    const vf16 other = broadcast(1.0f) - rest;
    vf16 above = zero(); // of the upper neighbours of the row before
    for (int64_t i = 0; i < count; ++i) {
        const vf16 number = broadcast(static_cast<float>(first + i));
        const vm16 here = (index >= number) & (number >= index);
        share[i] = select(here, other, above);
        above = select(here, rest, zero());
    }
}

// Where a vector's voxels look, of all three components. False where they look outside or too far apart.
inline bool near(const Job &job, const float *field, const Places &p, vf16 *found) {
    Box box;
    if (!box.find(job, p.index))
        return false;
    const float *from = field + box.first[0] * job.plane() + box.first[1] * job.row();
    vf16 up[kMostRows], on[kMostRows];
    shares(p.index[0], p.rest[0], box.first[0], box.count[0], up);
    shares(p.index[1], p.rest[1], box.first[1], box.count[1], on);
    vf16 left[3] = {zero(), zero(), zero()}, right[3] = {zero(), zero(), zero()};
    for (int64_t i = 0; i < box.count[0]; ++i, from += job.plane())
        for (int64_t j = 0; j < box.count[1]; ++j) {
            const vf16 weight = up[i] * on[j];
            for (int k = 0; k < 3; ++k) {
                vf16 low, high;
                box.picks.pick(from + j * job.row() + k * job.size[2], low, high);
                left[k] = fma(weight, low, left[k]);
                right[k] = fma(weight, high, right[k]);
            }
        }
    for (int k = 0; k < 3; ++k)
        found[k] = left[k] + p.rest[2] * (right[k] - left[k]);
    return !any(is_nan(found[0] + found[1] + found[2])); // a voxel that is no number may have had no share
}
#else
bool near(const Job &, const float *, const Places &, vf16 *) {
    return false;
}
#endif

void far(const Job &job, const float *field, const Corners &c, vf16 *found) {
    alignas(64) int32_t index[3][kLanes];
    int64_t at[kLanes];
    for (int k = 0; k < 3; ++k)
        store_whole(index[k], to_whole(c.index[k]));
    for (int i = 0; i < kLanes; ++i)
        at[i] = index[0][i] * job.plane() + index[1][i] * job.row() + index[2][i];
    const int64_t up = job.size[0] > 1 ? job.plane() : 0, on = job.size[1] > 1 ? job.row() : 0;
    for (int k = 0; k < 3; ++k) {
        const auto rows = [&](const float *from, vf16 weight, vf16 &left, vf16 &right) {
            vf16 low, high;
            load_pairs(from, at, low, high);
            left = fma(weight, low, left);
            right = fma(weight, high, right);
        };
        const float *from = field + k * job.size[2];
        vf16 left = zero(), right = zero();
        rows(from, c.low[0] * c.low[1], left, right);
        rows(from + on, c.low[0] * c.high[1], left, right);
        rows(from + up, c.high[0] * c.low[1], left, right);
        rows(from + up + on, c.high[0] * c.high[1], left, right);
        found[k] = fma(right, c.high[2], left * c.low[2]);
    }
}

inline vf16 load_some(const float *from, int count) {
    return count == kLanes ? load(from) : load_first(from, count);
}

template <class T> void store_some(T *to, vf16 value, int count, bool past_caches) {
    if constexpr (std::is_same_v<T, float>) {
        if (past_caches && count == kLanes && reinterpret_cast<uintptr_t>(to) % 64 == 0)
            stream(to, value);
        else
            count == kLanes ? store(to, value) : store_first(to, value, count);
    } else {
        alignas(64) float lanes[kLanes];
        store(lanes, value);
        for (int i = 0; i < count; ++i)
            to[i] = put<T>(lanes[i]);
    }
}

// One row of a squaring, from buffer to buffer or, the last time, to planes.
template <class T>
void square_row(const Job &job, int64_t z, int64_t y, const float *field, float *next, T *const *planes) {
    const int64_t row = z * job.size[1] + y;
    const bool past = job.voxels > kCached; // a step does not look at what it has written
    for (int64_t x = 0; x < job.size[2]; x += kLanes) {
        const int count = static_cast<int>(job.size[2] - x < kLanes ? job.size[2] - x : kLanes);
        const float *here = field + row * job.row() + x;
        vf16 moved[3], found[3];
        for (int k = 0; k < 3; ++k)
            moved[k] = load_some(here + k * job.size[2], count);
        for (int k = 0; k < 3; ++k) // the processor does not foresee the step to the next plane
            __builtin_prefetch(here + kAhead * job.plane() + k * job.size[2]);
        const Places p = places(job, z, y, x, moved, first_lanes(count));
        if (!near(job, field, p, found))
            far(job, field, corners(job, p), found);
        for (int k = 0; k < 3; ++k)
            if (next)
                store_some(next + row * job.row() + k * job.size[2] + x, moved[k] + found[k], count, past);
            else if (planes[k])
                store_some(planes[k] + row * job.size[2] + x, moved[k] + found[k], count, past);
    }
}

// Rows of the planes, made smaller, into a buffer's.
template <class T>
void scale(const Job &job, const T *const *planes, float factor, float *to, int64_t begin, int64_t end) {
    const bool past = job.voxels > kCached;
    for (int64_t row = begin; row < end; ++row)
        for (int k = 0; k < 3; ++k) {
            const T *from = planes[k] ? planes[k] + row * job.size[2] : nullptr;
            float *made = to + row * job.row() + k * job.size[2];
            for (int64_t x = 0; x < job.size[2]; x += kLanes) {
                const int count = static_cast<int>(job.size[2] - x < kLanes ? job.size[2] - x : kLanes);
                alignas(64) float lanes[kLanes] = {};
                for (int i = 0; from && i < count; ++i)
                    lanes[i] = get<float>(from[x + i]) * factor;
                store_some(made + x, load(lanes), count, past);
            }
        }
    stream_fence();
}

template <class F> void for_rows(const Job &job, const Env &env, F &&body) {
    const int64_t deep = (job.size[0] + kTileZ - 1) / kTileZ, high = (job.size[1] + kTileY - 1) / kTileY;
    env.parallel(deep * high, [&](int64_t tile, uint32_t) {
        const int64_t z = tile / high * kTileZ, y = tile % high * kTileY;
        for (int64_t i = z; i < job.size[0] && i < z + kTileZ; ++i)
            for (int64_t j = y; j < job.size[1] && j < y + kTileY; ++j)
                body(i, j);
        stream_fence();
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
    for (float *buffer : buffers)
        std::memset(buffer + 3 * job.voxels, 0, kSlack * sizeof(float));
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
        const int64_t grain = (1 << 14) / job.size[2] + 1;
        env.parallel_range(job.size[0] * job.size[1], grain, [&](int64_t first, int64_t last, uint32_t) {
            scale(job, from, factor, buffers[0], first, last);
        });
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
