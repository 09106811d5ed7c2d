// spline_prefilter: a recursive filter along each axis, forth and back, on sixteen lines at a time. Along x the lines
// are turned into a buffer first; along y and z neighbouring columns are the vector.
#include "floats.h"
#include "vec.h"

#include <initializer_list>
#include <type_traits>

namespace voxelrt::VOXELRT_ISA {
namespace {

#define SPLINE_PARAMS(S, A) S(i32, reserved)
VOXELRT_PARAMS(SplineParams, SPLINE_PARAMS)

constexpr int kLanes = 16;
constexpr int64_t kLongest = 1 << 20;             // of a line: its buffer is 64 bytes an element
constexpr double kPole = -0.26794919243112270647; // sqrt(3) - 2
constexpr int64_t kReach = 28;                    // the pole to this power is below 1e-15

// How much the first elements count in the forward filter's start, where the line goes on as a mirror image.
struct Start {
    int64_t count;
    float weight[kReach + 2];

    explicit Start(int64_t size) {
        count = size < kReach + 2 ? size : kReach + 2;
        const double period = power(2 * size - 2);
        for (int64_t k = 0; k < count; ++k) {
            const bool end = k == 0 || k == size - 1;
            weight[k] = static_cast<float>((power(k) + (end ? 0.0 : power(2 * size - 2 - k))) / (1.0 - period));
        }
    }
    static double power(int64_t n) {
        double result = 1.0;
        for (int64_t i = 0; i < n && i < 600; ++i)
            result *= kPole;
        return result;
    }
};

// Sixteen lines beside each other, `stride` from element to element; in place.
template <class Load, class Store> void filter(int64_t size, const Start &start, Load &&load_at, Store &&store_at) {
    const vf16 pole = broadcast(static_cast<float>(kPole)), gain = broadcast(6.0f);
    vf16 sum = zero();
    for (int64_t k = 0; k < start.count; ++k)
        sum = fma(load_at(k), broadcast(start.weight[k]), sum);
    vf16 before = zero(), now = sum * gain;
    store_at(0, now);
    for (int64_t k = 1; k < size; ++k) {
        before = now;
        now = fma(pole, now, load_at(k) * gain);
        store_at(k, now);
    }
    constexpr double last = kPole / (kPole * kPole - 1.0);
    vf16 next = fma(pole, before, now) * broadcast(static_cast<float>(last));
    store_at(size - 1, next);
    for (int64_t k = size - 2; k >= 0; --k) {
        next = pole * (next - load_at(k));
        store_at(k, next);
    }
}

// Rows along x: turned into `buffer`, sixteen values an element, filtered, turned back.
template <class T> void along_x(const T *from, float *to, int64_t size, int count, const Start &start, float *buffer) {
    for (int i = 0; i < count; ++i)
        for (int64_t k = 0; k < size; ++k)
            buffer[k * kLanes + i] = get<float>(from[i * size + k]);
    for (int i = count; i < kLanes; ++i)
        for (int64_t k = 0; k < size; ++k)
            buffer[k * kLanes + i] = 0.0f;
    if (size > 1)
        filter(
            size, start, [&](int64_t k) { return load(buffer + k * kLanes); },
            [&](int64_t k, vf16 v) { store(buffer + k * kLanes, v); });
    for (int i = 0; i < count; ++i)
        for (int64_t k = 0; k < size; ++k)
            to[i * size + k] = buffer[k * kLanes + i];
}

template <class T> void all_x(const Step &step, const Env &env) {
    const Tensor &in = step.in[0];
    const int64_t size = in.dims[in.rank - 1], rows = in.count() / size;
    const Start start(size);
    env.parallel_range(rows, kLanes, [&](int64_t begin, int64_t end, uint32_t worker) {
        float *buffer = reinterpret_cast<float *>(env.scratch) + static_cast<int64_t>(worker) * size * kLanes;
        along_x(in.as<const T>() + begin * size, step.out[0].as<float>() + begin * size, size,
                static_cast<int>(end - begin), start, buffer);
    });
}

// Lines of `size` elements `stride` apart; the `stride` of them beside each other are the vector.
void across(float *data, int64_t count, int64_t size, int64_t stride, const Env &env) {
    if (size < 2)
        return;
    const Start start(size);
    const int64_t blocks = (stride + kLanes - 1) / kLanes;
    env.parallel(count / (size * stride) * blocks, [&](int64_t number, uint32_t) {
        const int64_t x = number % blocks * kLanes;
        float *line = data + number / blocks * size * stride + x;
        const int lanes = static_cast<int>(stride - x < kLanes ? stride - x : kLanes);
        if (lanes == kLanes)
            filter(
                size, start, [&](int64_t k) { return load(line + k * stride); },
                [&](int64_t k, vf16 v) { store(line + k * stride, v); });
        else
            filter(
                size, start, [&](int64_t k) { return load_first(line + k * stride, lanes); },
                [&](int64_t k, vf16 v) { store_first(line + k * stride, v, lanes); });
    });
}

Message check(const Step &step) {
    if (step.inputs != 1 || step.outputs != 1)
        return fail("takes one input and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &out = step.out[0];
    for (const Tensor *t : {&in, &out})
        if (!t->present() || t->layout != VOXELRT_LINEAR || t->pending() || (t->count() > 0 && !t->contiguous()))
            return "takes linear tensors without gaps, nothing pending";
    if (out.dtype != VOXELRT_F32 || bytes_of(in.dtype) > 4 || in.dtype == VOXELRT_I32 || in.dtype == VOXELRT_U32 ||
        in.dtype == VOXELRT_BOOL)
        return "takes floats of up to 32 and whole numbers of up to 16 bits and gives float32";
    if (in.rank != out.rank || in.rank < 4 || in.rank > 5)
        return "takes a volume (N, C, Z, Y, X) or (N, C, Y, X) and gives one like it";
    for (int i = 0; i < in.rank; ++i) {
        if (in.dims[i] != out.dims[i])
            return fail("axis %d of the output is not the input's", i);
        if (i >= 2 && in.dims[i] > kLongest)
            return fail("axis %d is too long", i);
    }
    return nullptr;
}

uint64_t scratch(const Step &step, uint32_t threads) {
    const Tensor &in = step.in[0];
    return static_cast<uint64_t>(in.dims[in.rank - 1]) * kLanes * sizeof(float) * threads;
}

Message run(const Step &step, const Env &env) {
    const Tensor &in = step.in[0];
    if (in.count() == 0)
        return nullptr;
    with_storage(in.dtype, [&](auto tag) {
        using T = decltype(tag);
        if constexpr (sizeof(T) <= 2 || std::is_same_v<T, float>)
            all_x<T>(step, env);
    });
    int64_t stride = in.dims[in.rank - 1];
    for (int axis = in.rank - 2; axis >= 2; stride *= in.dims[axis--])
        across(step.out[0].as<float>(), in.count(), in.dims[axis], stride, env);
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(spline_prefilter, {{"spline_prefilter", 1, SplineParamsText, sizeof(SplineParams), check, run, scratch,
                                    nullptr, nullptr}})
