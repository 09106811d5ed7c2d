// What a transposed convolution's step is made of, and the checks that both kernels of this folder share.
#pragma once

#include "activation.h"
#include "conv_shape.h"

namespace voxelrt::VOXELRT_ISA {

#define TRANSPOSE_PARAMS(S, A)                                                                                         \
    S(i32, algorithm)                                                                                                  \
    A(i32, kernel, 3)                                                                                                  \
    A(i32, stride, 3)                                                                                                  \
    A(i32, dilation, 3)                                                                                                \
    A(i32, pad_begin, 3)                                                                                               \
    A(i32, pad_end, 3)                                                                                                 \
    A(i32, output_padding, 3)                                                                                          \
    S(i32, groups)                                                                                                     \
    S(i32, activation)                                                                                                 \
    S(f32, alpha)                                                                                                      \
    S(f32, beta)                                                                                                       \
    S(i32, precision)
VOXELRT_PARAMS(TransposeParams, TRANSPOSE_PARAMS)

enum TransposeInput { kSource, kWeights, kBias };

struct TransposeShape {
    int64_t n, in_channels, out_channels, groups;
    Axes in, out, kernel, stride, dilation, pad;
    int64_t taps() const { return kernel.z * kernel.y * kernel.x; }
    int64_t in_group() const { return in_channels / groups; }
    int64_t out_group() const { return out_channels / groups; }
};

static TransposeShape transpose_shape(const Step &step) {
    const TransposeParams &p = step.as<TransposeParams>();
    const Tensor &src = step.in[kSource], &dst = step.out[0];
    TransposeShape s{};
    s.n = src.dims[0];
    s.in_channels = src.dims[1];
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

static Message check_transpose_params(const TransposeParams &p) {
    if (p.algorithm != 0 || p.precision != 0)
        return fail("algorithm %d and precision %d; only 0 is known of either", p.algorithm, p.precision);
    if (p.activation < 0 || p.activation >= kActivations)
        return fail("activation %d is unknown", p.activation);
    if (p.groups < 1)
        return fail("groups is %d", p.groups);
    const auto within = [](int32_t value, int32_t lowest) { return value >= lowest && value <= kMostParameter; };
    for (int i = 0; i < 3; ++i)
        if (!within(p.kernel[i], 1) || !within(p.stride[i], 1) || !within(p.dilation[i], 1) ||
            !within(p.pad_begin[i], 0) || !within(p.pad_end[i], 0) || !within(p.output_padding[i], 0))
            return fail("axis %d has kernel %d, stride %d, dilation %d, padding %d and %d, output padding %d", i,
                        p.kernel[i], p.stride[i], p.dilation[i], p.pad_begin[i], p.pad_end[i], p.output_padding[i]);
    if (int64_t(p.kernel[0]) * p.kernel[1] > kMostParameter ||
        int64_t(p.kernel[0]) * p.kernel[1] * p.kernel[2] > kMostParameter)
        return fail("a kernel of %d x %d x %d taps", p.kernel[0], p.kernel[1], p.kernel[2]);
    return nullptr;
}

static Message check_transpose(const Step &step) {
    if (step.inputs < 2 || step.inputs > 3 || step.outputs != 1)
        return fail("takes 2 or 3 inputs and one output, not %d and %d", step.inputs, step.outputs);
    const TransposeParams &p = step.as<TransposeParams>();
    if (Message message = check_transpose_params(p))
        return message;
    const Tensor &src = step.in[kSource], &weights = step.in[kWeights], &bias = step.input(kBias), &dst = step.out[0];
    if (!src.present() || !weights.present() || !dst.present() || src.rank != 5 || dst.rank != 5)
        return "source, weights and destination are there, and source and destination have the axes N, C, Z, Y, X";
    for (int i = 0; i < 5; ++i)
        if (src.dims[i] > kMostElements || dst.dims[i] > kMostElements)
            return fail("axis %d is too long", i);
    if (src.dims[0] != dst.dims[0] || src.dtype != dst.dtype)
        return "source and destination differ in N or dtype";
    const TransposeShape s = transpose_shape(step);
    if (s.in_channels % s.groups || s.out_channels % s.groups)
        return fail("%lld input and %lld output channels do not divide into %lld groups",
                    static_cast<long long>(s.in_channels), static_cast<long long>(s.out_channels),
                    static_cast<long long>(s.groups));
    for (int i = 0; i < 3; ++i) {
        const int64_t size = (s.in[i] - 1) * s.stride[i] + s.dilation[i] * (s.kernel[i] - 1) + 1 - p.pad_begin[i] -
                             p.pad_end[i] + p.output_padding[i];
        const int64_t expected = s.in[i] == 0 || size < 0 ? 0 : size;
        if (s.out[i] != expected)
            return fail("axis %d of the destination has %lld positions, not %lld", i, static_cast<long long>(s.out[i]),
                        static_cast<long long>(expected));
    }
    if (bias.present() && (bias.rank != 1 || bias.dims[0] != s.out_channels || bias.dtype != src.dtype ||
                           !bias.contiguous() || bias.pending()))
        return "the bias has one number an output channel";
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA
