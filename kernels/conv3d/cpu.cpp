// conv3d.direct: convolution of blocked volumes (or a few planes) without any transform of the data.
//
// Work is cut into boxes of output positions (and, where there are few, runs of output channels). A task first stages
// the part of the source that its box reads: padding becomes zeros, a pending norm is applied, positions a stride apart
// are put side by side. Then every tile of register sums runs without a bound to check. A convolution that needs none
// of this (1 x 1 x 1) reads the source where it lies.
#include "conv_stage.h"
#include "grouped.h"
#include "plan.h"
#include "tiles.h"

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
    if (s.in_channels < 1)
        return "the source has no channels";
    for (int i = 0; i < 3; ++i)
        if (s.kernel[i] > kMostTaps)
            return fail("a kernel of %lld taps along an axis; at most %d are supported",
                        static_cast<long long>(s.kernel[i]), kMostTaps);
    if (step.outputs > 1 && step.out[kStatistics].present()) {
        const Tensor &statistics = step.out[kStatistics];
        if (statistics.rank != 3 || statistics.dims[0] != s.n || statistics.dims[1] != s.out_channels ||
            statistics.dims[2] != 2 || statistics.dtype != VOXELRT_F64 || !statistics.contiguous())
            return "the statistics are (N, O, 2), float64";
        if (params.activation != kNoActivation)
            return "statistics are of a convolution without an activation";
    }
    if (empty(dst))
        return nullptr;
    const Tensor *volumes[] = {&src, &other, &dst, &residual};
    for (const Tensor *t : volumes)
        for (int i = 0; i < 5 && t->present(); ++i)
            if (t->strides[i] > kMostElements || t->strides[i] < -kMostElements)
                return "a stride is too large";
    // The packed weights cover every block that a tile reads: whole tiles of the last group too.
    const int64_t per_output = s.in_group() * s.taps(), outputs = ceil_div(s.out_channels, kBlock) * kBlock;
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

// ---- packing: (O, I / groups, kz, ky, kx) -> [tile of O][block of I][kz][ky][kx][channel of I][channel of O] ----

static bool packable(const ConvParams &p, const Tensor &raw) {
    return raw.rank == 5 && raw.dtype == VOXELRT_F32 && raw.layout == VOXELRT_LINEAR && p.groups >= 1 &&
           raw.dims[2] == p.kernel[0] && raw.dims[3] == p.kernel[1] && raw.dims[4] == p.kernel[2] &&
           raw.dims[0] % p.groups == 0 && (p.groups == 1 || (raw.dims[0] / p.groups) % kBlock == 0);
}

// The input channels of packed weights: with two sources the first one's are filled up to whole blocks.
struct PackedChannels {
    int64_t first, filled, all;
    PackedChannels(const ConvParams &p, int64_t in) {
        const bool two = p.groups == 1 && p.channels0 > 0 && p.channels0 < in;
        first = two ? p.channels0 : in;
        filled = two ? ceil_div(first, kBlock) * kBlock : in;
        all = filled + in - first;
    }
    // The raw channel of a packed one, or -1 where there is none.
    int64_t raw(int64_t packed) const {
        return packed < first ? packed : packed < filled ? -1 : packed - filled + first;
    }
};

static uint64_t pack_bytes(const void *params, const Tensor &raw) {
    const ConvParams &p = *static_cast<const ConvParams *>(params);
    if (!packable(p, raw))
        return 0;
    int64_t bytes = ceil_div(raw.dims[0], kBlock) * kBlock * 4;
    if (__builtin_mul_overflow(bytes, PackedChannels(p, raw.dims[1]).all, &bytes))
        return 0;
    for (int i = 2; i < 5; ++i)
        if (__builtin_mul_overflow(bytes, raw.dims[i], &bytes))
            return 0;
    return static_cast<uint64_t>(bytes);
}

static void pack(const void *params, const Tensor &raw, char *packed) {
    const int64_t groups = static_cast<const ConvParams *>(params)->groups;
    const PackedChannels channels(*static_cast<const ConvParams *>(params), raw.dims[1]);
    const int64_t out_group = raw.dims[0] / groups, in = channels.all, taps_z = raw.dims[2], taps_y = raw.dims[3],
                  taps_x = raw.dims[4];
    const float *weights = raw.as<const float>();
    float *to = reinterpret_cast<float *>(packed);
    for (int64_t g = 0; g < groups; ++g)
        for (int64_t o0 = 0; o0 < out_group; o0 += kTileChannels) {
            const int64_t width = least(kTileChannels, ceil_div(out_group - o0, kBlock) * kBlock);
            const int64_t real = least(width, out_group - o0);
            for (int64_t i0 = 0; i0 < in; i0 += kBlock)
                for (int64_t z = 0; z < taps_z; ++z)
                    for (int64_t y = 0; y < taps_y; ++y)
                        for (int64_t x = 0; x < taps_x; ++x)
                            for (int64_t i = i0; i < least(in, i0 + kBlock); ++i, to += width) {
                                const int64_t channel = channels.raw(i);
                                const float *from = weights + (g * out_group + o0) * raw.strides[0] +
                                                    (channel < 0 ? 0 : channel) * raw.strides[1] + z * raw.strides[2] +
                                                    y * raw.strides[3] + x * raw.strides[4];
                                for (int64_t o = 0; o < width; ++o)
                                    to[o] = o < real && channel >= 0 ? from[o * raw.strides[0]] : 0.0f;
                            }
        }
}

