// softmax, log-softmax and hardmax along an axis. The largest element is taken away first; sums are in double.
// float32 without gaps has loops of its own: along the axis where it is the last one, else across blocks of lines, and
// over the channels of a blocked volume. Everything else goes by blocks of lines through the converting loads.
#include "elements.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

enum Op : int { kSoftmax, kLogSoftmax, kHardmax, kOps };
constexpr int64_t kLines = 256; // lines that are worked on side by side
constexpr int64_t kTurned = 64; // short lines that are turned together
constexpr int64_t kShort = 96;
constexpr int kLanes = 64; // accumulators side by side along one line

#define SOFTMAX_PARAMS(S, A) S(i32, op) S(i32, axis)
VOXELRT_PARAMS(SoftmaxParams, SOFTMAX_PARAMS)

VOXELRT_INLINE float larger(float a, float x) {
    return (x > a) | (x != x) ? x : a;
}
VOXELRT_INLINE double larger(double a, double x) {
    return (x > a) | (x != x) ? x : a;
}
VOXELRT_INLINE float exponential(float x) {
    return exp_f32(x);
}
VOXELRT_INLINE double exponential(double x) {
    return __builtin_exp(x);
}

// ---- any strides, any floating dtype ----

template <class T> struct Block {
    const Elements in, out;
    const Loop &lines; // operand 0: the input, operand 1: the output
    const int64_t length, in_stride, out_stride;

    template <class F> void for_steps(int64_t first, int64_t count, F &&body) const {
        alignas(64) T buffer[kLines];
        for (int64_t j = 0; j < length; ++j) {
            const Elements at{in.data + j * in_stride * bytes_of(in.dtype), in.dtype};
            body(j, static_cast<const T *>(load(at, lines, 0, first, count, buffer)));
        }
    }
    void put(int64_t j, const T *values, int64_t first, int64_t count) const {
        const Elements at{out.data + j * out_stride * bytes_of(out.dtype), out.dtype};
        T *direct = static_cast<T *>(target(at, lines, 1, first, nullptr));
        if (direct)
            std::memcpy(direct, values, static_cast<size_t>(count) * sizeof(T));
        store(values, at, lines, 1, first, count);
    }
    void run(int op, int64_t first, int64_t count) const {
        alignas(64) T largest[kLines], result[kLines];
        alignas(64) double sums[kLines] = {};
        int64_t where[kLines] = {};
        for_steps(first, count, [&](int64_t j, const T *x) {
            for (int64_t i = 0; i < count; ++i) {
                if (op == kHardmax && j > 0 && (x[i] > largest[i] || (x[i] != x[i] && largest[i] == largest[i])))
                    where[i] = j;
                largest[i] = j == 0 ? x[i] : larger(largest[i], x[i]);
            }
        });
        if (op != kHardmax)
            for_steps(first, count, [&](int64_t, const T *x) {
                VOXELRT_INDEPENDENT
                for (int64_t i = 0; i < count; ++i)
                    sums[i] += static_cast<double>(exponential(x[i] - largest[i]));
            });
        for (int64_t i = 0; i < count; ++i)
            sums[i] = op == kLogSoftmax ? __builtin_log(sums[i]) : 1.0 / sums[i];
        for_steps(first, count, [&](int64_t j, const T *x) {
            VOXELRT_INDEPENDENT
            for (int64_t i = 0; i < count; ++i) {
                const T less = x[i] - largest[i];
                if (op == kHardmax)
                    result[i] = where[i] == j ? T(1) : T(0);
                else if (op == kLogSoftmax)
                    result[i] = less - static_cast<T>(sums[i]);
                else
                    result[i] = exponential(less) * static_cast<T>(sums[i]);
            }
            put(j, result, first, count);
        });
    }
};

template <class T> void run_blocks(const Step &step, const Env &env) {
    const SoftmaxParams params = step.as<SoftmaxParams>();
    const Tensor &in = step.in[0], &out = step.out[0];
    Loop lines;
    lines.operands = 2;
    for (int i = 0; i < in.rank; ++i) {
        const int64_t steps[2] = {in.strides[i], out.strides[i]};
        if (i != params.axis)
            lines.add(in.dims[i], steps);
    }
    lines.finish();
    const Block<T> block{{in.data, in.dtype},  {out.data, out.dtype},   lines,
                         in.dims[params.axis], in.strides[params.axis], out.strides[params.axis]};
    env.parallel_range(lines.count(), kLines,
                       [&](int64_t first, int64_t end, uint32_t) { block.run(params.op, first, end - first); });
}

// ---- float32 without gaps ----

