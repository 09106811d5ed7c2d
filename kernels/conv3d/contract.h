// What a convolution step is made of: parameters, operands, and the checks that both kernels of this folder share.
#pragma once

#include "activation.h"
#include "conv_shape.h"

namespace voxelrt::VOXELRT_ISA {

#define CONV_PARAMS(S, A)                                                                                              \
    S(i32, algorithm)                                                                                                  \
    A(i32, kernel, 3)                                                                                                  \
    A(i32, stride, 3)                                                                                                  \
    A(i32, dilation, 3)                                                                                                \
    A(i32, pad_begin, 3)                                                                                               \
    A(i32, pad_end, 3)                                                                                                 \
    S(i32, groups)                                                                                                     \
    S(i32, channels0)                                                                                                  \
    S(i32, activation)                                                                                                 \
    S(f32, alpha)                                                                                                      \
    S(f32, beta)                                                                                                       \
    S(i32, output_channel_offset)                                                                                      \
    S(i32, precision)
VOXELRT_PARAMS(ConvParams, CONV_PARAMS)

enum ConvInput { kSource0, kSource1, kWeights, kBias, kResidual };
enum ConvOutput { kDestination, kStatistics };

// The numbers of a step, read once.
struct ConvShape {
    int64_t n, channels0, channels1, in_channels, out_channels, groups;
    Axes in, out, kernel, stride, dilation, pad;
    int64_t taps() const { return kernel.z * kernel.y * kernel.x; }
    int64_t in_group() const { return in_channels / groups; }
    int64_t out_group() const { return out_channels / groups; }
};

static ConvShape conv_shape(const Step &step) {
    const ConvParams &p = step.as<ConvParams>();
    const Tensor &src = step.in[kSource0], &other = step.in[kSource1], &dst = step.out[kDestination];
    ConvShape s{};
    s.n = src.dims[0];
    s.channels0 = src.dims[1];
    s.channels1 = other.present() ? other.dims[1] : 0;
    s.in_channels = s.channels0 + s.channels1;
    s.out_channels = dst.dims[1];
    s.groups = p.groups;
    for (int i = 0; i < 3; ++i) {
        s.in[i] = src.dims[2 + i];
        s.out[i] = dst.dims[2 + i];
        s.kernel[i] = p.kernel[i];
        s.stride[i] = p.stride[i];
        s.dilation[i] = p.dilation[i];
        s.pad[i] = p.pad_begin[i];
    }
    return s;
}

// The first of two sources counts whole blocks: its lanes past the last channel are zeros, and so are their weights.
static inline ConvShape blocked_shape(const Step &step) {
    ConvShape s = conv_shape(step);
    if (s.channels1)
        s.in_channels = ceil_div(s.channels0, kBlock) * kBlock + s.channels1;
    return s;
}

static Message check_conv_params(const ConvParams &p, int algorithm, int last_algorithm) {
    if (p.algorithm < algorithm || p.algorithm > last_algorithm)
        return fail("algorithm %d is not one of this kernel's", p.algorithm);
    if (p.precision != 0)
        return fail("precision %d is unknown; 0 is float32", p.precision);
    if (p.output_channel_offset != 0)
        return fail("an output channel offset of %d; only 0 is supported", p.output_channel_offset);
    if (p.activation < 0 || p.activation >= kActivations)
        return fail("activation %d is unknown", p.activation);
    if (p.groups < 1)
        return fail("groups is %d", p.groups);
    for (int i = 0; i < 3; ++i)
        if (p.kernel[i] < 1 || p.stride[i] < 1 || p.dilation[i] < 1 || p.pad_begin[i] < 0 || p.pad_end[i] < 0 ||
            p.kernel[i] > kMostParameter || p.stride[i] > kMostParameter || p.dilation[i] > kMostParameter ||
            p.pad_begin[i] > kMostParameter || p.pad_end[i] > kMostParameter)
            return fail("axis %d has kernel %d, stride %d, dilation %d, padding %d and %d", i, p.kernel[i], p.stride[i],
                        p.dilation[i], p.pad_begin[i], p.pad_end[i]);
    if (int64_t(p.kernel[0]) * p.kernel[1] > kMostParameter ||
        int64_t(p.kernel[0]) * p.kernel[1] * p.kernel[2] > kMostParameter)
        return fail("a kernel of %d x %d x %d taps", p.kernel[0], p.kernel[1], p.kernel[2]);
    return nullptr;
}

// All that does not depend on the kernel: counts, ranks, and how the dims follow from each other.
static Message check_conv(const Step &step, int algorithm = 0, int last_algorithm = 0) {
    if (step.inputs < 3 || step.inputs > 5 || step.outputs < 1 || step.outputs > 2)
        return fail("takes 3 to 5 inputs and 1 or 2 outputs, not %d and %d", step.inputs, step.outputs);
    const ConvParams &p = step.as<ConvParams>();
    if (Message message = check_conv_params(p, algorithm, last_algorithm))
        return message;
    const Tensor &src = step.in[kSource0], &other = step.in[kSource1], &weights = step.in[kWeights],
                 &bias = step.input(kBias), &residual = step.input(kResidual), &dst = step.out[kDestination];
    if (!src.present() || !weights.present() || !dst.present() || src.rank != 5 || dst.rank != 5)
        return "source, weights and destination are there, and source and destination have the axes N, C, Z, Y, X";
    for (int i = 0; i < 5; ++i)
        if (src.dims[i] > kMostElements || dst.dims[i] > kMostElements)
            return fail("axis %d is too long", i);
    if (src.dims[0] != dst.dims[0])
        return "source and destination differ in N";
    if (other.present()) {
        if (other.rank != 5 || other.dtype != src.dtype || other.dims[1] > kMostElements)
            return "the second source differs from the first in rank or dtype";
        for (int i = 0; i < 5; ++i)
            if (i != 1 && other.dims[i] != src.dims[i])
                return fail("the sources differ in axis %d", i);
    }
    if (p.channels0 != src.dims[1])
        return fail("channels0 is %d, but the first source has %lld channels", p.channels0,
                    static_cast<long long>(src.dims[1]));
    const ConvShape s = conv_shape(step);
    if (s.in_channels % s.groups || s.out_channels % s.groups)
        return fail("%lld input and %lld output channels do not divide into %lld groups",
                    static_cast<long long>(s.in_channels), static_cast<long long>(s.out_channels),
                    static_cast<long long>(s.groups));
    for (int i = 0; i < 3; ++i) {
        const int64_t room = s.in[i] + p.pad_begin[i] + p.pad_end[i] - s.dilation[i] * (s.kernel[i] - 1) - 1;
        const int64_t expected = room < 0 ? 0 : room / s.stride[i] + 1;
        if (s.out[i] != expected)
            return fail("axis %d of the destination has %lld positions, not %lld", i, static_cast<long long>(s.out[i]),
                        static_cast<long long>(expected));
    }
    if (src.dtype != dst.dtype)
        return "source and destination differ in dtype";
    if (bias.present() && (bias.rank != 1 || bias.dims[0] != s.out_channels || bias.dtype != src.dtype ||
                           !bias.contiguous() || bias.pending()))
        return "the bias has one number an output channel";
    if (residual.present() && (!same_dims(residual, dst) || residual.dtype != dst.dtype ||
                               residual.layout != dst.layout || residual.pending()))
        return "the residual has the destination's dims, dtype and layout, and nothing pending";
    return nullptr;
}

// A step as the shared checks know it: of float32. Its operands of floats may be stored in bfloat16, its precision
// is another; the kernels that allow this check both themselves.
struct AsFloat32 {
    ConvParams params;
    Tensor in[kResidual + 1], out[2];
    Step step;

    AsFloat32(const Step &given) : params(given.as<ConvParams>()) {
        params.precision = 0;
        step = {&params, in, out, given.inputs <= kResidual ? given.inputs : kResidual + 1, given.outputs};
        for (int i = 0; i <= kResidual && i < given.inputs; ++i)
            in[i] = seen(given.in[i]);
        for (int i = 0; i < 2 && i < given.outputs; ++i)
            out[i] = seen(given.out[i]);
    }
    AsFloat32(const AsFloat32 &) = delete;

  private:
    static Tensor seen(Tensor t) {
        if (t.dtype == VOXELRT_BF16 && t.layout == VOXELRT_BLOCKED16)
            t.dtype = VOXELRT_F32;
        return t;
    }
};

// What the kernels of blocked volumes share.
static inline Message check_statistics(const Step &step) {
    if (step.outputs < 2 || !step.out[kStatistics].present())
        return nullptr;
    const Tensor &statistics = step.out[kStatistics], &dst = step.out[kDestination];
    if (statistics.rank != 3 || statistics.dims[0] != dst.dims[0] || statistics.dims[1] != dst.dims[1] ||
        statistics.dims[2] != 2 || statistics.dtype != VOXELRT_F64 || !statistics.contiguous())
        return "the statistics are (N, O, 2), float64";
    if (step.as<ConvParams>().activation != kNoActivation)
        return "statistics are of a convolution without an activation";
    return nullptr;
}

static Message check_strides(const Step &step) {
    const Tensor *volumes[] = {&step.in[kSource0], &step.in[kSource1], &step.out[kDestination], &step.input(kResidual)};
    for (const Tensor *t : volumes)
        for (int i = 0; i < 5 && t->present(); ++i)
            if (t->strides[i] > kMostElements || t->strides[i] < -kMostElements)
                return "a stride is too large";
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA
