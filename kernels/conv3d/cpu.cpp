// conv3d.direct: convolution of blocked volumes (or a few planes) without any transform of the data.
//
// Work is cut into boxes of output positions (and, where there are few, runs of output channels). A task first stages
// the part of the source that its box reads: padding becomes zeros, a pending norm is applied, positions a stride apart
// are put side by side. Then every tile of register sums runs without a bound to check. A convolution that needs none
// of this (1 x 1 x 1) reads the source where it lies.
#include "grouped.h"
#include "head.h"
#include "pack.h"
#include "tiles.h"
#include "wide.h"

#include <cstring>

namespace voxelrt::VOXELRT_ISA {

static Message check_direct(const Step &step) {
    if (Message message = check_conv(step))
        return message;
    const Tensor &src = step.in[kSource0], &other = step.in[kSource1], &weights = step.in[kWeights],
                 &residual = step.input(kResidual), &dst = step.out[kDestination];
    const ConvParams &params = step.as<ConvParams>();
    if (src.dtype != VOXELRT_F32 || weights.dtype != VOXELRT_F32)
        return "takes float32";
    const ConvShape s = blocked_shape(step);
    if (src.layout == VOXELRT_LINEAR && (s.in_channels > 4 || s.in_channels < 1 || other.present() || s.groups != 1))
        return "takes a row-major source of 1 to 4 channels without groups; others are blocked";
    if (src.layout == VOXELRT_BLOCKED16 && (!blocked_rows(src) || (other.present() && !blocked_rows(other))))
        return "takes blocked sources without gaps along x";
    if (dst.layout == VOXELRT_BLOCKED16 && (!blocked_rows(dst) || (residual.present() && !blocked_rows(residual))))
        return "takes a blocked destination without gaps along x";
    if (s.groups > 1 && (s.in_group() % kBlock || s.out_group() % kBlock))
        return "takes groups of a multiple of 16 channels";
    if (s.groups > 1 && other.present() && s.channels0 % kBlock)
        return "takes groups of two sources where the first one's channels are a multiple of 16";
    if (s.in_channels < 1)
        return "the source has no channels";
    for (int i = 0; i < 3; ++i)
        if (s.kernel[i] > kMostTaps)
            return fail("a kernel of %lld taps along an axis; at most %d are supported",
                        static_cast<long long>(s.kernel[i]), kMostTaps);
    if (Message message = check_statistics(step))
        return message;
    if (empty(dst))
        return nullptr;
    if (Message message = check_strides(step))
        return message;
    // The packed weights cover every block that a tile reads: whole tiles of the last group too.
    const int64_t per_output = s.in_group() * s.taps(), outputs = packed_outputs(params, s.out_channels);
    int64_t wanted;
    if (weights.rank != 1 || !weights.contiguous() || __builtin_mul_overflow(per_output, outputs, &wanted) ||
        weights.dims[0] < wanted)
        return "the packed weights are too short";
    const int64_t reach_z = (s.kernel.z - 1) * s.dilation.z + 1, reach_y = (s.kernel.y - 1) * s.dilation.y + 1,
                  reach_x = (s.kernel.x - 1) * s.dilation.x / s.stride.x + s.out.x;
    int64_t smallest;
    if (__builtin_mul_overflow(reach_z, reach_y, &smallest) ||
        __builtin_mul_overflow(smallest, least(reach_x, (s.kernel.x - 1) * s.dilation.x + 160), &smallest) ||
        __builtin_mul_overflow(smallest, s.kernel.x * kBlock * 4, &smallest) || smallest > kMostStageBytes)
        return "reaches too far for what it stages";
    return nullptr;
}

static void run_task(Task &task, int64_t piece) {
    const ConvPlan &p = *task.plan;
    const ConvShape &s = p.s;
    if (p.head)
        return run_head(task);
    const int64_t all = p.out_tiles * s.groups, blocks0 = ceil_div(s.channels0, kBlock);
    const int64_t begin = all * piece / p.pieces, end = all * (piece + 1) / p.pieces;
    for (int64_t group = begin / p.out_tiles; group * p.out_tiles < end; ++group) {
        const int64_t first_tile = most(begin - group * p.out_tiles, 0),
                      end_tile = least(end - group * p.out_tiles, p.out_tiles);
        for (int64_t block = 0; block < p.in_blocks;) {
            int64_t count = least(p.chunk, p.in_blocks - block);
            const int64_t at = group * p.in_blocks + block; // groups of several have whole blocks
            if (!p.staged && s.channels1 && at < blocks0)   // unstaged tiles read one tensor
                count = least(count, blocks0 - at);
            const Source source = open_source(task, at, count);
            fill_taps(task, source.z, source.y);
            if (p.narrow)
                run_narrow(task, source, block, count);
            for (int64_t tile = first_tile; tile < end_tile && !p.narrow; ++tile)
                run_channels(task, source, group, tile, block, count, block == 0, block + count == p.in_blocks);
            block += count;
        }
    }
}

// ---- the step ----

static int64_t worker_floats(const ConvPlan &p) {
    return ceil_div(p.stage_floats + p.buffer_floats, kBlock) * kBlock;
}
static uint64_t scratch(const Step &step, uint32_t threads) {
    if (empty(step.out[kDestination]))
        return 0;
    const ConvPlan p = make_plan(step);
    return static_cast<uint64_t>(statistics_floats(step, p) + worker_floats(p) * threads) * 4;
}

static Message run(const Step &step, const Env &env) {
    if (empty(step.out[kDestination])) {
        if (step.outputs > 1 && step.out[kStatistics].present())
            std::memset(step.out[kStatistics].data, 0, static_cast<size_t>(step.out[kStatistics].count()) * 8);
        return nullptr;
    }
    const ConvPlan p = make_plan(step);
    const int64_t statistics = statistics_floats(step, p);
    double *sums = statistics ? reinterpret_cast<double *>(env.scratch) : nullptr;
    if (sums)
        std::memset(env.scratch, 0, static_cast<size_t>(statistics) * 4);
    float *workers = reinterpret_cast<float *>(env.scratch) + statistics;
    env.parallel(tasks_of(p), [&](int64_t index, uint32_t worker) {
        Task task;
        const int64_t piece = place_task(task, p, step, index);
        task.stage = workers + worker * worker_floats(p);
        task.buffer = task.stage + p.stage_floats;
        task.statistics = sums ? sums + task.n * boxes_an_item(p) * p.s.out_channels * 2 : nullptr;
        run_task(task, piece);
        stream_fence();
    });
    if (sums)
        sum_statistics(step, p, sums);
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(conv3d,
                {{"conv3d.direct", 1, ConvParamsText, sizeof(ConvParams), check_direct, run, scratch, pack_bytes, pack},
                 {"conv3d.grouped", 1, ConvParamsText, sizeof(ConvParams), check_grouped, run_grouped, nullptr, nullptr,
                  nullptr}})
