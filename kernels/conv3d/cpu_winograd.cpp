// conv3d.winograd: convolutions of three taps an axis with a fraction of the products (README.md has the maths).
//
// Tiles of outputs are transformed so that the sum over taps becomes one product a point; the sum over channels is then
// a matrix product a point. A block of tiles goes through the three phases (transform, products, transform back)
// together.
#include "bfloat.h"
#include "winograd_ahead.h"
#include "winograd_gemm.h"
#include "winograd_pack.h"
#include "winograd_plan.h"

#include <cstring>

namespace voxelrt::VOXELRT_ISA {

// The tiles of a block, in the order in which they lie in memory.
struct Block {
    int64_t n;
    Axes first, size; // tiles
    int64_t count() const { return size.z * size.y * size.x; }
    Axes tile(int64_t i) const {
        return {first.z + i / (size.y * size.x), first.y + i / size.x % size.y, first.x + i % size.x};
    }
};

static int64_t blocks_an_item(const WinogradPlan &p) {
    return p.blocks.z * p.blocks.y * p.blocks.x;
}

static Block block_of(const WinogradPlan &p, int64_t index) {
    const int64_t at = index % blocks_an_item(p);
    Block b;
    b.n = index / blocks_an_item(p);
    b.first = {at / (p.blocks.y * p.blocks.x) * p.block.z, at / p.blocks.x % p.blocks.y * p.block.y,
               at % p.blocks.x * p.block.x};
    for (int i = 0; i < 3; ++i)
        b.size[i] = least(p.block[i], p.tiles[i] - b.first[i]);
    return b;
}

// The inputs of rows of tiles, staged plane by plane: zeros outside, a pending norm applied.
struct Staged {
    float *first;
    int64_t rows, columns;
    float *plane(const WinogradPlan &p, int64_t z) const { // a ring: the next tile's planes take the place of others
        return first + z % p.kind->in[0] * rows * columns * kBlock;
    }
};

// Positions [first, first + staged.columns) of a row.
template <class S>
static void stage_row(const Staged &staged, const S *row, int64_t first, int64_t width, const Norm &norm, float *to) {
    const Span there = inside(0, staged.columns, 1, first, width);
    for (int64_t x = 0; x < there.begin; ++x)
        store(to + x * kBlock, zero());
    const S *from = row + first * kBlock;
    if (norm.pending)
        for (int64_t x = there.begin; x < there.end; ++x)
            store(to + x * kBlock, normed(norm, load(from + x * kBlock)));
    else
        for (int64_t x = there.begin; x < there.end; ++x)
            store(to + x * kBlock, load(from + x * kBlock));
    for (int64_t x = there.end; x < staged.columns; ++x)
        store(to + x * kBlock, zero());
}

// Planes [begin, end), counted from the input `first`.
template <class S>
static void stage_planes(const WinogradPlan &p, const Staged &staged, const Tensor &t, int64_t before,
                         const Axes &first, const Norm &norm, int64_t begin, int64_t end) {
    for (int64_t z = begin; z < end; ++z) {
        float *to = staged.plane(p, z);
        const int64_t iz = first.z + z;
        for (int64_t y = first.y; y < first.y + staged.rows; ++y, to += staged.columns * kBlock) {
            const bool there = iz >= 0 && iz < p.s.in.z && y >= 0 && y < p.s.in.y;
            const S *row = t.as<const S>() + before + (there ? iz * t.strides[2] + y * t.strides[3] : 0);
            stage_row(staged, row, first.x, there ? p.s.in.x : 0, norm, to);
        }
    }
}

// The first input of a tile.
static Axes first_input(const WinogradPlan &p, const Axes &tile) {
    Axes first;
    for (int a = 0; a < 3; ++a)
        first[a] = tile[a] * p.kind->out[a] * p.kind->stride[a] - p.s.pad[a];
    return first;
}

// Tiles of a block and one block of input channels, into v: `rows` rows of them in every plane of tiles, from row
// `first_row`, in the planes [begin, end).
static void transform_inputs(const Step &step, const WinogradPlan &p, const Block &b, int64_t channel, int64_t begin,
                             int64_t end, int64_t first_row, int64_t rows, float *v, float *work) {
    const int64_t blocks0 = ceil_div(p.s.channels0, kBlock);
    const Tensor &t = step.in[channel < blocks0 ? kSource0 : kSource1];
    const int64_t within = channel < blocks0 ? channel : channel - blocks0;
    const int64_t before = b.n * t.strides[0] + within * t.strides[1];
    const Norm norm = norm_of(t, b.n, within);
    const TileKind &kind = *p.kind;
    const Staged staged{work + kWorkFloats, staged_length(kind, 1, rows), staged_length(kind, 2, b.size.x)};
    const Axes first = first_input(p, {b.first.z + begin, b.first.y + first_row, b.first.x});
    InputRow row{};
    row.y = staged.columns * kBlock;
    row.slot = p.slot;
    row.tiles = b.size.x;
    row.work = work;
    const int64_t step_z = int64_t(kind.out[0]) * kind.stride[0], step_y = int64_t(kind.out[1]) * kind.stride[1];
    int64_t made = 0;
    for (int64_t z = begin; z < end; ++z) {
        const int64_t from = (z - begin) * step_z;
        with_stored(t.dtype, [&](auto tag) {
            stage_planes<decltype(tag)>(p, staged, t, before, first, norm, most(made, from), from + kind.in[0]);
        });
        made = from + kind.in[0];
        for (int64_t y = 0; y < rows; ++y) {
            for (int k = 0; k < kind.in[0]; ++k)
                row.planes[k] = staged.plane(p, from + k) + y * step_y * row.y;
            row.v = v + (channel * b.count() + (z * b.size.y + first_row + y) * b.size.x) * kBlock;
            kind.input(row);
        }
    }
}

// The packed weights of one point and run of output channels.
static const float *weights_of(const Step &step, const WinogradPlan &p, int64_t point, int64_t run) {
    return step.in[kWeights].as<const float>() +
           (point * p.out_blocks * kBlock + run * kTileChannels) * p.s.in_channels;
}

// Products of one point and run of output channels. A private block's products lie one slot below its inputs.
template <class A>
static void multiply_points(const Step &step, const WinogradPlan &p, int64_t tiles, int64_t point, int64_t run,
                            const float *v, float *m, A ahead) {
    PointProduct product{};
    const int64_t blocks = least(kTileBlocks, p.out_blocks - run * kTileBlocks);
    product.channels = p.s.in_channels;
    product.next = v + (point + 1) * p.slot + run * p.s.in_channels * ceil_div(tiles, kTileX) * kBlock;
    product.v = v + point * p.slot;
    product.u = weights_of(step, p, point, run);
    product.m = m + point * p.output_slot + run * kTileBlocks * tiles * kBlock;
    product.v_block = product.m_block = tiles * kBlock;
    point_product(product, tiles, blocks, ahead);
}

// A staged tile of outputs into a volume of bfloat16; `size` of them lie inside.
static void store_tile(const TileKind &kind, const float *staged, const Axes &size, const Tensor &dst, BFloat *to) {
    for (int64_t z = 0; z < size.z; ++z)
        for (int64_t y = 0; y < size.y; ++y) {
            const float *from = staged + (z * kind.out[1] + y) * kind.out[2] * kBlock;
            BFloat *row = to + z * dst.strides[2] + y * dst.strides[3];
            for (int64_t x = 0; x < size.x; ++x)
                store(row + x * kBlock, load(from + x * kBlock));
        }
}

// Tiles [begin, end) of a block and one block of output channels, out of m. `totals`: 2 x 16, or null.
static void transform_outputs(const Step &step, const WinogradPlan &p, const Block &b, int64_t channel, int64_t begin,
                              int64_t end, const float *m, float *work, double *totals) {
    const WinogradParams &params = step.as<WinogradParams>();
    const Tensor &dst = step.out[kDestination], &bias = step.input(kBias), &residual = step.input(kResidual);
    const TileKind &kind = *p.kind;
    const int64_t keep = least(kBlock, p.s.out_channels - channel * kBlock);
    Tile epilogue{};
    set_epilogue(params.activation, params.alpha, params.beta, epilogue);
    OutputTile tile{};
    tile.slot = p.output_slot;
    tile.work = work;
    const bool as_floats = dst.dtype == VOXELRT_F32;
    float *const staged = work + kMostTilePoints * kBlock;
    tile.z = as_floats ? dst.strides[2] : int64_t(kind.out[1]) * kind.out[2] * kBlock;
    tile.y = as_floats ? dst.strides[3] : kind.out[2] * kBlock;
    tile.slope = broadcast(epilogue.slope);
    tile.lo = broadcast(epilogue.lo);
    tile.activates = params.activation != kNoActivation && in_tile(params.activation, params.alpha, params.beta);
    tile.hi = broadcast(epilogue.hi);
    tile.keep = first_lanes(static_cast<int>(keep));
    tile.all = keep == kBlock;
    tile.past_caches = p.past_caches && as_floats;
    tile.bias = bias.present() ? load_first(bias.as<const float>() + channel * kBlock, static_cast<int>(keep)) : zero();
    vf16 sums = zero(), squares = zero();
    tile.sums = totals ? &sums : nullptr;
    tile.squares = &squares;
    Doubles all_sums = Doubles::fill(0), all_squares = Doubles::fill(0);
    const int64_t before = b.n * dst.strides[0] + channel * dst.strides[1];
    const float *add = residual.present()
                           ? residual.as<const float>() + b.n * residual.strides[0] + channel * residual.strides[1]
                           : nullptr;
    for (int64_t i = begin; i < end; ++i) {
        const Axes at = b.tile(i);
        Axes first, left;
        bool whole = true;
        for (int a = 0; a < 3; ++a) {
            first[a] = at[a] * kind.out[a];
            left[a] = least(kind.out[a], p.s.out[a] - first[a]);
            whole = whole && left[a] == kind.out[a];
        }
        tile.m = m + (channel * b.count() + i) * kBlock;
        const int64_t here = before + first.z * dst.strides[2] + first.y * dst.strides[3] + first.x * kBlock;
        tile.dst = as_floats ? dst.as<float>() + here : staged;
        tile.planes = left.z;
        tile.rows = left.y;
        tile.positions = left.x;
        if (add) {
            tile.residual_z = residual.strides[2];
            tile.residual_y = residual.strides[3];
            tile.residual = add + first.z * tile.residual_z + first.y * tile.residual_y + first.x * kBlock;
        }
        (whole ? kind.whole_output : kind.output)(tile);
        if (totals) {
            all_sums = all_sums + Doubles::of(sums);
            all_squares = all_squares + Doubles::of(squares);
        }
        if (!in_tile(params.activation, params.alpha, params.beta))
            for (int64_t z = 0; z < left.z; ++z)
                for (int64_t y = 0; y < left.y; ++y)
                    activate_positions(params.activation, params.alpha, params.beta, tile.dst + z * tile.z + y * tile.y,
                                       left.x, kBlock, keep);
        if (!as_floats)
            store_tile(kind, staged, left, dst, dst.as<BFloat>() + here);
    }
    if (totals) {
        all_sums.store(totals);
        all_squares.store(totals + kBlock);
    }
    if (p.past_caches)
        stream_fence();
}

// ---- statistics: partial sums in the order of the blocks, whichever worker made them ----

static bool has_statistics(const Step &step) {
    return step.outputs > 1 && step.out[kStatistics].present();
}
static int64_t statistics_doubles(const Step &step, const WinogradPlan &p) {
    return has_statistics(step) ? p.s.n * blocks_an_item(p) * p.out_blocks * 2 * kBlock : 0;
}

// Sums of values without the bias, into sums with it.
static void sum_statistics(const Step &step, const WinogradPlan &p, const double *partial) {
    const Tensor &bias = step.input(kBias);
    double *to = step.out[kStatistics].as<double>();
    const int64_t width = p.out_blocks * 2 * kBlock;
    const double count =
        static_cast<double>(p.s.out.z) * static_cast<double>(p.s.out.y) * static_cast<double>(p.s.out.x);
    for (int64_t n = 0; n < p.s.n; ++n)
        for (int64_t o = 0; o < p.s.out_channels; ++o) {
            const double *from = partial + n * blocks_an_item(p) * width + o / kBlock * 2 * kBlock + o % kBlock;
            double sum = 0.0, squares = 0.0;
            for (int64_t block = 0; block < blocks_an_item(p); ++block) {
                sum += from[block * width];
                squares += from[block * width + kBlock];
            }
            const double b = bias.present() ? static_cast<double>(bias.as<const float>()[o]) : 0.0;
            to[(n * p.s.out_channels + o) * 2] = sum + count * b;
            to[(n * p.s.out_channels + o) * 2 + 1] = squares + b * (2.0 * sum + count * b);
        }
}

// ---- the step ----

struct Memory { // floats of the scratch
    int64_t statistics, block, blocks, work;
    int64_t floats(uint32_t threads) const { return statistics + block * blocks + work * threads; }
};
static Memory memory_of(const Step &step, const WinogradPlan &p, uint32_t threads) {
    const auto whole = [](int64_t floats) { return ceil_div(floats, kBlock) * kBlock; };
    return {whole(statistics_doubles(step, p) * 2), whole(block_floats(p)), p.shared ? 1 : threads, p.work_floats};
}

static uint64_t winograd_scratch(const Step &step, uint32_t threads) {
    if (empty(step.out[kDestination]))
        return 0;
    const WinogradPlan p = winograd_plan(step);
    return static_cast<uint64_t>(memory_of(step, p, threads).floats(threads)) * 4;
}

// The source of the block with this number, which need not exist.
static Ahead read_ahead(const Step &step, const WinogradPlan &p, int64_t index, int64_t calls) {
    Axes size{};
    const Block b = block_of(p, index);
    for (int a = 0; a < 3 && index < p.s.n * blocks_an_item(p); ++a)
        size[a] = staged_length(*p.kind, a, b.size[a]);
    return {step, p, b.n, first_input(p, b.first), size, calls};
}

static void run_private(const Step &step, const WinogradPlan &p, const Env &env, double *partial, float *blocks,
                        int64_t block_size, float *work) {
    env.parallel(p.s.n * blocks_an_item(p), [&](int64_t index, uint32_t worker) {
        const Block b = block_of(p, index);
        float *m = blocks + worker * block_size, *v = m + p.slot, *own = work + worker * p.work_floats;
        for (int64_t channel = 0; channel < p.in_blocks; ++channel)
            transform_inputs(step, p, b, channel, 0, b.size.z, 0, b.size.y, v, own);
        Ahead ahead = read_ahead(step, p, index + env.threads, p.points * p.out_tiles * runs_of(b.count()));
        for (int64_t point = 0; point < p.points; ++point)
            for (int64_t run = 0; run < p.out_tiles; ++run)
                multiply_points(step, p, b.count(), point, run, v, m, [&] { return ahead.next(); });
        for (int64_t channel = 0; channel < p.out_blocks; ++channel)
            transform_outputs(step, p, b, channel, 0, b.count(), m, own,
                              partial ? partial + (index * p.out_blocks + channel) * 2 * kBlock : nullptr);
    });
}

static void run_shared(const Step &step, const WinogradPlan &p, const Env &env, double *partial, float *v,
                       float *work) {
    float *m = v + p.points * p.slot;
    for (int64_t index = 0; index < p.s.n * blocks_an_item(p); ++index) {
        const Block b = block_of(p, index);
        const int64_t tiles = b.count(), rows = b.size.z * b.size.y;
        env.parallel(p.in_blocks * rows, [&](int64_t task, uint32_t worker) {
            const int64_t z = task % rows / b.size.y, y = task % b.size.y;
            transform_inputs(step, p, b, task / rows, z, z + 1, y, 1, v, work + worker * p.work_floats);
        });
        const int64_t products = p.points * p.out_tiles;
        env.parallel(products, [&](int64_t task, uint32_t) {
            const int64_t later = task + env.threads;
            WeightsAhead ahead(
                p, later < products ? weights_of(step, p, later / p.out_tiles, later % p.out_tiles) : nullptr,
                runs_of(tiles));
            multiply_points(step, p, tiles, task / p.out_tiles, task % p.out_tiles, v, m, [&] { return ahead.next(); });
        });
        env.parallel(p.out_blocks, [&](int64_t channel, uint32_t worker) {
            transform_outputs(step, p, b, channel, 0, tiles, m, work + worker * p.work_floats,
                              partial ? partial + (index * p.out_blocks + channel) * 2 * kBlock : nullptr);
        });
    }
}

static Message run_winograd(const Step &step, const Env &env) {
    if (empty(step.out[kDestination])) {
        if (has_statistics(step))
            std::memset(step.out[kStatistics].data, 0, static_cast<size_t>(step.out[kStatistics].count()) * 8);
        return nullptr;
    }
    const WinogradPlan p = winograd_plan(step);
    const Memory memory = memory_of(step, p, env.threads);
    float *const scratch = reinterpret_cast<float *>(env.scratch);
    double *partial = has_statistics(step) ? reinterpret_cast<double *>(scratch) : nullptr;
    float *blocks = scratch + memory.statistics, *work = blocks + memory.block * memory.blocks;
    if (p.shared)
        run_shared(step, p, env, partial, blocks, work);
    else
        run_private(step, p, env, partial, blocks, memory.block, work);
    if (partial)
        sum_statistics(step, p, partial);
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(conv3d_winograd, {{"conv3d.winograd", 1, WinogradParamsText, sizeof(WinogradParams), check_winograd,
                                   run_winograd, winograd_scratch, pack_winograd_bytes, pack_winograd}})
