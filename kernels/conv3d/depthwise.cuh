// A convolution with a group for each channel: nothing is summed across channels, so a warp has 32 of them, and a
// thread one of them at four neighbours along X, for which a tap's weight is loaded once.
#pragma once

#include "staging.cuh"

namespace conv3d {

constexpr int kAlong = 4; // outputs a thread

template <typename S> struct Depthwise {
    S *out;
    const S *x, *weights; // (channels, taps)
    const float *scale, *shift, *bias;
    const S *residual;
    long long channels;
    int out_z, number;
    float slope, alpha, beta;
};

// The taps along X of one row of the window, added to the sums.
template <typename S>
__device__ void add_row(float *sums, const Depthwise<S> &d, const Window &w, const S *row, const S *weights, int first,
                        float a, float b) {
    for (int kx = 0; kx < w.taps[2]; ++kx) {
        const float weight = voxelrt::to_float(weights[kx]);
#pragma unroll
        for (int i = 0; i < kAlong; ++i) {
            const int at = first + i * w.stride[2] + kx * w.dilation[2];
            if (!within(at, w.size[2]))
                continue;
            float value = voxelrt::to_float(row[at * d.channels]);
            if (d.scale) {
                value = fmaf(value, a, b);
                value = value < 0.0f ? value * d.slope : value;
            }
            sums[i] = fmaf(value, weight, sums[i]);
        }
    }
}

template <typename S> __device__ void depthwise(const Depthwise<S> &d, const Window &w) {
    const long long c = (long long)blockIdx.y * 32 + threadIdx.x, item = blockIdx.z;
    const long long pieces = (w.out_x + kAlong - 1) / kAlong, lines = (long long)d.out_z * w.out_y;
    const long long piece = (long long)blockIdx.x * blockDim.y + threadIdx.y, line = piece / pieces;
    if (c >= d.channels || line >= lines)
        return;
    const int z = (int)(line / w.out_y), y = (int)(line % w.out_y), x = (int)(piece % pieces) * kAlong;
    const float a = d.scale ? d.scale[item * d.channels + c] : 1.0f,
                b = d.scale ? d.shift[item * d.channels + c] : 0.0f;
    const S *weights = d.weights + c * w.taps[0] * w.taps[1] * w.taps[2];
    float sums[kAlong] = {};
    for (int kz = 0; kz < w.taps[0]; ++kz)
        for (int ky = 0; ky < w.taps[1]; ++ky, weights += w.taps[2]) {
            const int from_z = z * w.stride[0] - w.pad[0] + kz * w.dilation[0];
            const int from_y = y * w.stride[1] - w.pad[1] + ky * w.dilation[1];
            if (!within(from_z, w.size[0]) || !within(from_y, w.size[1]))
                continue;
            const long long start = ((item * w.size[0] + from_z) * w.size[1] + from_y) * w.size[2];
            add_row(sums, d, w, d.x + start * d.channels + c, weights, x * w.stride[2] - w.pad[2], a, b);
        }
    for (int i = 0; i < kAlong && x + i < w.out_x; ++i) {
        const long long at = ((item * lines + line) * w.out_x + x + i) * d.channels + c;
        float sum = sums[i] + (d.bias ? d.bias[c] : 0.0f);
        sum += d.residual ? voxelrt::to_float(d.residual[at]) : 0.0f;
        d.out[at] = voxelrt::from_float<S>(voxelrt::activate(d.number, sum, d.alpha, d.beta));
    }
}

} // namespace conv3d