void softmax_row(const float *x, float *y, int64_t length, bool logarithm) {
    alignas(64) float maxima[kLanes];
    alignas(64) double sums[kLanes] = {};
    for (float &m : maxima)
        m = x[0];
    for (int64_t j = 0; j < length; j += kLanes) {
        const int64_t count = j + kLanes < length ? kLanes : length - j;
        VOXELRT_INDEPENDENT
        for (int64_t lane = 0; lane < count; ++lane)
            maxima[lane] = larger(maxima[lane], x[j + lane]);
    }
    float largest = x[0];
    for (const float m : maxima)
        largest = larger(largest, m);
    for (int64_t j = 0; j < length; j += kLanes) {
        const int64_t count = j + kLanes < length ? kLanes : length - j;
        VOXELRT_INDEPENDENT
        for (int64_t lane = 0; lane < count; ++lane) {
            const float less = x[j + lane] - largest, e = exp_f32(less);
            y[j + lane] = logarithm ? less : e;
            sums[lane] += static_cast<double>(e);
        }
    }
    double sum = 0;
    for (const double s : sums)
        sum += s;
    const float scale = static_cast<float>(1.0 / sum), shift = static_cast<float>(__builtin_log(sum));
    VOXELRT_INDEPENDENT
    for (int64_t j = 0; j < length; ++j)
        y[j] = logarithm ? y[j] - shift : y[j] * scale;
}

// Lines side by side: element j of line i lies at [j * stride + i].
void softmax_lines(const float *x, float *y, int64_t length, int64_t stride, int64_t count, bool logarithm) {
    alignas(64) float largest[kLines], scales[kLines];
    alignas(64) double sums[kLines] = {};
    std::memcpy(largest, x, static_cast<size_t>(count) * sizeof(float));
    for (int64_t j = 1; j < length; ++j) {
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < count; ++i)
            largest[i] = larger(largest[i], x[j * stride + i]);
    }
    for (int64_t j = 0; j < length; ++j) {
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < count; ++i) {
            const float less = x[j * stride + i] - largest[i], e = exp_f32(less);
            y[j * stride + i] = logarithm ? less : e;
            sums[i] += static_cast<double>(e);
        }
    }
    for (int64_t i = 0; i < count; ++i)
        scales[i] = static_cast<float>(sums[i]);
    if (logarithm)
        for (int64_t i = 0; i < count; ++i)
            scales[i] = log_f32(scales[i]);
    else
        for (int64_t i = 0; i < count; ++i)
            scales[i] = 1.0f / scales[i];
    for (int64_t j = 0; j < length; ++j) {
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < count; ++i)
            y[j * stride + i] = logarithm ? y[j * stride + i] - scales[i] : y[j * stride + i] * scales[i];
    }
}

// Short lines, or the channels of voxels: turned in a buffer so that lines lie side by side. Line i starts at
// x + i * stride, its element j at offset(j) from there.
template <class F>
void softmax_turned(const float *x, float *y, int64_t length, int64_t stride, int64_t out_stride, int64_t count,
                    bool logarithm, float *buffer, const F &offset, const F &out_offset) {
    for (int64_t j = 0; j < length; ++j)
        for (int64_t i = 0; i < count; ++i)
            buffer[j * kTurned + i] = x[offset(j) + i * stride];
    softmax_lines(buffer, buffer, length, kTurned, count, logarithm);
    for (int64_t j = 0; j < length; ++j)
        for (int64_t i = 0; i < count; ++i)
            y[out_offset(j) + i * out_stride] = buffer[j * kTurned + i];
}

void run_dense(const Step &step, const Env &env) {
    const SoftmaxParams params = step.as<SoftmaxParams>();
    const Tensor &in = step.in[0], &out = step.out[0];
    const bool logarithm = params.op == kLogSoftmax;
    const int64_t length = in.dims[params.axis];
    int64_t inner = 1;
    for (int i = params.axis + 1; i < in.rank; ++i)
        inner *= in.dims[i];
    const int64_t outer = in.count() / (inner * length);
    const float *x = in.as<const float>();
    float *y = out.as<float>();
    if (inner == 1 && length > kShort) {
        env.parallel_range(outer, 1 + 8192 / length, [&](int64_t begin, int64_t end, uint32_t) {
            for (int64_t i = begin; i < end; ++i)
                softmax_row(x + i * length, y + i * length, length, logarithm);
        });
    } else if (inner == 1) {
        env.parallel_range(outer, kTurned, [&](int64_t begin, int64_t end, uint32_t worker) {
            float *buffer = reinterpret_cast<float *>(env.scratch) + worker * length * kTurned;
            auto along = [](int64_t j) { return j; };
            softmax_turned(x + begin * length, y + begin * length, length, length, length, end - begin, logarithm,
                           buffer, along, along);
        });
    } else {
        const int64_t blocks = (inner + kLines - 1) / kLines;
        env.parallel(outer * blocks, [&](int64_t task, uint32_t) {
            const int64_t first = task % blocks * kLines, offset = task / blocks * length * inner + first;
            const int64_t count = first + kLines < inner ? kLines : inner - first;
            softmax_lines(x + offset, y + offset, length, inner, count, logarithm);
        });
    }
}

