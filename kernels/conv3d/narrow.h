// The narrow tiles over a task's box, and their finished rows into the destination.
#pragma once

#include "task.h"

#include <cstring>

namespace voxelrt::VOXELRT_ISA {

// The row of sums of output channel 0 at position (oz, oy); channels are narrow_row(p) apart.
static float *narrow_sums(const Task &task, int64_t oz, int64_t oy) {
    const ConvPlan &p = *task.plan;
    return task.buffer + ((oz - task.origin.z) * p.box.y + oy - task.origin.y) * p.s.out_channels * narrow_row(p);
}

static void add_narrow_statistics(const Task &task, const float *sums, int64_t count) {
    const int64_t channels = task.plan->s.out_channels, step = narrow_row(*task.plan);
    for (int64_t o = 0; o < channels; ++o) {
        vf16 total = zero(), squares = zero();
        for (int64_t x = 0; x < count; x += kBlock) {
            const vf16 v = load_first(sums + o * step + x, static_cast<int>(least(kBlock, count - x)));
            total = total + v;
            squares = fma(v, v, squares);
        }
        double *to = task.statistics + (task.box * channels + o) * 2;
        to[0] += static_cast<double>(sum(total));
        to[1] += static_cast<double>(sum(squares));
    }
}

// Rows of channels into a row of blocks.
static void interleave_row(const float *sums, int64_t step, int64_t channels, int64_t count, float *to) {
    static const float nothing[kQuad] = {};
    for (int64_t x = 0; x < count; x += kQuad) {
        float made[kQuad * kBlock] = {};
        float *target = count - x >= kQuad ? to + x * kBlock : made;
        for (int64_t c = 0; c < kBlock; c += kQuad) {
            const float *from[kQuad];
            for (int64_t j = 0; j < kQuad; ++j)
                from[j] = c + j < channels ? sums + (c + j) * step + x : nothing;
            transpose_quad(from, 0, target + c, kBlock);
        }
        if (target == made)
            std::memcpy(to + x * kBlock, made, static_cast<size_t>(count - x) * kBlock * sizeof(float));
    }
}

static void finish_narrow_row(const Task &task, int64_t oz, int64_t oy) {
    const ConvPlan &p = *task.plan;
    const ConvParams &params = task.step->as<ConvParams>();
    const Tensor &dst = task.step->out[kDestination], &residual = task.step->input(kResidual);
    const int64_t count = task.end.x - task.origin.x, step = narrow_row(p), channels = p.s.out_channels;
    float *sums = narrow_sums(task, oz, oy);
    const auto at = [&](const Tensor &t, int64_t o) {
        return task.n * t.strides[0] + (p.blocked ? o : o * t.strides[1]) + oz * t.strides[2] + oy * t.strides[3] +
               task.origin.x * (p.blocked ? kBlock : t.strides[4]);
    };
    if (residual.present())
        for (int64_t o = 0; o < channels; ++o) {
            const float *add = residual.as<const float>() + at(residual, o);
            for (int64_t x = 0; x < count; ++x)
                sums[o * step + x] += add[x * (p.blocked ? kBlock : residual.strides[4])];
        }
    if (task.statistics)
        add_narrow_statistics(task, sums, count);
    for (int64_t o = 0; o < channels; ++o)
        activate_row(params.activation, params.alpha, params.beta, sums + o * step, count);
    if (p.blocked) {
        interleave_row(sums, step, channels, count, dst.as<float>() + at(dst, 0));
        return;
    }
    for (int64_t o = 0; o < channels; ++o) {
        float *to = dst.as<float>() + at(dst, o);
        if (dst.strides[4] == 1)
            std::memcpy(to, sums + o * step, static_cast<size_t>(count) * sizeof(float));
        else
            for (int64_t x = 0; x < count; ++x)
                to[x * dst.strides[4]] = sums[o * step + x];
    }
}

// All output channels over the input blocks [block, block + count), for the whole box.
static void run_narrow(const Task &task, const Source &source, int64_t block, int64_t count) {
    const ConvPlan &p = *task.plan;
    const ConvShape &s = p.s;
    const Tensor &bias = task.step->input(kBias);
    float start[kNarrowMost] = {};
    for (int64_t o = 0; bias.present() && o < s.out_channels; ++o)
        start[o] = bias.as<const float>()[o];
    NarrowTile t{};
    t.planes = p.planes ? s.in_channels : least(count * kBlock, s.in_channels - block * kBlock);
    t.plane = source.block;
    t.taps = s.taps();
    t.x = task.taps.x;
    t.nx = s.kernel.x;
    t.dst_channel = narrow_row(p);
    const int64_t vectors = t.dst_channel / kBlock;
    for (int64_t oz = task.origin.z; oz < task.end.z; ++oz)
        for (int64_t oy = task.origin.y; oy < task.end.y; ++oy) {
            const TapRange z = taps_inside(oz, s.stride.z, s.pad.z, s.dilation.z, s.kernel.z, s.in.z),
                           y = taps_inside(oy, s.stride.y, s.pad.y, s.dilation.y, s.kernel.y, s.in.y);
            t.z = task.taps.z + z.begin;
            t.nz = z.end - z.begin;
            t.y = task.taps.y + y.begin;
            t.ny = y.end - y.begin;
            const float *src = source.first + oz * s.stride.z * source.z + oy * s.stride.y * source.y + task.origin.x;
            for (int64_t o = 0, width; o < s.out_channels; o += width) {
                width = narrow_width(s.out_channels, o);
                t.start = block == 0 ? start + o : nullptr;
                t.weight_step = width;
                t.weights = task.step->in[kWeights].as<const float>() + o * s.in_channels * t.taps +
                            block * kBlock * t.taps * t.weight_step;
                const int64_t most_vectors = narrow_vectors(static_cast<int>(width));
                const int64_t tiles = ceil_div(vectors, most_vectors);
                for (int64_t i = 0, v = 0; i < tiles; ++i) {
                    const int64_t wide = vectors / tiles + (i < vectors % tiles);
                    t.src = src + v * kBlock;
                    t.dst = narrow_sums(task, oz, oy) + o * t.dst_channel + v * kBlock;
                    narrow_of_channels<kNarrowChannels>(width, wide)(t);
                    v += wide;
                }
            }
            if (block + count == p.in_blocks)
                finish_narrow_row(task, oz, oy);
        }
}

} // namespace voxelrt::VOXELRT_ISA
