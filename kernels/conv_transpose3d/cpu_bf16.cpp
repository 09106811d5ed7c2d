// conv_transpose3d.bf16: transposed convolution whose kernel is its stride (2 x 2 x 2 by 2 and its like), by dot
// products of bfloat16: no two taps meet in an output, so each tap is a 1 x 1 x 1 convolution whose results lie a
// stride apart. A task is a few rows of the source, for all taps and output channels.
#include "contract.h"
#include "conv3d/dot_finish.h"
#include "conv3d/dot_pack.h"
#include "conv3d/dot_stage.h"

namespace voxelrt::VOXELRT_ISA {

constexpr int64_t kTaskPositions = 256; // of the source, at least
constexpr int64_t kMostRowBytes = 64ll << 20;

static bool has_dot_instruction() {
#if defined(VOXELRT_ISA_avx512)
    static const bool present = __builtin_cpu_supports("avx512bf16") != 0;
    return present;
#else
    return false;
#endif
}

static Message check_bfloat(const Step &given) {
    TransposeParams params = given.as<TransposeParams>();
    if (params.precision != 1 || params.algorithm < kBestWay || params.algorithm > kWidenedWay)
        return fail("precision %d and algorithm %d are not this kernel's", params.precision, params.algorithm);
    if (given.inputs < 2 || given.inputs > 3 || given.outputs != 1)
        return fail("takes 2 or 3 inputs and one output, not %d and %d", given.inputs, given.outputs);
    Tensor in[3], out = given.out[0];
    for (int i = 0; i < given.inputs; ++i)
        in[i] = given.in[i];
    Tensor *volumes[] = {&in[kSource], &out};
    for (Tensor *t : volumes) {
        if (!stored_float(t->dtype) || !blocked_rows(*t))
            return "takes blocked volumes of float32 or bfloat16 without gaps along x";
        t->dtype = VOXELRT_F32; // what the shared checks know
    }
    params.precision = params.algorithm = 0;
    if (Message message = check_transpose({&params, in, &out, given.inputs, 1}))
        return message;
    if (params.groups != 1 || in[kSource].dims[1] < 1)
        return "takes one group of at least one channel";
    for (int i = 0; i < 3; ++i)
        if (params.kernel[i] != params.stride[i] || params.dilation[i] != 1 || params.pad_begin[i] != 0 ||
            params.pad_end[i] != 0 || params.output_padding[i] != 0)
            return "takes kernels as large as their stride, without padding or dilation";
    if (empty(out))
        return nullptr;
    const TransposeShape s = transpose_shape(given);
    const Tensor &weights = in[kWeights];
    const int64_t wanted = dot_weight_bytes(kBfloat, s.in_channels, s.taps(), s.out_channels);
    if (weights.dtype != VOXELRT_F32 || weights.rank != 1 || !weights.contiguous() || wanted == 0 ||
        weights.dims[0] < wanted / 4)
        return "the packed weights are too short";
    for (int i = 0; i < 5; ++i)
        if (in[kSource].strides[i] > kMostElements || in[kSource].strides[i] < -kMostElements ||
            out.strides[i] > kMostElements)
            return "a stride is too large";
    int64_t row = ceil_div(s.in_channels, kBlock) * kBlock * 2;
    if (__builtin_mul_overflow(row, s.in.x + kTaskPositions, &row) || row > kMostRowBytes)
        return "a row of the source takes too much memory";
    return nullptr;
}

static uint64_t pack_bytes(const void *params, const Tensor &raw) {
    const TransposeParams &p = *static_cast<const TransposeParams *>(params);
    if (raw.rank != 5 || raw.dtype != VOXELRT_F32 || !raw.contiguous() || p.groups != 1 || raw.dims[2] != p.kernel[0] ||
        raw.dims[3] != p.kernel[1] || raw.dims[4] != p.kernel[2])
        return 0;
    int64_t taps;
    if (__builtin_mul_overflow(raw.dims[2] * raw.dims[3], raw.dims[4], &taps))
        return 0;
    return static_cast<uint64_t>(dot_weight_bytes(kBfloat, raw.dims[0], taps, raw.dims[1]));
}

static void pack(const void *, const Tensor &raw, char *packed) { // (I, O, kz, ky, kx)
    const int64_t taps = raw.dims[2] * raw.dims[3] * raw.dims[4];
    pack_bfloats({raw.data, raw.dims[1], raw.dims[0], taps, taps, raw.dims[1] * taps},
                 PackedChannels(1, 0, raw.dims[0]), packed);
}

struct RowsPlan {
    TransposeShape s;
    DotWay way;
    bool staged, past_caches;
    int64_t in_blocks, out_tiles, rows, tasks; // rows of a task; tasks of an item
    int64_t row_units() const { return s.in.x * dot_units(kBfloat); }
    int64_t stage_units() const { return staged ? in_blocks * rows * row_units() : 0; }
};

static RowsPlan rows_plan(const Step &step) {
    const Tensor &src = step.in[kSource];
    const TransposeParams &params = step.as<TransposeParams>();
    RowsPlan p{};
    p.s = transpose_shape(step);
    p.way = params.algorithm == kWidenedWay || !has_dot_instruction() ? kWidenedWay : kBestWay;
    p.staged = src.pending() || src.dtype != VOXELRT_BF16;
    p.past_caches = outgrows_caches(step.out[0]) && p.s.stride.x == 1;
    p.in_blocks = ceil_div(p.s.in_channels, kBlock);
    p.out_tiles = ceil_div(p.s.out_channels, kTileChannels);
    p.rows = least(p.s.in.y, ceil_div(kTaskPositions, p.s.in.x));
    p.tasks = p.s.in.z * ceil_div(p.s.in.y, p.rows);
    return p;
}

// Where the rows of a task begin: in the source, or staged.
struct RowsSource {
    const uint32_t *first;
    int64_t block, row;
};

static RowsSource open_rows(const Step &step, const RowsPlan &p, int64_t n, int64_t z, int64_t y, int64_t rows,
                            uint32_t *stage) {
    const Tensor &src = step.in[kSource];
    if (!p.staged) {
        const BFloat *from = src.as<const BFloat>() + n * src.strides[0] + z * src.strides[2] + y * src.strides[3];
        return {reinterpret_cast<const uint32_t *>(from), src.strides[1] / 2, src.strides[3] / 2};
    }
    static const int32_t only[1] = {0};
    DotBox box{};
    box.first = {z, y, 0};
    box.z = 1;
    box.y = rows;
    box.length = p.s.in.x;
    box.stride = box.residues = 1;
    box.residue = only;
    box.in = p.s.in;
    box.unit = dot_units(kBfloat);
    const int64_t block = rows * p.row_units();
    for (int64_t b = 0; b < p.in_blocks; ++b)
        dot_stage(box, src, n, b, BfloatUnits(Codes{}), stage + b * block);
    return {stage, block, p.row_units()};
}

// All taps of a row of the source, for the output channels of `finish`; dst begins at the row's first output.
static void run_row(const RowsPlan &p, const RowsSource &source, const uint32_t *row, const uint32_t *weights,
                    const DotFinish &finish, int64_t dst) {
    static const DotTile::Step none{0, 0};
    const TransposeShape &s = p.s;
    const Tensor &to = *finish.dst;
    alignas(64) float sums[kDotSums];
    DotTile t{};
    t.z = t.y = t.x = &none;
    t.nz = t.ny = t.nx = 1;
    t.blocks = p.in_blocks;
    t.src_block = source.block;
    t.src_x = dot_units(kBfloat);
    t.units = units_of_block(kBfloat, s.in_channels, 0);
    t.units_last = units_of_block(kBfloat, s.in_channels, p.in_blocks - 1);
    t.weight_block = s.taps() * t.units * finish.blocks * kBlock;
    t.sums = sums;
    const int64_t tiles = ceil_div(s.in.x, kTileX);
    for (int64_t i = 0, x = 0; i < tiles; ++i) {
        const int64_t width = s.in.x / tiles + (i < s.in.x % tiles);
        const DotFunction function = dot_tile(kBfloat, p.way, finish.blocks, 1, static_cast<int>(width), false);
        t.src = row + x * dot_units(kBfloat);
        for (int64_t tap = 0; tap < s.taps(); ++tap) {
            const int64_t kz = tap / (s.kernel.y * s.kernel.x), ky = tap / s.kernel.x % s.kernel.y,
                          kx = tap % s.kernel.x;
            const DotTile::Step weight_step{0, tap}; // the last block of channels has fewer units a tap
            t.z = &weight_step;
            t.weights = weights;
            function(t);
            const int64_t at = dst + kz * to.strides[2] + ky * to.strides[3] + (x * s.stride.x + kx) * kBlock;
            finish_dots(finish, sums, width, 0, width, at, 0, s.stride.x * kBlock);
        }
        x += width;
    }
}

static void run_rows(const Step &step, const RowsPlan &p, int64_t task, uint32_t *stage) {
    const TransposeShape &s = p.s;
    const TransposeParams &params = step.as<TransposeParams>();
    const Tensor &dst = step.out[0];
    const int64_t n = task / p.tasks, pieces = ceil_div(s.in.y, p.rows), z = task % p.tasks / pieces,
                  y = task % pieces * p.rows, rows = least(p.rows, s.in.y - y);
    const RowsSource source = open_rows(step, p, n, z, y, rows, stage);
    for (int64_t tile = 0; tile < p.out_tiles; ++tile) {
        DotFinish finish =
            make_finish(dst, kBfloat, tile, step.input(kBias), params.activation, params.alpha, params.beta);
        finish.past_caches = p.past_caches;
        const uint32_t *weights =
            step.in[kWeights].as<const uint32_t>() + finish.o * units_of_channels(kBfloat, s.in_channels) * s.taps();
        for (int64_t row = 0; row < rows; ++row)
            run_row(p, source, source.first + row * source.row, weights, finish,
                    n * dst.strides[0] + finish.o / kBlock * dst.strides[1] + z * s.stride.z * dst.strides[2] +
                        (y + row) * s.stride.y * dst.strides[3]);
    }
}

static uint64_t scratch(const Step &step, uint32_t threads) {
    return empty(step.out[0]) ? 0 : static_cast<uint64_t>(rows_plan(step).stage_units()) * threads * 4;
}

static Message run(const Step &step, const Env &env) {
    if (empty(step.out[0]))
        return nullptr;
    const RowsPlan p = rows_plan(step);
    env.parallel(p.s.n * p.tasks, [&](int64_t task, uint32_t worker) {
        run_rows(step, p, task, reinterpret_cast<uint32_t *>(env.scratch) + worker * p.stage_units());
        stream_fence();
    });
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(conv_transpose3d_bf16, {{"conv_transpose3d.bf16", 1, TransposeParamsText, sizeof(TransposeParams),
                                         check_bfloat, run, scratch, pack_bytes, pack}})
