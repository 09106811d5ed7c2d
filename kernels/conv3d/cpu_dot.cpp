// conv3d.bf16 and conv3d.int8: direct convolution by dot products of narrow numbers.
//
// Sources are rounded when a task stages its box (what is stored in bfloat16 already is copied), sums are float32 or
// int32 over all input channels and taps, and the result is float32 or bfloat16. Integers: a source's codes are
// unsigned (signed ones are moved up by 128), weights are signed with a zero of 0; what the code of zero adds to a sum
// is that code times the sum of the weights, packed beside them.
#include "dot_finish.h"
#include "dot_plan.h"
#include "dot_stage.h"
#include "dot_tiles.h"

namespace voxelrt::VOXELRT_ISA {

DotFunction dot_tile(DotKind kind, DotWay way, int blocks, int rows, int x, bool loose) {
#if defined(VOXELRT_ISA_avx512)
    constexpr int kBfloatUnits = dot_units(kBfloat), kIntegerUnits = dot_units(kInteger);
    if (way == kBestWay && kind == kBfloat)
        return blocks == 1 ? dot_of<BfloatBest, kBfloatUnits, 1>(rows, x, loose)
                           : dot_of<BfloatBest, kBfloatUnits, 2>(rows, x, loose);
    if (way == kBestWay)
        return blocks == 1 ? dot_of<IntegerBest, kIntegerUnits, 1>(rows, x, loose)
                           : dot_of<IntegerBest, kIntegerUnits, 2>(rows, x, loose);
#else
    (void)way, (void)rows, (void)loose;
#endif
    if (kind == kBfloat)
        return blocks == 1 ? loose_dot_of<BfloatWidened, false, 1>(x)
                           : loose_dot_of<BfloatWidened, false, kTileBlocks>(x);
    return blocks == 1 ? loose_dot_of<IntegerWidened, true, 1>(x) : loose_dot_of<IntegerWidened, true, kTileBlocks>(x);
}

static Codes codes_of(const IntegerParams &p) {
    return {p.source_scale, p.source_zero + (p.source_signed ? 128 : 0)};
}

// ---- checks ----

static Message check_operand_dtypes(const Step &step) {
    const Tensor *volumes[] = {&step.in[kSource0], &step.in[kSource1], &step.out[kDestination], &step.input(kResidual)};
    for (const Tensor *t : volumes) {
        if (!t->present())
            continue;
        if (!stored_float(t->dtype) || (t->layout == VOXELRT_LINEAR && t->dtype != VOXELRT_F32))
            return "takes blocked volumes of float32 or bfloat16, and row-major ones of float32";
        if (t->layout == VOXELRT_BLOCKED16 && !blocked_rows(*t))
            return "takes blocked volumes without gaps along x";
    }
    if (step.in[kWeights].dtype != VOXELRT_F32)
        return "takes packed weights";
    return nullptr;
}

static Message check_dots(const Step &given, DotKind kind) {
    if (given.inputs < 3 || given.inputs > kWeightScales + 1 || given.outputs < 1)
        return "takes 3 inputs and one output at least";
    const ConvParams &params = given.as<ConvParams>();
    if (params.precision != kPrecisionOf[kind])
        return fail("precision %d is not this kernel's", params.precision);
    const AsFloat32 seen(given);
    if (Message message = check_conv(seen.step, kBestWay, kWidenedWay))
        return message;
    if (Message message = check_operand_dtypes(given))
        return message;
    const Tensor &src = given.in[kSource0], &weights = given.in[kWeights], &dst = given.out[kDestination];
    const ConvShape s = blocked_shape(given);
    if (s.groups != 1 || s.in_channels < 1)
        return "takes one group of at least one channel";
    if (src.layout == VOXELRT_LINEAR && (s.in_channels > 4 || given.in[kSource1].present() || src.pending()))
        return "takes a row-major source of 1 to 4 channels with nothing pending; others are blocked";
    for (int i = 0; i < 3; ++i)
        if (s.kernel[i] > kMostTaps)
            return fail("a kernel of %lld taps along an axis; at most %d are supported",
                        static_cast<long long>(s.kernel[i]), kMostTaps);
    if (Message message = check_statistics(seen.step))
        return message;
    if (empty(dst))
        return nullptr;
    if (Message message = check_strides(given))
        return message;
    const int64_t wanted = dot_weight_bytes(kind, s.in_channels, s.taps(), s.out_channels);
    if (weights.rank != 1 || !weights.contiguous() || wanted == 0 || weights.dims[0] < wanted / 4)
        return "the packed weights are too short";
    int64_t smallest = ceil_div(s.in_channels, kBlock) * kBlock * 4 * s.kernel.x;
    const int64_t reach[3] = {(s.kernel.z - 1) * s.dilation.z + 1, (s.kernel.y - 1) * s.dilation.y + 1,
                              (s.kernel.x - 1) * s.dilation.x + 160};
    for (const int64_t axis : reach)
        if (__builtin_mul_overflow(smallest, axis, &smallest) || smallest > kMostStageBytes)
            return "reaches too far for what it stages";
    return nullptr;
}

static Message check_bfloat(const Step &step) {
    return step.inputs > kWeightScales ? "takes at most 5 inputs" : check_dots(step, kBfloat);
}

static Message check_integer(const Step &step) {
    if (step.inputs != kWeightScales + 1)
        return fail("takes 6 inputs, not %d", step.inputs);
    if (Message message = check_dots(step, kInteger))
        return message;
    const IntegerParams &p = step.as<IntegerParams>();
    if (!(p.source_scale > 0.0f) || !(1.0f / p.source_scale < __builtin_inff()))
        return "the scale of the source is not a positive number";
    if (p.source_signed < 0 || p.source_signed > 1 || codes_of(p).zero < 0 || codes_of(p).zero > 255)
        return fail("a zero point of %d", p.source_zero);
    const Tensor &scales = step.in[kWeightScales];
    const ConvShape s = blocked_shape(step);
    if (scales.dtype != VOXELRT_F32 || scales.rank != 1 || scales.dims[0] != s.out_channels || !scales.contiguous() ||
        scales.pending())
        return "the scales of the weights have one float32 an output channel";
    int64_t most_sum;
    if (__builtin_mul_overflow(s.in_channels * 255 * 128, s.taps(), &most_sum) || most_sum > INT32_MAX)
        return "sums over so many channels and taps do not fit 32 bits";
    return nullptr;
}

// ---- packing ----

static uint64_t pack_bytes_of(DotKind kind, const void *params, const Tensor &raw) {
    const ConvParams &p = *static_cast<const ConvParams *>(params);
    if (raw.rank != 5 || raw.dtype != (kind == kBfloat ? VOXELRT_F32 : VOXELRT_I8) || !raw.contiguous() ||
        p.groups != 1 || raw.dims[2] != p.kernel[0] || raw.dims[3] != p.kernel[1] || raw.dims[4] != p.kernel[2])
        return 0;
    int64_t taps = raw.dims[2] * raw.dims[3];
    if (__builtin_mul_overflow(taps, raw.dims[4], &taps))
        return 0;
    const PackedChannels channels(1, p.channels0, raw.dims[1]);
    return static_cast<uint64_t>(dot_weight_bytes(kind, channels.all, taps, raw.dims[0]));
}
static RawWeights raw_weights(const Tensor &raw) {
    const int64_t taps = raw.dims[2] * raw.dims[3] * raw.dims[4];
    return {raw.data, raw.dims[0], raw.dims[1], taps, raw.dims[1] * taps, taps};
}
static uint64_t bfloat_bytes(const void *params, const Tensor &raw) {
    return pack_bytes_of(kBfloat, params, raw);
}
static uint64_t integer_bytes(const void *params, const Tensor &raw) {
    return pack_bytes_of(kInteger, params, raw);
}
static void pack_bfloat(const void *params, const Tensor &raw, char *packed) {
    const ConvParams &p = *static_cast<const ConvParams *>(params);
    pack_bfloats(raw_weights(raw), PackedChannels(1, p.channels0, raw.dims[1]), packed);
}
static void pack_integer(const void *params, const Tensor &raw, char *packed) {
    const ConvParams &p = *static_cast<const ConvParams *>(params);
    pack_integers(raw_weights(raw), PackedChannels(1, p.channels0, raw.dims[1]), packed);
}

// ---- a task ----

struct DotSource {
    const uint32_t *first; // of output position (0, 0, 0) of the volume and tap (0, 0, 0)
    int64_t block, z, y;
};

template <class U> static DotSource open_dots(Task &task, const U &units, uint32_t outside) {
    const ConvPlan &p = *task.plan;
    const ConvShape &s = p.s;
    const Tensor &src = task.step->in[kSource0], &other = task.step->in[kSource1];
    if (!p.staged) { // bfloat16 as it lies: two numbers a unit
        const BFloat *from = src.as<const BFloat>() + task.n * src.strides[0];
        return {reinterpret_cast<const uint32_t *>(from), src.strides[1] / 2, src.strides[2] / 2, src.strides[3] / 2};
    }
    DotBox box{};
    for (int i = 0; i < 3; ++i)
        box.first[i] = task.origin[i] * s.stride[i] - s.pad[i];
    box.z = p.rows_z;
    box.y = p.rows_y;
    box.length = p.length;
    box.stride = s.stride.x;
    box.residues = p.residues;
    box.residue = p.residue;
    box.in = s.in;
    box.unit = p.unit;
    box.outside = outside;
    box.planes_outside = U::kKind == kInteger;
    box.rows_outside = p.rows > 1 || box.planes_outside;
    uint32_t *stage = reinterpret_cast<uint32_t *>(task.stage);
    const int64_t each = block_floats(p), row = p.residues * p.length * p.unit;
    const int64_t blocks0 = p.planes ? 1 : ceil_div(s.channels0, kBlock);
    for (int64_t b = 0; b < p.in_blocks; ++b)
        dot_stage(box, b < blocks0 ? src : other, task.n, b < blocks0 ? b : b - blocks0, units, stage + b * each);
    const int64_t from_origin =
        task.origin.z * s.stride.z * p.rows_y * row + task.origin.y * s.stride.y * row + task.origin.x * p.unit;
    return {stage - from_origin, each, p.rows_y * row, row};
}

// Taps by units rather than floats.
struct DotTaps {
    DotTile::Step z[kMostTaps], y[kMostTaps], x[kMostTaps];
};

static void fill_dot_taps(DotTaps &taps, const ConvPlan &p, const DotSource &source) {
    const ConvShape &s = p.s;
    for (int64_t k = 0; k < s.kernel.z; ++k)
        taps.z[k] = {k * s.dilation.z * source.z, k * s.kernel.y * s.kernel.x};
    for (int64_t k = 0; k < s.kernel.y; ++k)
        taps.y[k] = {k * s.dilation.y * source.y, k * s.kernel.x};
    for (int64_t k = 0; k < s.kernel.x; ++k)
        taps.x[k] = {(p.staged_row[k] * p.length + k * s.dilation.x / s.stride.x) * p.unit, k};
}

// Rows oy .. oy + rows - 1 of plane oz, cut into tiles of nearly equal width.
static void dot_rows(const Task &task, const DotPlan &d, const DotTaps &taps, const DotSource &source,
                     const DotFinish &finish, DotTile t, int64_t oz, int64_t oy, int64_t rows) {
    const ConvPlan &p = d.p;
    const ConvShape &s = p.s;
    TapRange z{0, s.kernel.z}, y{0, s.kernel.y};
    if (d.kind == kBfloat) { // zeros need not be added; codes of zero must
        z = taps_inside(oz, s.stride.z, s.pad.z, s.dilation.z, s.kernel.z, s.in.z);
        const TapRange first = taps_inside(oy, s.stride.y, s.pad.y, s.dilation.y, s.kernel.y, s.in.y),
                       last = taps_inside(oy + rows - 1, s.stride.y, s.pad.y, s.dilation.y, s.kernel.y, s.in.y);
        y = {least(first.begin, last.begin), most(first.end, last.end)};
    }
    t.z = taps.z + z.begin;
    t.nz = z.end - z.begin;
    t.y = taps.y + y.begin;
    t.ny = y.end - y.begin;
    const Tensor &dst = *finish.dst;
    const bool blocked = dst.layout == VOXELRT_BLOCKED16;
    const uint32_t *src = source.first + oz * s.stride.z * source.z + oy * s.stride.y * source.y;
    const auto at = [&](const Tensor &to, int64_t row, int64_t x) {
        return task.n * to.strides[0] + (blocked ? finish.o / kBlock : finish.o) * to.strides[1] + oz * to.strides[2] +
               (oy + row) * to.strides[3] + x * to.strides[4];
    };
    const int64_t count = task.end.x - task.origin.x, widest = rows > 1 ? kTileX / rows : kTileX,
                  tiles = ceil_div(count, widest);
    alignas(64) float sums[kDotSums];
    t.sums = sums;
    for (int64_t i = 0, x = task.origin.x; i < tiles; ++i) {
        const int64_t width = count / tiles + (i < count % tiles);
        t.src = src + x * p.unit;
        dot_tile(d.kind, d.way, finish.blocks, static_cast<int>(rows), static_cast<int>(width), p.planes)(t);
        for (int64_t row = 0; row < rows; ++row)
            finish_dots(finish, sums, rows * width, row * width, width, at(dst, row, x),
                        finish.residual ? at(*finish.residual, row, x) : 0, kBlock);
        x += width;
    }
}

static DotFinish dot_finish(const Task &task, const DotPlan &d, int64_t out_tile) {
    const Step &step = *task.step;
    const ConvParams &params = step.as<ConvParams>();
    const Tensor &residual = step.input(kResidual), &weights = step.in[kWeights];
    const ConvShape &s = d.p.s;
    DotFinish f = make_finish(step.out[kDestination], d.kind, out_tile, step.input(kBias), params.activation,
                              params.alpha, params.beta);
    f.residual = residual.present() ? &residual : nullptr;
    f.past_caches = d.p.past_caches;
    f.statistics = task.statistics ? task.statistics + (task.box * s.out_channels + f.o) * 2 : nullptr;
    if (d.kind == kInteger) {
        const IntegerParams &p = step.as<IntegerParams>();
        const char *packed_sums = weights.data + units_of_channels(kInteger, s.in_channels) * s.taps() *
                                                     ceil_div(s.out_channels, kBlock) * kBlock * 4;
        const int32_t *weight_sums = reinterpret_cast<const int32_t *>(packed_sums) + f.o;
        for (int64_t i = 0; i < f.real; ++i) {
            f.scale[i] = p.source_scale * step.in[kWeightScales].as<const float>()[f.o + i];
            f.bias[i] -= f.scale[i] * (static_cast<float>(codes_of(p).zero) * static_cast<float>(weight_sums[i]));
        }
    }
    return f;
}

static void dot_channels_run(const Task &task, const DotPlan &d, const DotTaps &taps, const DotSource &source,
                             int64_t out_tile) {
    const ConvPlan &p = d.p;
    const ConvShape &s = p.s;
    const DotFinish finish = dot_finish(task, d, out_tile);
    DotTile t{};
    t.blocks = p.in_blocks;
    t.src_block = source.block;
    t.src_x = p.unit;
    t.units = units_of_block(d.kind, s.in_channels, 0);
    t.units_last = units_of_block(d.kind, s.in_channels, p.in_blocks - 1);
    t.weight_block = s.taps() * t.units * finish.blocks * kBlock;
    t.weights =
        task.step->in[kWeights].as<const uint32_t>() + finish.o * units_of_channels(d.kind, s.in_channels) * s.taps();
    t.src_row = s.stride.y * source.y;
    t.x = taps.x;
    t.nx = s.kernel.x;
    for (int64_t oz = task.origin.z; oz < task.end.z; ++oz)
        for (int64_t oy = task.origin.y; oy < task.end.y;) {
            const int64_t rows = task.end.y - oy >= p.rows ? p.rows : 1;
            dot_rows(task, d, taps, source, finish, t, oz, oy, rows);
            oy += rows;
        }
}

template <class U> static void dot_task(Task &task, const DotPlan &d, int64_t piece, const Codes &codes) {
    const ConvPlan &p = d.p;
    const DotSource source = open_dots(task, U(codes), U::kKind == kInteger ? codes.zero_unit() : 0u);
    DotTaps taps;
    fill_dot_taps(taps, p, source);
    for (int64_t tile = p.out_tiles * piece / p.pieces; tile < p.out_tiles * (piece + 1) / p.pieces; ++tile)
        dot_channels_run(task, d, taps, source, tile);
}

// ---- the step ----

template <DotKind kKind> static uint64_t dot_scratch(const Step &step, uint32_t threads) {
    if (empty(step.out[kDestination]))
        return 0;
    const DotPlan d = dot_plan(step, kKind);
    return static_cast<uint64_t>(statistics_floats(step, d.p) + d.stage_units * threads) * 4;
}

template <class U> static Message run_dots(const Step &step, const Env &env) {
    if (empty(step.out[kDestination])) {
        if (step.outputs > 1 && step.out[kStatistics].present())
            std::memset(step.out[kStatistics].data, 0, static_cast<size_t>(step.out[kStatistics].count()) * 8);
        return nullptr;
    }
    const DotPlan d = dot_plan(step, U::kKind);
    const int64_t statistics = statistics_floats(step, d.p);
    double *sums = statistics ? reinterpret_cast<double *>(env.scratch) : nullptr;
    if (sums)
        std::memset(env.scratch, 0, static_cast<size_t>(statistics) * 4);
    float *workers = reinterpret_cast<float *>(env.scratch) + statistics;
    Codes codes;
    if constexpr (U::kKind == kInteger)
        codes = codes_of(step.as<IntegerParams>());
    env.parallel(tasks_of(d.p), [&](int64_t index, uint32_t worker) {
        Task task;
        const int64_t piece = place_task(task, d.p, step, index);
        task.stage = workers + worker * d.stage_units;
        task.statistics = sums ? sums + task.n * boxes_an_item(d.p) * d.p.s.out_channels * 2 : nullptr;
        dot_task<U>(task, d, piece, codes);
        stream_fence();
    });
    if (sums)
        sum_statistics(step, d.p, sums);
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(conv3d_dot, {{"conv3d.bf16", 1, ConvParamsText, sizeof(ConvParams), check_bfloat, run_dots<BfloatUnits>,
                              dot_scratch<kBfloat>, bfloat_bytes, pack_bfloat},
                             {"conv3d.int8", 1, IntegerParamsText, sizeof(IntegerParams), check_integer,
                              run_dots<IntegerUnits>, dot_scratch<kInteger>, integer_bytes, pack_integer}})
