// What the convolutions share: the window, and the checks that make it safe.
#pragma once

#include "../common/activation.h"
#include "../common/kernel.h"

namespace voxelrt::VOXELRT_ISA {

// A window's position and the range of taps that fall inside the input.
struct Range {
    int64_t first, begin, end; // input index of tap 0; taps [begin, end) are inside
};

static inline Range taps_inside(int64_t out, int64_t size, int64_t kernel, int64_t stride, int64_t dilation,
                                int64_t pad) {
    Range r;
    r.first = out * stride - pad;
    r.begin = r.first >= 0 ? 0 : (-r.first + dilation - 1) / dilation;
    r.end = size <= r.first ? 0 : (size - r.first + dilation - 1) / dilation;
    if (r.end > kernel)
        r.end = kernel;
    if (r.begin > r.end)
        r.begin = r.end;
    return r;
}

template <class P> static Message check_window(const P &p) {
    for (int i = 0; i < 3; ++i) {
        const i32 k = p.kernel[i], s = p.stride[i], d = p.dilation[i], a = p.pad_begin[i], b = p.pad_end[i];
        if (k < 1 || s < 1 || d < 1 || k > (1 << 20) || s > (1 << 20) || d > (1 << 20))
            return "kernel, stride and dilation are 1 to 2^20";
        if (a < -(1 << 20) || b < -(1 << 20) || a > (1 << 20) || b > (1 << 20))
            return "a padding is over 2^20";
    }
    if (p.groups < 1 || p.activation < 0 || p.activation >= kActivationCount)
        return "groups or activation";
    return nullptr;
}

static inline Message check_bias(const Tensor &bias, int64_t channels, int dtype) {
    if (bias.present() &&
        (bias.dtype != dtype || bias.rank != 1 || bias.dims[0] != channels || !bias.contiguous() || bias.pending()))
        return "the bias is one number a channel in the input's dtype";
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA
