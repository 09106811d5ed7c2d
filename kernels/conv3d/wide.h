// Runs of output channels by blocks of sixteen: the lanes of a tile are channels.
#pragma once

#include "task.h"

namespace voxelrt::VOXELRT_ISA {

// Sums and then squares of `real` channels from o on, into the statistics; `width` floats each.
static void add_statistics(const Task &task, const float *totals, int64_t width, int64_t o, int64_t real) {
    double *to = task.statistics + (task.box * task.plan->s.out_channels + o) * 2;
    for (int64_t i = 0; i < real; ++i) {
        to[2 * i] += static_cast<double>(totals[i]);
        to[2 * i + 1] += static_cast<double>(totals[width + i]);
    }
}

// The same of one row of a block of channels.
static void sum_row(const float *row, int64_t count, float *totals) {
    vf16 sums = zero(), squares = zero();
    for (int64_t x = 0; x < count; ++x) {
        const vf16 v = load(row + x * kBlock);
        sums = sums + v;
        squares = fma(v, v, squares);
    }
    store(totals, sums);
    store(totals + kBlock, squares);
}

// A row of the buffer into a row-major destination, with residual and activation on the way.
static void write_planes(const Task &task, float *row, int64_t oz, int64_t oy, int64_t o, int64_t real) {
    const Tensor &dst = task.step->out[kDestination], &residual = task.step->input(kResidual);
    const ConvParams &params = task.step->as<ConvParams>();
    const int64_t count = task.end.x - task.origin.x;
    for (int64_t c = 0; c < real; ++c) {
        const auto at = [&](const Tensor &t) {
            return task.n * t.strides[0] + (o + c) * t.strides[1] + oz * t.strides[2] + oy * t.strides[3] +
                   task.origin.x * t.strides[4];
        };
        float *sums = row + c / kBlock * (task.plan->buffer_floats / kTileBlocks) + c % kBlock;
        if (residual.present()) {
            const float *add = residual.as<const float>() + at(residual);
            for (int64_t x = 0; x < count; ++x)
                sums[x * kBlock] += add[x * residual.strides[4]];
        }
    }
    for (int64_t b = 0; b * kBlock < real; ++b) {
        float *sums = row + b * (task.plan->buffer_floats / kTileBlocks);
        if (task.statistics) {
            float totals[2 * kBlock];
            sum_row(sums, count, totals);
            add_statistics(task, totals, kBlock, o + b * kBlock, least(kBlock, real - b * kBlock));
        }
        activate_row(params.activation, params.alpha, params.beta, sums, count * kBlock);
        for (int64_t c = b * kBlock; c < least(real, (b + 1) * kBlock); ++c) {
            float *to = dst.as<float>() + task.n * dst.strides[0] + (o + c) * dst.strides[1] + oz * dst.strides[2] +
                        oy * dst.strides[3] + task.origin.x * dst.strides[4];
            for (int64_t x = 0; x < count; ++x)
                to[x * dst.strides[4]] = sums[x * kBlock + c % kBlock];
        }
    }
}

// What the tiles of one run of output channels have in common.
struct Run {
    Tile tile;
    Source source;
    int blocks;       // of output channels
    int64_t o, real;  // first output channel, and how many
    bool first, last; // chunk of the input channels
};

// All tiles of rows oy .. oy + rows - 1 of plane oz.
static void run_rows(const Task &task, const Run &run, int64_t oz, int64_t oy, int64_t rows) {
    const ConvPlan &p = *task.plan;
    const ConvShape &s = p.s;
    const ConvParams &params = task.step->as<ConvParams>();
    const Tensor &dst = task.step->out[kDestination], &residual = task.step->input(kResidual);
    Tile t = run.tile;
    const TapRange z = taps_inside(oz, s.stride.z, s.pad.z, s.dilation.z, s.kernel.z, s.in.z);
    TapRange y = taps_inside(oy, s.stride.y, s.pad.y, s.dilation.y, s.kernel.y, s.in.y);
    if (rows > 1) { // all taps of any of the rows; the others read staged zeros
        const TapRange end = taps_inside(oy + rows - 1, s.stride.y, s.pad.y, s.dilation.y, s.kernel.y, s.in.y);
        y.begin = least(y.begin, end.begin);
        y.end = most(y.end, end.end);
    }
    t.z = task.taps.z + z.begin;
    t.nz = z.end - z.begin;
    t.y = task.taps.y + y.begin;
    t.ny = y.end - y.begin;
    const float *src = run.source.first + oz * s.stride.z * run.source.z + oy * s.stride.y * run.source.y;
    float *out;
    if (p.blocked) {
        t.dst_row = dst.strides[3];
        t.dst_block = dst.strides[1];
        out = dst.as<float>() + task.n * dst.strides[0] + run.o / kBlock * dst.strides[1] + oz * dst.strides[2] +
              oy * dst.strides[3];
        if (residual.present() && run.last) {
            t.residual_row = residual.strides[3];
            t.residual_block = residual.strides[1];
            t.residual = residual.as<const float>() + task.n * residual.strides[0] +
                         run.o / kBlock * residual.strides[1] + oz * residual.strides[2] + oy * residual.strides[3];
        }
    } else {
        t.dst_row = p.box.x * kBlock;
        t.dst_block = p.buffer_floats / kTileBlocks;
        out = task.buffer + (((oz - task.origin.z) * p.box.y + oy - task.origin.y) * p.box.x - task.origin.x) * kBlock;
    }
    float totals[2 * kTileChannels] = {};
    t.statistics = task.statistics && t.finish ? totals : nullptr;
    const float *add = t.residual;
    const int64_t count = task.end.x - task.origin.x, tiles = ceil_div(count, kTileX);
    const int64_t narrow = count / tiles, wide = count % tiles; // `wide` tiles are one position wider
    const int r = static_cast<int>(rows);
    const TileFunction function = conv_tile(run.blocks, r, static_cast<int>(narrow), p.planes);
    const TileFunction wider = wide ? conv_tile(run.blocks, r, static_cast<int>(narrow) + 1, p.planes) : nullptr;
    for (int64_t i = 0, x = task.origin.x; i < tiles; ++i) {
        t.src = src + x * (p.planes ? 1 : kBlock);
        t.dst = out + x * kBlock;
        t.residual = add ? add + x * kBlock : nullptr;
        (i < wide ? wider : function)(t);
        x += narrow + (i < wide);
    }
    if (!run.last)
        return;
    if (t.statistics)
        add_statistics(task, totals, run.blocks * kBlock, run.o, run.real);
    for (int64_t k = 0; k < rows; ++k) {
        float *row = out + k * t.dst_row + task.origin.x * kBlock;
        if (!p.blocked) {
            write_planes(task, row, oz, oy + k, run.o, run.real);
            continue;
        }
        for (int64_t b = 0; b < run.blocks; ++b)
            activate_positions(params.activation, params.alpha, params.beta, row + b * t.dst_block, count, kBlock,
                               least(kBlock, run.real - b * kBlock));
    }
}

// A run of output channels over the input blocks [block, block + count) of its group, for the whole box.
static void run_channels(const Task &task, const Source &source, int64_t group, int64_t out_tile, int64_t block,
                         int64_t count, bool first, bool last) {
    const ConvPlan &p = *task.plan;
    const ConvShape &s = p.s;
    const ConvParams &params = task.step->as<ConvParams>();
    const Tensor &bias = task.step->input(kBias);
    Run run{};
    const int64_t before = out_tile * kTileChannels; // of the group's output channels
    run.o = group * s.out_group() + before;
    run.real = least(kTileChannels, s.out_group() - before);
    run.blocks = static_cast<int>(ceil_div(run.real, kBlock));
    run.first = first;
    run.last = last;
    run.source = source;
    float start[kTileChannels] = {};
    for (int64_t o = 0; bias.present() && o < run.real; ++o)
        start[o] = bias.as<const float>()[run.o + o];
    Tile &t = run.tile;
    const int64_t width = run.blocks * kBlock;
    t.start = first ? start : nullptr;
    t.blocks = count;
    t.src_block = source.block;
    t.inner = p.planes ? s.in_channels : kBlock;
    t.inner_last = p.planes ? s.in_channels : least(kBlock, s.in_group() - (block + count - 1) * kBlock);
    t.inner_step = source.block;
    t.unit = t.inner * width;
    t.unit_last = t.inner_last * width;
    t.weight_block = s.taps() * kBlock * width;
    t.weights = task.step->in[kWeights].as<const float>() + (group * s.out_group() + before) * s.in_group() * s.taps() +
                block * t.weight_block;
    t.x = task.taps.x;
    t.nx = s.kernel.x;
    Tap merged{}; // planes: the taps of a row lie as close as its channels otherwise do
    if (p.planes && s.in_channels == 1 && p.residues == 1 && s.stride.x == 1) {
        t.inner = t.inner_last = s.kernel.x;
        t.inner_step = s.dilation.x;
        t.unit = t.unit_last = width;
        t.x = &merged;
        t.nx = 1;
    }
    t.src_row = s.stride.y * source.y;
    t.dst_x = kBlock;
    t.finish = last && p.blocked;
    t.past_caches = t.finish && first && p.past_caches;
    t.keep = static_cast<int>(run.real - (run.blocks - 1) * kBlock);
    set_epilogue(params.activation, params.alpha, params.beta, t);
    for (int64_t oz = task.origin.z; oz < task.end.z; ++oz)
        for (int64_t oy = task.origin.y; oy < task.end.y;) {
            const int64_t rows = task.end.y - oy >= p.rows ? p.rows : 1;
            run_rows(task, run, oz, oy, rows);
            oy += rows;
        }
}

} // namespace voxelrt::VOXELRT_ISA