// ---- a task ----

// Taps of one axis, in floats of what the tiles read and in taps of the weights.
struct TapTables {
    Tap z[kMostTaps], y[kMostTaps], x[kMostTaps];
};

// What a task works on, shared by its tiles.
struct Task {
    const ConvPlan *plan;
    const Step *step;
    int64_t n, box;   // box: the number of its box, for the statistics
    Axes origin, end; // output positions
    float *stage, *buffer;
    double *statistics; // (boxes, O, 2) of this n; or null
    TapTables taps;
};

// The part of an axis' taps that lie in the source, for one output position.
struct TapRange {
    int64_t begin, end;
};
static TapRange taps_inside(int64_t position, int64_t stride, int64_t pad, int64_t dilation, int64_t taps,
                            int64_t size) {
    const int64_t first = position * stride - pad;
    const int64_t begin = first < 0 ? (-first + dilation - 1) / dilation : 0;
    const int64_t end = size - first <= 0 ? 0 : (size - first + dilation - 1) / dilation;
    return {least(begin, taps), most(least(begin, taps), least(end, taps))};
}

// Where the tiles read: the staged box, or the source itself.
struct Source {
    const float *first; // of output position (0, 0, 0) of the volume and tap (0, 0, 0)
    int64_t block, z, y;
};

static void fill_taps(Task &task, int64_t step_z, int64_t step_y) {
    const ConvPlan &p = *task.plan;
    const ConvShape &s = p.s;
    for (int64_t k = 0; k < s.kernel.z; ++k)
        task.taps.z[k] = {k * s.dilation.z * step_z, k * s.kernel.y * s.kernel.x};
    for (int64_t k = 0; k < s.kernel.y; ++k)
        task.taps.y[k] = {k * s.dilation.y * step_y, k * s.kernel.x};
    for (int64_t k = 0; k < s.kernel.x; ++k)
        task.taps.x[k] = {(p.staged_row[k] * p.length + k * s.dilation.x / s.stride.x) * (p.planes ? 1 : kBlock), k};
}

// One row of finished sums of `blocks` blocks: sums for the statistics.
static void add_statistics(const Task &task, const float *row, int64_t block_step, int64_t count, int64_t o,
                           int64_t real) {
    const int64_t channels = task.plan->s.out_channels;
    for (int64_t b = 0; b * kBlock < real; ++b) {
        vf16 sums = zero(), squares = zero();
        for (int64_t x = 0; x < count; ++x) {
            const vf16 v = load(row + b * block_step + x * kBlock);
            sums = sums + v;
            squares = fma(v, v, squares);
        }
        float a[kBlock], q[kBlock];
        store(a, sums);
        store(q, squares);
        double *to = task.statistics + (task.box * channels + o + b * kBlock) * 2;
        for (int64_t i = 0; i < least(kBlock, real - b * kBlock); ++i) {
            to[2 * i] += static_cast<double>(a[i]);
            to[2 * i + 1] += static_cast<double>(q[i]);
        }
    }
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
        if (task.statistics)
            add_statistics(task, sums, 0, count, o + b * kBlock, least(kBlock, real - b * kBlock));
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
    for (int64_t k = 0; k < rows; ++k) {
        float *row = out + k * t.dst_row + task.origin.x * kBlock;
        if (!p.blocked) {
            write_planes(task, row, oz, oy + k, run.o, run.real);
            continue;
        }
        if (task.statistics)
            add_statistics(task, row, t.dst_block, count, run.o, run.real);
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

// The source of input blocks [block, block + count) of the whole channel axis, staged where that is needed.
static Source open_source(Task &task, int64_t block, int64_t count) {
    const ConvPlan &p = *task.plan;
    const ConvShape &s = p.s;
    const int64_t blocks0 = p.planes ? s.channels0 : ceil_div(s.channels0, kBlock);
    const auto of = [&](int64_t b) -> const Tensor & { return task.step->in[b < blocks0 ? kSource0 : kSource1]; };
    const auto within = [&](int64_t b) { return b < blocks0 ? b : b - blocks0; };
    if (!p.staged) {
        const Tensor &t = of(block);
        return {t.as<const float>() + task.n * t.strides[0] + within(block) * t.strides[1] - s.pad.z * t.strides[2] -
                    s.pad.y * t.strides[3],
                t.strides[1], t.strides[2], t.strides[3]};
    }
    StageBox box{};
    for (int i = 0; i < 3; ++i)
        box.first[i] = task.origin[i] * s.stride[i] - s.pad[i];
    box.z = p.rows_z;
    box.y = p.rows_y;
    box.length = p.length;
    box.stride = s.stride.x;
    box.residues = p.residues;
    box.residue = p.residue;
    box.in = s.in;
    box.planes = p.planes;
    box.zero_rows = p.rows > 1;
    const int64_t floats = block_floats(p), row = staged_row_floats(box);
    const int64_t channels = p.planes ? s.in_channels : count;
    for (int64_t b = 0; b < channels; ++b)
        stage(box, of(block + b), task.n, within(block + b), task.stage + b * floats);
    const int64_t from_origin = task.origin.z * s.stride.z * p.rows_y * row + task.origin.y * s.stride.y * row +
                                task.origin.x * (p.planes ? 1 : kBlock);
    return {task.stage - from_origin, floats, p.rows_y * row, row};
}

static void run_task(Task &task, int64_t piece) {
    const ConvPlan &p = *task.plan;
    const ConvShape &s = p.s;
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
            for (int64_t tile = first_tile; tile < end_tile; ++tile)
                run_channels(task, source, group, tile, block, count, block == 0, block + count == p.in_blocks);
            block += count;
        }
    }
}

