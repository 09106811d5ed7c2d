// median: sixteen voxels side by side, the medians of their windows by a network of min and max (forgetful selection).
#include "halo.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

#define MEDIAN_PARAMS(S, A) A(i64, radius, 3)
VOXELRT_PARAMS(MedianParams, MEDIAN_PARAMS)

constexpr int64_t kBoxPlanes = 8, kBoxRows = 32;
constexpr int64_t kMostValues = 2197; // 13^3

inline void exchange(vf16 &a, vf16 &b) {
    const vf16 low = min(a, b);
    b = max(a, b);
    a = low;
}

// The smallest of v[0, m) moves to v[0], the largest to v[m - 1].
inline __attribute__((always_inline)) void spread(vf16 *v, int m) {
#pragma GCC unroll 16
    for (int i = 0; i < m / 2; ++i)
        exchange(v[i], v[m - 1 - i]);
#pragma GCC unroll 16
    for (int i = 1; i < (m + 1) / 2; ++i)
        exchange(v[0], v[i]);
#pragma GCC unroll 16
    for (int i = m / 2; i < m - 1; ++i)
        exchange(v[i], v[m - 1]);
}

// Half the values and two more hold the median for certain: the smallest and the largest of them are not it and give
// way to the next value, until three are left.
template <int N> struct Network {
    static constexpr int kHeld = N / 2 + 2;
    template <int M> static inline __attribute__((always_inline)) vf16 reduce(vf16 *held, const float *const *next) {
        spread(held, M);
        if constexpr (M == 3)
            return held[1];
        else {
            held[0] = load(next[2 * kHeld - M]);
            return reduce<M - 1>(held, next);
        }
    }
    static inline vf16 median(const float *const *at) {
        if constexpr (N == 1)
            return load(at[0]);
        else {
            vf16 held[kHeld];
#pragma GCC unroll 16
            for (int i = 0; i < kHeld; ++i)
                held[i] = load(at[i]);
            return reduce<kHeld>(held, at);
        }
    }
};

vf16 median_of_any(const float *const *at, int count, vf16 *held) {
    int m = count / 2 + 2, next = m;
    for (int i = 0; i < m; ++i)
        held[i] = load(at[i]);
    for (;; --m) {
        for (int i = 0; i < m / 2; ++i)
            exchange(held[i], held[m - 1 - i]);
        for (int i = 1; i < (m + 1) / 2; ++i)
            exchange(held[0], held[i]);
        for (int i = m / 2; i < m - 1; ++i)
            exchange(held[i], held[m - 1]);
        if (m == 3)
            return held[1];
        held[0] = load(at[next++]);
    }
}

struct Window {
    int64_t radius[3];
    int count = 1;
    explicit Window(const Step &step) {
        const MedianParams p = step.as<MedianParams>();
        for (int i = 0; i < 3; ++i) {
            radius[i] = p.radius[i];
            count *= static_cast<int>(2 * radius[i] + 1);
        }
    }
};

void row(const Box &box, const Window &window, int64_t z, int64_t y, float *out, int64_t width) {
    const float *at[kMostValues];
    vf16 held[kMostValues / 2 + 2];
    int count = 0;
    for (int64_t dz = -window.radius[0]; dz <= window.radius[0]; ++dz)
        for (int64_t dy = -window.radius[1]; dy <= window.radius[1]; ++dy)
            for (int64_t dx = -window.radius[2]; dx <= window.radius[2]; ++dx)
                at[count++] = box.row(z + dz, y + dy) + dx;
    for (int64_t x = 0; x < width; x += kLanes) {
        const vf16 found = count == 27   ? Network<27>::median(at)
                           : count == 9  ? Network<9>::median(at)
                           : count == 25 ? Network<25>::median(at)
                           : count == 1  ? Network<1>::median(at)
                                         : median_of_any(at, count, held);
        store_first(out + x, found, static_cast<int>(width - x < kLanes ? width - x : kLanes));
        for (int i = 0; i < count; ++i)
            at[i] += kLanes;
    }
}

Message check(const Step &step) {
    if (const Message wrong = check_volumes(step))
        return wrong;
    const MedianParams p = step.as<MedianParams>();
    int64_t count = 1;
    for (int i = 0; i < 3; ++i) {
        if (p.radius[i] < 0 || p.radius[i] > kMostValues)
            return fail("the radius of axis %d is out of range", i);
        count *= 2 * p.radius[i] + 1;
        if (count > kMostValues)
            return fail("a window of more than %d voxels", static_cast<int>(kMostValues));
    }
    return nullptr;
}

void box_of(const Step &step, int64_t size[3]) {
    size[0] = task_size(step.in[0].dims[1], kBoxPlanes);
    size[1] = task_size(step.in[0].dims[2], kBoxRows);
    size[2] = step.in[0].dims[3];
}

uint64_t scratch(const Step &step, uint32_t threads) {
    int64_t size[3];
    box_of(step, size);
    return threads * Box::floats(size, Window(step).radius) * sizeof(float);
}

Message run(const Step &step, const Env &env) {
    if (step.in[0].count() == 0)
        return nullptr;
    const Window window(step);
    const int64_t *dims = step.in[0].dims + 1;
    int64_t size[3];
    box_of(step, size);
    const uint64_t each = Box::floats(size, window.radius);
    const int64_t deep = (dims[0] + size[0] - 1) / size[0], high = (dims[1] + size[1] - 1) / size[1];
    env.parallel(step.in[0].dims[0] * deep * high, [&](int64_t index, uint32_t worker) {
        const int64_t volume = index / high / deep * dims[0] * dims[1] * dims[2];
        Box box{};
        box.begin[0] = index / high % deep * size[0];
        box.begin[1] = index % high * size[1];
        for (int i = 0; i < 3; ++i) {
            box.size[i] = dims[i] - box.begin[i] < size[i] ? dims[i] - box.begin[i] : size[i];
            box.halo[i] = window.radius[i];
        }
        box.left = Box::left_of(window.radius[2]);
        box.stride = Box::stride_of(dims[2], window.radius[2]);
        box.data = reinterpret_cast<float *>(env.scratch) + worker * each;
        box.fill(step.in[0].as<float>() + volume, dims, Border::edge);
        for (int64_t z = box.begin[0]; z < box.begin[0] + box.size[0]; ++z)
            for (int64_t y = box.begin[1]; y < box.begin[1] + box.size[1]; ++y)
                row(box, window, z, y, step.out[0].as<float>() + volume + (z * dims[1] + y) * dims[2], dims[2]);
    });
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(median, {{"median", 1, MedianParamsText, sizeof(MedianParams), check, run, scratch, nullptr, nullptr}})
