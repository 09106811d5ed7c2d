// Heads: one tap into a few row-major channels. Sixteen positions of a block of channels are loaded, normed and turned
// in registers, so that their lanes are positions: nothing is staged, and memory is read once, in order.
#pragma once

#include "narrow.h"

namespace voxelrt::VOXELRT_ISA {

// A row of positions of one block of input channels, added to a row of sums for each output.
struct HeadRow {
    const float *src, *weights; // [channel][16, of which the outputs']
    Norm norm;
    int64_t channels, count;
    const float *start; // one number an output; null: go on from sums
    float *sums;        // of output o at sums + o * step
    int64_t step;
};

template <int O, bool kWhole> static void head_tile(const HeadRow &h, int64_t at) {
    const float *from = h.src + at * kBlock;
    vf16 x[kBlock];
#pragma GCC unroll 16
    for (int64_t i = 0; i < kBlock; ++i) {
        __builtin_prefetch(from + i * kBlock + 256 * kBlock, 0, 2);
        x[i] = load(from + (kWhole ? i : least(i, h.count - at - 1)) * kBlock);
        if (h.norm.pending)
            x[i] = normed(h.norm, x[i]);
    }
    transpose(x);
    vf16 sums[O];
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o)
        sums[o] = h.start ? broadcast(h.start[o]) : load(h.sums + o * h.step + at);
#pragma GCC unroll 16
    for (int64_t c = 0; c < kBlock; ++c)
        if (kWhole || c < h.channels)
#pragma GCC unroll 8
            for (int o = 0; o < O; ++o)
                sums[o] = fma(x[c], broadcast(h.weights[c * kBlock + o]), sums[o]);
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o)
        store(h.sums + o * h.step + at, sums[o]);
}

template <int O> static void head_row(const HeadRow &h) {
    int64_t at = 0;
    if (h.channels == kBlock)
        for (; at + kBlock <= h.count; at += kBlock)
            head_tile<O, true>(h, at);
    for (; at < h.count; at += kBlock)
        head_tile<O, false>(h, at);
}

template <int O> static void head_row_of(int64_t outputs, const HeadRow &h) {
    if constexpr (O > 1)
        if (outputs != O)
            return head_row_of<O - 1>(outputs, h);
    head_row<O>(h);
}

// All output channels of a task's box.
static void run_head(const Task &task) {
    const ConvShape &s = task.plan->s;
    const Tensor &bias = task.step->input(kBias);
    const int64_t blocks0 = ceil_div(s.channels0, kBlock);
    float start[kNarrowMost] = {};
    for (int64_t o = 0; bias.present() && o < s.out_channels; ++o)
        start[o] = bias.as<const float>()[o];
    HeadRow h{};
    h.count = task.end.x - task.origin.x;
    h.step = narrow_row(*task.plan);
    for (int64_t z = task.origin.z; z < task.end.z; ++z)
        for (int64_t y = task.origin.y; y < task.end.y; ++y) {
            h.sums = narrow_sums(task, z, y);
            h.weights = task.step->in[kWeights].as<const float>();
            for (int64_t block = 0; block < task.plan->in_blocks; ++block, h.weights += kBlock * kBlock) {
                const Tensor &t = task.step->in[block < blocks0 ? kSource0 : kSource1];
                const int64_t within = block < blocks0 ? block : block - blocks0;
                h.src = t.as<const float>() + task.n * t.strides[0] + within * t.strides[1] + z * t.strides[2] +
                        y * t.strides[3] + task.origin.x * kBlock;
                h.norm = norm_of(t, task.n, within);
                h.channels = least(kBlock, s.in_channels - block * kBlock);
                h.start = block == 0 ? start : nullptr;
                head_row_of<kNarrowMost>(s.out_channels, h);
            }
            finish_narrow_row(task, z, y);
        }
}

} // namespace voxelrt::VOXELRT_ISA