// ---- the step ----

static int64_t worker_floats(const ConvPlan &p) {
    return ceil_div(p.stage_floats + p.buffer_floats, kBlock) * kBlock;
}
static int64_t statistics_floats(const Step &step, const ConvPlan &p) { // two a double
    return step.outputs > 1 && step.out[kStatistics].present()
               ? ceil_div(tasks_of(p) / p.pieces * p.s.out_channels * 4, kBlock) * kBlock
               : 0;
}

static uint64_t scratch(const Step &step, uint32_t threads) {
    if (empty(step.out[kDestination]))
        return 0;
    const ConvPlan p = make_plan(step);
    return static_cast<uint64_t>(statistics_floats(step, p) + worker_floats(p) * threads) * 4;
}

// Box sums in the order of the boxes, whichever worker made them.
static void sum_statistics(const Step &step, const ConvPlan &p, const double *boxes) {
    const int64_t count = p.boxes.z * p.boxes.y * p.boxes.x, values = p.s.out_channels * 2;
    double *to = step.out[kStatistics].as<double>();
    for (int64_t n = 0; n < p.s.n; ++n)
        for (int64_t i = 0; i < values; ++i) {
            double sum = 0.0;
            for (int64_t box = 0; box < count; ++box)
                sum += boxes[(n * count + box) * values + i];
            to[n * values + i] = sum;
        }
}

static Message run(const Step &step, const Env &env) {
    if (empty(step.out[kDestination])) {
        if (step.outputs > 1 && step.out[kStatistics].present())
            std::memset(step.out[kStatistics].data, 0, static_cast<size_t>(step.out[kStatistics].count()) * 8);
        return nullptr;
    }
    const ConvPlan p = make_plan(step);
    const int64_t boxes = p.boxes.z * p.boxes.y * p.boxes.x, statistics = statistics_floats(step, p);
    double *sums = statistics ? reinterpret_cast<double *>(env.scratch) : nullptr;
    if (sums)
        std::memset(env.scratch, 0, static_cast<size_t>(statistics) * 4);
    float *workers = reinterpret_cast<float *>(env.scratch) + statistics;
    env.parallel(tasks_of(p), [&](int64_t index, uint32_t worker) {
        Task task;
        task.plan = &p;
        task.step = &step;
        const int64_t piece = index % p.pieces, box = index / p.pieces % boxes;
        task.n = index / (p.pieces * boxes);
        task.box = box;
        task.origin = {box / (p.boxes.y * p.boxes.x) * p.box.z, box / p.boxes.x % p.boxes.y * p.box.y,
                       box % p.boxes.x * p.box.x};
        for (int i = 0; i < 3; ++i)
            task.end[i] = least(p.s.out[i], task.origin[i] + p.box[i]);
        task.stage = workers + worker * worker_floats(p);
        task.buffer = task.stage + p.stage_floats;
        task.statistics = sums ? sums + task.n * boxes * p.s.out_channels * 2 : nullptr;
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