// ---- the channels of a blocked volume ----

void run_blocked(const Step &step, const Env &env) {
    const bool logarithm = step.as<SoftmaxParams>().op == kLogSoftmax;
    const Tensor &in = step.in[0], &out = step.out[0];
    const int64_t C = in.dims[1], Z = in.dims[2], Y = in.dims[3], X = in.dims[4],
                  spare = (kBlock - C % kBlock) % kBlock;
    struct Offset {
        int64_t block;
        int64_t operator()(int64_t c) const { return c / kBlock * block + c % kBlock; }
    };
    const Offset from{in.strides[1]}, to{out.strides[1]};
    const int64_t pieces = (X + kTurned - 1) / kTurned;
    env.parallel(in.dims[0] * Z * Y * pieces, [&](int64_t task, uint32_t worker) {
        const int64_t first = task % pieces * kTurned, row = task / pieces, y = row % Y, z = row / Y % Z,
                      n = row / (Y * Z);
        const int64_t count = first + kTurned < X ? kTurned : X - first;
        float *buffer = reinterpret_cast<float *>(env.scratch) + worker * C * kTurned;
        const float *source = in.as<const float>() + n * in.strides[0] + z * in.strides[2] + y * in.strides[3];
        float *result = out.as<float>() + n * out.strides[0] + z * out.strides[2] + y * out.strides[3];
        softmax_turned(source + first * in.strides[4], result + first * out.strides[4], C, in.strides[4],
                       out.strides[4], count, logarithm, buffer, from, to);
        for (int64_t x = first; x < first + count; ++x)
            for (int64_t c = C; c < C + spare; ++c)
                result[to(c) + x * out.strides[4]] = 0.0f;
    });
}

// ---- the kernel ----

Message check(const Step &step) {
    if (step.inputs != 1 || step.outputs != 1 || !step.in[0].present() || !step.out[0].present())
        return fail("takes one input and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &out = step.out[0];
    const SoftmaxParams params = step.as<SoftmaxParams>();
    if (in.pending())
        return "the input is pending";
    if (in.dtype != out.dtype || !is_float(in.dtype) || in.rank != out.rank || in.layout != out.layout)
        return "input and output differ in dtype, rank or layout, or are not floating point";
    for (int i = 0; i < in.rank; ++i)
        if (in.dims[i] != out.dims[i])
            return fail("axis %d has %lld and %lld elements", i, static_cast<long long>(in.dims[i]),
                        static_cast<long long>(out.dims[i]));
    if (params.op < 0 || params.op >= kOps || params.axis < 0 || params.axis >= in.rank)
        return fail("there is no function %d or no axis %d", params.op, params.axis);
    if (in.layout == VOXELRT_BLOCKED16 && (in.dtype != VOXELRT_F32 || params.axis != 1 || params.op == kHardmax))
        return "a blocked volume is float32, and its softmax is of the channels";
    return nullptr;
}

uint64_t scratch(const Step &step, uint32_t threads) {
    const int axis = step.as<SoftmaxParams>().axis;
    const int64_t length = step.in[0].dims[axis];
    const bool turned = step.in[0].layout == VOXELRT_BLOCKED16 || length <= kShort;
    return turned ? static_cast<uint64_t>(length) * kTurned * sizeof(float) * threads : 0;
}

Message run(const Step &step, const Env &env) {
    const SoftmaxParams params = step.as<SoftmaxParams>();
    const Tensor &in = step.in[0], &out = step.out[0];
    if (in.count() == 0)
        return nullptr;
    if (in.layout == VOXELRT_BLOCKED16)
        run_blocked(step, env);
    else if (in.dtype == VOXELRT_F32 && in.contiguous() && out.contiguous() && params.op != kHardmax)
        run_dense(step, env);
    else if (in.dtype == VOXELRT_F64)
        run_blocks<double>(step, env);
    else
        run_blocks<float>(step, env);
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(softmax,
                {{"softmax", 1, SoftmaxParamsText, sizeof(SoftmaxParams), check, run, scratch, nullptr, nullptr}})
