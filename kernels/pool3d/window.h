// pool3d's parameters, the geometry of its windows, and what a step must satisfy.
#pragma once

#include "floats.h"

namespace voxelrt::VOXELRT_ISA {

#define WINDOW_PARAMS(S, A)                                                                                            \
    A(i32, kernel, 3) A(i32, stride, 3) A(i32, dilation, 3) A(i32, pad_begin, 3) A(i32, pad_end, 3)
#define MAX_PARAMS(S, A) WINDOW_PARAMS(S, A) S(i32, column_major)
#define AVERAGE_PARAMS(S, A) WINDOW_PARAMS(S, A) S(i32, count_include_pad)
#define LP_PARAMS(S, A) WINDOW_PARAMS(S, A) S(i32, p)
#define GLOBAL_PARAMS(S, A) S(i32, mode) S(i32, p)
VOXELRT_PARAMS(WindowParams, WINDOW_PARAMS)
VOXELRT_PARAMS(MaxParams, MAX_PARAMS)
VOXELRT_PARAMS(AverageParams, AVERAGE_PARAMS)
VOXELRT_PARAMS(LpParams, LP_PARAMS)
VOXELRT_PARAMS(GlobalParams, GLOBAL_PARAMS)

enum Mode { kMax, kAverage, kLp };

constexpr int64_t kLongestAxis = int64_t(1) << 31;
constexpr int32_t kLongestKernel = 1 << 20;

// One axis of the window. Taps outside [0, in) are padding.
struct Axis {
    int64_t kernel, stride, dilation, begin, end, in, out;

    int64_t start(int64_t o) const { return o * stride - begin; }
    // The taps [first, last) of output `o` that lie inside.
    void inside(int64_t o, int64_t &first, int64_t &last) const {
        const int64_t at = start(o);
        first = at < 0 ? (-at + dilation - 1) / dilation : 0;
        last = in > at ? (in - at + dilation - 1) / dilation : 0;
        last = last < kernel ? last : kernel;
        first = first < last ? first : last;
    }
    // How many taps lie inside the padded axis: what count_include_pad divides by.
    int64_t padded(int64_t o) const {
        const int64_t taps = (in + end - start(o) + dilation - 1) / dilation;
        return taps < kernel ? taps : kernel;
    }
    // The outputs [first, last) whose taps all lie inside.
    void interior(int64_t &first, int64_t &last) const {
        first = (begin + stride - 1) / stride;
        const int64_t room = in - 1 - (kernel - 1) * dilation + begin;
        last = room < 0 ? 0 : room / stride + 1;
        last = last < out ? last : out;
        first = first < last ? first : last;
    }
};

struct Window {
    Axis axis[3];
    Window(const Step &step) {
        const WindowParams p = step.as<WindowParams>();
        for (int i = 0; i < 3; ++i)
            axis[i] = {p.kernel[i],
                       p.stride[i],
                       p.dilation[i],
                       p.pad_begin[i],
                       p.pad_end[i],
                       step.in[0].dims[i + 2],
                       step.out[0].dims[i + 2]};
    }
    // How many rows of X outputs make a task of about so many taps.
    int64_t grain(int64_t X, double taps) const {
        const double row = static_cast<double>(X) * axis[0].kernel * axis[1].kernel * axis[2].kernel;
        return 1 + static_cast<int64_t>(taps / row);
    }
};

static Message check_volume(const Tensor &in, const Tensor &out) {
    if (!in.present() || !out.present() || in.rank != 5 || out.rank != 5 || in.dtype != out.dtype)
        return "takes and gives a tensor with the axes N, C, Z, Y, X of one dtype";
    for (int i = 0; i < 5; ++i)
        if (in.dims[i] >= kLongestAxis || out.dims[i] >= kLongestAxis)
            return "an axis is longer than 2^31";
    if (in.dims[0] != out.dims[0] || in.dims[1] != out.dims[1])
        return "input and output differ in N or C";
    if (in.layout == VOXELRT_BLOCKED16 && in.dtype != VOXELRT_F32)
        return "blocked tensors are float32";
    return nullptr;
}

static Message check_window(const Step &step) {
    if (step.inputs != 1 || step.outputs < 1 || step.outputs > 2)
        return "takes one input and one or two outputs";
    const Tensor &in = step.in[0], &out = step.out[0];
    if (Message message = check_volume(in, out))
        return message;
    if (in.layout != out.layout || (out.layout == VOXELRT_LINEAR && !out.contiguous()))
        return "input and output differ in layout, or the output has gaps";
    if (in.pending() && in.layout != VOXELRT_BLOCKED16)
        return "takes a pending affine on blocked inputs only";
    const WindowParams p = step.as<WindowParams>();
    for (int i = 0; i < 3; ++i) {
        if (p.kernel[i] < 1 || p.stride[i] < 1 || p.dilation[i] < 1 || p.pad_begin[i] < 0 || p.pad_end[i] < 0)
            return "kernel, stride and dilation are at least one, pads at least zero";
        if (p.kernel[i] > kLongestKernel)
            return "a kernel is longer than 2^20";
        const int64_t span = int64_t(p.dilation[i]) * (p.kernel[i] - 1) + 1;
        const int64_t room = in.dims[i + 2] + p.pad_begin[i] + p.pad_end[i] - span;
        const int64_t least = room < 0 ? 0 : room / p.stride[i] + 1;
        if (out.dims[i + 2] < least || out.dims[i + 2] > least + 1)
            return fail("axis %d has %lld outputs; the window makes %lld", i + 2,
                        static_cast<long long>(out.dims[i + 2]), static_cast<long long>(least));
        if (out.dims[i + 2] && (out.dims[i + 2] - 1) * p.stride[i] >= in.dims[i + 2] + p.pad_begin[i] + p.pad_end[i])
            return fail("the last window of axis %d lies outside", i + 2);
    }
    return nullptr;
}

static Message check_max(const Step &step) {
    if (Message message = check_window(step))
        return message;
    const Tensor &in = step.in[0];
    if (!is_float(in.dtype) && in.dtype != VOXELRT_I8 && in.dtype != VOXELRT_U8)
        return "takes floats, int8 or uint8";
    if (step.outputs == 1 || !step.out[1].present())
        return nullptr;
    const Tensor &index = step.out[1];
    if (in.layout != VOXELRT_LINEAR || index.layout != VOXELRT_LINEAR || index.dtype != VOXELRT_I64 ||
        index.rank != 5 || !index.contiguous())
        return "indices are a contiguous int64 tensor beside a linear output";
    for (int i = 0; i < 5; ++i)
        if (index.dims[i] != step.out[0].dims[i])
            return "indices and output differ in shape";
    return nullptr;
}

static Message check_average(const Step &step) {
    if (Message message = check_window(step))
        return message;
    return step.outputs != 1 ? "gives one output" : !is_float(step.in[0].dtype) ? "takes floats" : nullptr;
}

static Message check_lp(const Step &step) {
    if (Message message = check_average(step))
        return message;
    if (step.in[0].layout != VOXELRT_LINEAR)
        return "takes a linear tensor";
    return step.as<LpParams>().p < 1 ? "p is at least one" : nullptr;
}

} // namespace voxelrt::VOXELRT_ISA
