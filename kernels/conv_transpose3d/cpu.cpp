// conv_transpose3d.direct: transposed convolution of blocked volumes, gathered phase by phase.
//
// Output position p = stride q + r gathers the taps k with (r + pad - k dilation) divisible by the stride, from input
// q + (r + pad - k dilation) / stride. So each phase r of the output is an ordinary convolution of stride one with the
// taps of that phase: the tiles of conv3d, writing positions a stride apart. A task is a box of q for all phases and a
// run of output channels; what it reads is staged once, unless nothing lies outside of the source (2 x 2 x 2, stride
// 2).
#include "conv_stage.h"
#include "conv_tile.h"
#include "grouped.h"

namespace voxelrt::VOXELRT_ISA {

constexpr int64_t kStageBytes = 384 << 10;       // wanted at most for what a task reads,
constexpr int64_t kWeightBytes = 256 << 10;      // and for the weights that go with it: both lie in L2
constexpr int64_t kMostStageBytes = 256ll << 20; // refused beyond
constexpr int64_t kTasks = 32;                   // wanted at least, for many cores

// The taps of one axis, those of phase r from begin[r] to begin[r + 1]; shift: from q to the input position.
struct PhaseTaps {
    int32_t begin[kMostTaps + 1];
    int32_t tap[kMostTaps], shift[kMostTaps];
    int64_t least, most; // shift
};

static void find_taps(PhaseTaps &t, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
    int32_t count = 0;
    t.least = t.most = 0;
    for (int64_t r = 0; r < stride; ++r) {
        t.begin[r] = count;
        for (int64_t k = 0; k < kernel; ++k) {
            const int64_t at = r + pad - k * dilation;
            if (at % stride != 0)
                continue;
            t.tap[count] = static_cast<int32_t>(k);
            t.shift[count] = static_cast<int32_t>(at / stride);
            t.least = count ? voxelrt::VOXELRT_ISA::least(t.least, at / stride) : at / stride;
            t.most = count ? voxelrt::VOXELRT_ISA::most(t.most, at / stride) : at / stride;
            ++count;
        }
    }
    t.begin[stride] = count;
}

struct TransposePlan {
    TransposeShape s;
    PhaseTaps z, y, x;
    Axes q;          // positions a phase has at most
    Axes box, boxes; // of q
    int64_t in_blocks, out_tiles, chunk, pieces, rows;
    bool staged;
    StageBox stage; // its size; a task sets where it lies
    int64_t stage_floats;
};

static void measure(TransposePlan &p) {
    p.stage.z = p.box.z + p.z.most - p.z.least;
    p.stage.y = p.box.y + p.y.most - p.y.least;
    p.stage.length = p.box.x + p.x.most - p.x.least;
}
static int64_t block_floats(const TransposePlan &p) {
    return p.stage.z * p.stage.y * p.stage.length * kBlock;
}
static bool fits(const TransposePlan &p) {
    return p.chunk * block_floats(p) * 4 <= kStageBytes;
}

static int64_t count_boxes(TransposePlan &p) {
    for (int i = 0; i < 3; ++i) {
        p.box[i] = ceil_div(p.q[i], ceil_div(p.q[i], p.box[i])); // of nearly equal size
        p.boxes[i] = ceil_div(p.q[i], p.box[i]);
    }
    measure(p);
    return p.boxes.z * p.boxes.y * p.boxes.x * p.s.n;
}

static void choose_tasks(TransposePlan &p) {
    p.box = {1, 1, ceil_div(p.q.x, ceil_div(p.q.x, 160))};
    measure(p);
    while (!fits(p) && p.chunk > 1)
        p.chunk = ceil_div(p.chunk, 2);
    for (bool grown = true; grown;) {
        grown = false;
        for (int axis = 1; axis >= 0 && !grown; --axis) {
            const Axes before = p.box;
            if (p.box[axis] >= p.q[axis] || (axis == 1 && p.box.y > p.box.z && p.box.z < p.q.z))
                continue;
            p.box[axis] = least(p.q[axis], p.box[axis] * 2);
            measure(p);
            grown = fits(p);
            if (!grown)
                p.box = before;
        }
        measure(p);
    }
    int64_t boxes = count_boxes(p);
    while (boxes < kTasks && p.box.z * p.box.y * p.box.x > 256) {
        int64_t &longer = p.box.z > 1 ? p.box.z : p.box.y > 1 ? p.box.y : p.box.x;
        longer = ceil_div(longer, 2);
        boxes = count_boxes(p);
    }
    p.pieces = least(p.out_tiles, ceil_div(kTasks, boxes));
}

static TransposePlan make_plan(const Step &step) {
    TransposePlan p{};
    p.s = transpose_shape(step);
    const TransposeShape &s = p.s;
    find_taps(p.z, s.kernel.z, s.stride.z, s.pad.z, s.dilation.z);
    find_taps(p.y, s.kernel.y, s.stride.y, s.pad.y, s.dilation.y);
    find_taps(p.x, s.kernel.x, s.stride.x, s.pad.x, s.dilation.x);
    for (int i = 0; i < 3; ++i)
        p.q[i] = ceil_div(s.out[i], s.stride[i]);
    p.in_blocks = ceil_div(s.in_channels, kBlock);
    p.out_tiles = ceil_div(s.out_channels, kTileChannels);
    p.chunk = least(p.in_blocks, most(1, kWeightBytes / (s.taps() * kBlock * kTileChannels * 4)));
    p.rows = choose_rows(p.q.x, p.q.y);
    const auto stays = [](const PhaseTaps &t, int64_t q, int64_t size) { return t.least >= 0 && q + t.most <= size; };
    p.staged = step.in[kSource].pending() || !stays(p.x, p.q.x, s.in.x) || (p.rows > 1 && !stays(p.y, p.q.y, s.in.y));
    static const int32_t only[1] = {0};
    p.stage.stride = 1;
    p.stage.residues = 1;
    p.stage.residue = only;
    p.stage.in = s.in;
    p.stage.zero_rows = p.rows > 1;
    choose_tasks(p);
    p.stage_floats = p.staged ? p.chunk * block_floats(p) : 0;
    return p;
}

static Message check_direct(const Step &step) {
    if (Message message = check_transpose(step))
        return message;
    const Tensor &src = step.in[kSource], &weights = step.in[kWeights], &dst = step.out[0];
    if (src.dtype != VOXELRT_F32 || weights.dtype != VOXELRT_F32)
        return "takes float32";
    if (!blocked_rows(src) || !blocked_rows(dst))
        return "takes a blocked source and destination without gaps along x";
    const TransposeShape s = transpose_shape(step);
    if (s.groups != 1)
        return fail("takes one group, not %lld", static_cast<long long>(s.groups));
    if (s.in_channels < 1)
        return "the source has no channels";
    for (int i = 0; i < 3; ++i)
        if (s.kernel[i] > kMostTaps || s.stride[i] > kMostTaps)
            return fail("axis %d has %lld taps and stride %lld; at most %d are supported", i,
                        static_cast<long long>(s.kernel[i]), static_cast<long long>(s.stride[i]), kMostTaps);
    if (empty(dst))
        return nullptr;
    for (int i = 0; i < 5; ++i)
        if (src.strides[i] > kMostElements || src.strides[i] < -kMostElements || dst.strides[i] > kMostElements)
            return "a stride is too large";
    int64_t wanted;
    if (weights.rank != 1 || !weights.contiguous() ||
        __builtin_mul_overflow(s.in_channels * s.taps(), ceil_div(s.out_channels, kBlock) * kBlock, &wanted) ||
        weights.dims[0] < wanted)
        return "the packed weights are too short";
    int64_t reach = kBlock * 4;
    for (int i = 0; i < 3; ++i) {
        const int64_t box = i == 2 ? least(160, ceil_div(s.out[i], s.stride[i])) : 1;
        if (__builtin_mul_overflow(reach, (s.kernel[i] - 1) * s.dilation[i] / s.stride[i] + box + 1, &reach) ||
            reach > kMostStageBytes)
            return "reaches too far for what it stages";
    }
    return nullptr;
}

// ---- packing: (I, O, kz, ky, kx) -> [tile of O][block of I][kz][ky][kx][channel of I][channel of O] ----

static uint64_t pack_bytes(const void *params, const Tensor &raw) {
    const TransposeParams &p = *static_cast<const TransposeParams *>(params);
    if (raw.rank != 5 || raw.dtype != VOXELRT_F32 || raw.layout != VOXELRT_LINEAR || p.groups != 1 ||
        raw.dims[2] != p.kernel[0] || raw.dims[3] != p.kernel[1] || raw.dims[4] != p.kernel[2])
        return 0;
    int64_t bytes = ceil_div(raw.dims[1], kBlock) * kBlock * 4;
    for (int i = 0; i < 5; ++i)
        if (i != 1 && __builtin_mul_overflow(bytes, raw.dims[i], &bytes))
            return 0;
    return static_cast<uint64_t>(bytes);
}

static void pack(const void *, const Tensor &raw, char *packed) {
    const int64_t in = raw.dims[0], out = raw.dims[1];
    const float *weights = raw.as<const float>();
    float *to = reinterpret_cast<float *>(packed);
    for (int64_t o0 = 0; o0 < out; o0 += kTileChannels) {
        const int64_t width = least(kTileChannels, ceil_div(out - o0, kBlock) * kBlock);
        for (int64_t i0 = 0; i0 < in; i0 += kBlock)
            for (int64_t z = 0; z < raw.dims[2]; ++z)
                for (int64_t y = 0; y < raw.dims[3]; ++y)
                    for (int64_t x = 0; x < raw.dims[4]; ++x)
                        for (int64_t i = i0; i < least(in, i0 + kBlock); ++i, to += width) {
                            const float *from = weights + i * raw.strides[0] + o0 * raw.strides[1] +
                                                z * raw.strides[2] + y * raw.strides[3] + x * raw.strides[4];
                            for (int64_t o = 0; o < width; ++o)
                                to[o] = o0 + o < out ? from[o * raw.strides[1]] : 0.0f;
                        }
    }
}

// ---- a task ----

struct TransposeTask {
    const TransposePlan *plan;
    const Step *step;
    int64_t n;
    Axes origin, end; // of q
    float *stage;
    const float *source; // of q = (0, 0, 0), block 0 of the chunk
    int64_t block_step, z_step, y_step;
    Tap z[kMostTaps], y[kMostTaps], x[kMostTaps];
};

static void fill_taps(Tap *taps, const PhaseTaps &from, int64_t stride, int64_t step, int64_t unit) {
    for (int32_t i = 0; i < from.begin[stride]; ++i)
        taps[i] = {from.shift[i] * step, from.tap[i] * unit};
}

static void open_source(TransposeTask &task, int64_t block, int64_t count) {
    const TransposePlan &p = *task.plan;
    const TransposeShape &s = p.s;
    const Tensor &src = task.step->in[kSource];
    if (p.staged) {
        StageBox box = p.stage;
        box.first = {task.origin.z + p.z.least, task.origin.y + p.y.least, task.origin.x + p.x.least};
        for (int64_t b = 0; b < count; ++b)
            stage(box, src, task.n, block + b, task.stage + b * block_floats(p), 0);
        task.block_step = block_floats(p);
        task.y_step = staged_row_floats(box);
        task.z_step = box.y * task.y_step;
        task.source = task.stage - box.first.z * task.z_step - box.first.y * task.y_step - box.first.x * kBlock;
    } else {
        task.block_step = src.strides[1];
        task.z_step = src.strides[2];
        task.y_step = src.strides[3];
        task.source = src.as<const float>() + task.n * src.strides[0] + block * src.strides[1];
    }
    fill_taps(task.z, p.z, s.stride.z, task.z_step, s.kernel.y * s.kernel.x);
    fill_taps(task.y, p.y, s.stride.y, task.y_step, s.kernel.x);
    fill_taps(task.x, p.x, s.stride.x, kBlock, 1);
}

// Of a phase's taps, those that read rows inside of the source for any q in [first, last]. Shifts fall with the tap.
static Span taps_inside(const PhaseTaps &t, int64_t phase, int64_t first, int64_t last, int64_t size) {
    int64_t begin = t.begin[phase], end = t.begin[phase + 1];
    while (begin < end && first + t.shift[begin] >= size)
        ++begin;
    while (begin < end && last + t.shift[end - 1] < 0)
        --end;
    return {begin, end};
}

struct PhaseRow { // rows q.y .. q.y + rows - 1 of plane q.z, of phase (z, y)
    int64_t qz, qy, rows, z, y;
};

static void run_phase_row(const TransposeTask &task, Tile t, int64_t o, int blocks, int64_t real, const PhaseRow &at) {
    const TransposePlan &p = *task.plan;
    const TransposeShape &s = p.s;
    const TransposeParams &params = task.step->as<TransposeParams>();
    const Tensor &dst = task.step->out[0];
    const Span z = taps_inside(p.z, at.z, at.qz, at.qz, s.in.z),
               y = taps_inside(p.y, at.y, at.qy, at.qy + at.rows - 1, s.in.y);
    t.z = task.z + z.begin;
    t.nz = z.end - z.begin;
    t.y = task.y + y.begin;
    t.ny = y.end - y.begin;
    const float *src = task.source + at.qz * task.z_step + at.qy * task.y_step;
    float *out = dst.as<float>() + task.n * dst.strides[0] + o / kBlock * dst.strides[1] +
                 (at.qz * s.stride.z + at.z) * dst.strides[2] + (at.qy * s.stride.y + at.y) * dst.strides[3];
    for (int64_t phase = 0; phase < s.stride.x; ++phase) {
        const int64_t end = least(task.end.x, ceil_div(s.out.x - phase, s.stride.x)), count = end - task.origin.x;
        if (count <= 0)
            continue;
        t.x = task.x + p.x.begin[phase];
        t.nx = p.x.begin[phase + 1] - p.x.begin[phase];
        const int64_t tiles = ceil_div(count, kTileX), narrow = count / tiles, wide = count % tiles;
        // With several rows a tile is as wide as the volume; a phase may have one position less.
        const bool together = has_rows(at.rows, narrow);
        for (int64_t row = 0; row < (together ? 1 : at.rows); ++row)
            for (int64_t i = 0, x = task.origin.x; i < tiles; ++i) {
                const int64_t width = narrow + (i < wide);
                t.src = src + row * task.y_step + x * kBlock;
                t.dst = out + row * t.dst_row + (x * s.stride.x + phase) * kBlock;
                conv_tile(blocks, together ? static_cast<int>(at.rows) : 1, static_cast<int>(width), false)(t);
                x += width;
            }
        for (int64_t row = 0; row < at.rows && t.finish; ++row)
            for (int64_t b = 0; b < blocks; ++b)
                activate_positions(params.activation, params.alpha, params.beta,
                                   out + row * t.dst_row + b * t.dst_block +
                                       (task.origin.x * s.stride.x + phase) * kBlock,
                                   count, t.dst_x, least(kBlock, real - b * kBlock));
    }
}

// A tile of output channels over input blocks [block, block + count), for all phases of the box.
static void run_channels(const TransposeTask &task, int64_t out_tile, int64_t block, int64_t count) {
    const TransposePlan &p = *task.plan;
    const TransposeShape &s = p.s;
    const TransposeParams &params = task.step->as<TransposeParams>();
    const Tensor &bias = task.step->input(kBias), &dst = task.step->out[0];
    const int64_t o = out_tile * kTileChannels, real = least(kTileChannels, s.out_channels - o);
    const int blocks = static_cast<int>(ceil_div(real, kBlock));
    const int64_t width = blocks * kBlock;
    float start[kTileChannels] = {};
    for (int64_t i = 0; bias.present() && i < real; ++i)
        start[i] = bias.as<const float>()[o + i];
    Tile t{};
    t.start = block == 0 ? start : nullptr;
    t.finish = block + count == p.in_blocks;
    t.past_caches =
        block == 0 && t.finish && outgrows_caches(dst) && in_tile(params.activation, params.alpha, params.beta);
    t.blocks = count;
    t.src_block = task.block_step;
    t.inner = kBlock;
    t.inner_last = least(kBlock, s.in_channels - (block + count - 1) * kBlock);
    t.unit = t.inner * width;
    t.unit_last = t.inner_last * width;
    t.weight_block = s.taps() * kBlock * width;
    t.weights = task.step->in[kWeights].as<const float>() + o * s.in_channels * s.taps() + block * t.weight_block;
    t.src_row = task.y_step;
    t.dst_row = s.stride.y * dst.strides[3];
    t.dst_x = s.stride.x * kBlock;
    t.dst_block = dst.strides[1];
    t.keep = static_cast<int>(real - (blocks - 1) * kBlock);
    set_epilogue(params.activation, params.alpha, params.beta, t);
    for (int64_t qz = task.origin.z; qz < task.end.z; ++qz)
        for (int64_t qy = task.origin.y; qy < task.end.y;) {
            const int64_t rows = task.end.y - qy >= p.rows ? p.rows : 1;
            for (int64_t z = 0; z < least(s.stride.z, s.out.z - qz * s.stride.z); ++z)
                for (int64_t y = 0; y < s.stride.y; ++y) {
                    const int64_t there = ceil_div(s.out.y - y, s.stride.y) - qy; // rows that this phase has
                    if (there >= rows)
                        run_phase_row(task, t, o, blocks, real, {qz, qy, rows, z, y});
                    else
                        for (int64_t row = 0; row < there; ++row)
                            run_phase_row(task, t, o, blocks, real, {qz, qy + row, 1, z, y});
                }
            qy += rows;
        }
}

static uint64_t scratch(const Step &step, uint32_t threads) {
    return empty(step.out[0]) ? 0 : static_cast<uint64_t>(make_plan(step).stage_floats) * threads * 4;
}

static Message run(const Step &step, const Env &env) {
    if (empty(step.out[0]))
        return nullptr;
    const TransposePlan p = make_plan(step);
    const int64_t boxes = p.boxes.z * p.boxes.y * p.boxes.x;
    env.parallel(p.s.n * boxes * p.pieces, [&](int64_t index, uint32_t worker) {
        TransposeTask task;
        task.plan = &p;
        task.step = &step;
        const int64_t piece = index % p.pieces, box = index / p.pieces % boxes;
        task.n = index / (p.pieces * boxes);
        task.origin = {box / (p.boxes.y * p.boxes.x) * p.box.z, box / p.boxes.x % p.boxes.y * p.box.y,
                       box % p.boxes.x * p.box.x};
        for (int i = 0; i < 3; ++i)
            task.end[i] = least(p.q[i], task.origin[i] + p.box[i]);
        task.stage = reinterpret_cast<float *>(env.scratch) + worker * p.stage_floats;
        for (int64_t block = 0; block < p.in_blocks; block += p.chunk) {
            const int64_t count = least(p.chunk, p.in_blocks - block);
            open_source(task, block, count);
            for (int64_t tile = p.out_tiles * piece / p.pieces; tile < p.out_tiles * (piece + 1) / p.pieces; ++tile)
                run_channels(task, tile, block, count);
        }
        stream_fence();
    });
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(conv_transpose3d, {{"conv_transpose3d.direct", 1, TransposeParamsText, sizeof(TransposeParams),
                                    check_direct, run, scratch, pack_bytes, pack},
                                   {"conv_transpose3d.grouped", 1, TransposeParamsText, sizeof(TransposeParams),
                                    check_grouped, run_grouped, nullptr, nullptr, nullptr}})
