// conv3d.direct: BLOCKED16 volumes (or a LINEAR first or last layer), packed weights, one or two sources.
// conv3d.grouped: LINEAR tensors, any groups and channels, raw weights; float32, float64, float16.
//
// The direct kernel keeps a tile of kWide output positions along x and one or two blocks of output channels in
// registers and walks all taps and input channels: each weight vector is used kWide times, each input number once a
// block. Tiles that touch the border read the outside from a row of zeros through a table of pointers.
#include "../common/elements.h"
#include "tap.h"
#include "window.h"

#include <cstring>

namespace voxelrt::VOXELRT_ISA {

#define CONV_PARAMS(S, A)                                                                                              \
    S(i32, algorithm)                                                                                                  \
    A(i32, kernel, 3)                                                                                                  \
    A(i32, stride, 3)                                                                                                  \
    A(i32, dilation, 3)                                                                                                \
    A(i32, pad_begin, 3)                                                                                               \
    A(i32, pad_end, 3)                                                                                                 \
    S(i32, groups)                                                                                                     \
    S(i32, channels0)                                                                                                  \
    S(i32, activation)                                                                                                 \
    S(f32, alpha)                                                                                                      \
    S(f32, beta)                                                                                                       \
    S(i32, output_channel_offset)                                                                                      \
    S(i32, precision)
VOXELRT_PARAMS(ConvParams, CONV_PARAMS)

// The input blocks that an output group reads: those of source 0, then those of source 1.
struct Channels {
    int64_t first, second; // channels of each source that one group reads
    int64_t blocks() const { return blocks_of(first) + blocks_of(second); }
};

static Channels channels_of(const ConvParams &p, int64_t per_group) {
    if (p.groups > 1)
        return {per_group, 0};
    const int64_t first = p.channels0 < per_group ? p.channels0 : per_group;
    return {first, per_group - first};
}

static int64_t taps_of(const ConvParams &p) {
    return int64_t(p.kernel[0]) * p.kernel[1] * p.kernel[2];
}

// ---- packing: [output block][input block][tap][16 input][16 output], zeros past the channels ----

static Message check_params(const ConvParams &p) {
    if (p.algorithm != 0 || p.precision != 0 || p.output_channel_offset != 0)
        return "algorithm, precision or output_channel_offset is not one that this version has";
    if (p.channels0 < 1)
        return "channels0 is at least 1";
    return check_window(p);
}

static uint64_t pack_bytes(const void *params, const Tensor &raw) {
    const ConvParams &p = *static_cast<const ConvParams *>(params);
    if (check_params(p) || raw.rank != 5 || raw.dtype != VOXELRT_F32 || raw.dims[2] != p.kernel[0] ||
        raw.dims[3] != p.kernel[1] || raw.dims[4] != p.kernel[2] || raw.dims[0] < 1 || raw.dims[1] < 1 ||
        raw.dims[0] > (1 << 24) || raw.dims[1] > (1 << 24) || taps_of(p) > (1 << 24))
        return 0;
    const Channels c = channels_of(p, raw.dims[1]);
    return uint64_t(blocks_of(raw.dims[0])) * uint64_t(c.blocks()) * uint64_t(taps_of(p)) * kBlock * kBlock * 4;
}

static void pack(const void *params, const Tensor &raw, char *packed) {
    const ConvParams &p = *static_cast<const ConvParams *>(params);
    const int64_t O = raw.dims[0], I = raw.dims[1], taps = taps_of(p);
    const Channels c = channels_of(p, I);
    const float *w = raw.as<const float>();
    float *to = reinterpret_cast<float *>(packed);
    for (int64_t ob = 0; ob < blocks_of(O); ++ob)
        for (int64_t ib = 0; ib < c.blocks(); ++ib)
            for (int64_t tap = 0; tap < taps; ++tap)
                for (int64_t i = 0; i < kBlock; ++i)
                    for (int64_t o = 0; o < kBlock; ++o) {
                        const bool second = ib >= blocks_of(c.first);
                        const int64_t lane = (second ? ib - blocks_of(c.first) : ib) * kBlock + i;
                        const int64_t channel = second ? c.first + lane : lane, out = ob * kBlock + o;
                        const bool real = lane < (second ? c.second : c.first) && out < O;
                        *to++ = real ? w[(out * I + channel) * taps + tap] : 0.0f;
                    }
}

// ---- the direct kernel ----

static Message check_source(const Tensor &t) {
    if (t.dtype != VOXELRT_F32 || t.rank != 5 || t.pending())
        return "sources are float32 volumes with nothing pending";
    if (t.layout == VOXELRT_BLOCKED16 && t.strides[4] != kBlock)
        return "a blocked source has gaps along x";
    return nullptr;
}

static Message check_direct(const Step &step) {
    const ConvParams &p = step.as<ConvParams>();
    if (Message message = check_params(p))
        return message;
    if (step.inputs < 3 || step.inputs > 5 || step.outputs < 1 || step.outputs > 2)
        return "takes 3 to 5 inputs (source, second source, weights, bias, residual) and 1 output";
    const Tensor &a = step.in[0], &b = step.in[1], &w = step.in[2], &residual = step.input(4), &out = step.out[0];
    if (step.outputs == 2 && step.out[1].present())
        return "statistics are not computed by this version";
    if (!a.present() || !w.present() || !out.present())
        return "source, weights or output is absent";
    if (Message message = check_source(a))
        return message;
    if (out.dtype != VOXELRT_F32 || out.rank != 5 || out.pending() ||
        (out.layout == VOXELRT_BLOCKED16 && out.strides[4] != kBlock))
        return "the output is a float32 volume without gaps along x";
    int64_t channels = a.dims[1];
    if (b.present()) {
        if (Message message = check_source(b))
            return message;
        if (a.layout != VOXELRT_BLOCKED16 || b.layout != VOXELRT_BLOCKED16 || p.groups != 1)
            return "two sources are blocked and of one group";
        for (int i = 0; i < 5; ++i)
            if (i != 1 && a.dims[i] != b.dims[i])
                return "the two sources differ in batch or size";
        channels += b.dims[1];
    }
    if (p.groups == 1 ? p.channels0 != a.dims[1] : p.channels0 < channels)
        return "channels0 is not the channels of the first source";
    if (channels % p.groups != 0 || out.dims[1] % p.groups != 0 ||
        (p.groups > 1 && (channels / p.groups % kBlock != 0 || out.dims[1] / p.groups % kBlock != 0 ||
                          a.layout != VOXELRT_BLOCKED16)))
        return "groups are whole blocks of channels";
    if (a.dims[0] != out.dims[0])
        return "batch of source and output differ";
    for (int i = 0; i < 3; ++i) {
        const int64_t reach = int64_t(p.dilation[i]) * (p.kernel[i] - 1) + 1;
        const int64_t padded = a.dims[2 + i] + p.pad_begin[i] + p.pad_end[i];
        if (out.dims[2 + i] != (padded < reach ? 0 : (padded - reach) / p.stride[i] + 1))
            return fail("axis %d of the output has %lld voxels", i, static_cast<long long>(out.dims[2 + i]));
    }
    const Channels c = channels_of(p, channels / p.groups);
    const int64_t numbers = blocks_of(out.dims[1]) * c.blocks() * taps_of(p) * kBlock * kBlock;
    if (w.dtype != VOXELRT_F32 || w.rank != 1 || !w.contiguous() || w.dims[0] != numbers || w.pending())
        return fail("the packed weights have %lld numbers, not %lld", static_cast<long long>(w.dims[0]),
                    static_cast<long long>(numbers));
    if (residual.present()) {
        if (residual.dtype != VOXELRT_F32 || residual.layout != out.layout || residual.rank != 5 || residual.pending())
            return "the residual has the output's dtype and layout";
        for (int i = 0; i < 5; ++i)
            if (residual.dims[i] != out.dims[i] || residual.strides[i] != out.strides[i])
                return "the residual has the output's dims and strides";
    }
    return check_bias(step.input(3), out.dims[1], VOXELRT_F32);
}

// What one task works with: a row of output at fixed n, z, y and a group of output blocks.
struct Row {
    const ConvParams *p;
    const Tensor *source[2];
    const float *base[2]; // of this batch item and, with groups, of this group's first block
    int64_t channels[2];
    const float *weights; // of this group of output blocks
    int64_t weight_step;  // numbers from an output block's weights to the next one's
    Range z, y;
    const float *zeros;
};

// One tile of W positions from x0 on: all taps, all input channels.
template <int OB, int W> static void tile(const Row &row, int64_t x0, float *result) {
    const ConvParams &p = *row.p;
    vf sum[OB * kParts][W] = {};
    const float *w = row.weights;
    const int64_t kz = p.kernel[0], ky = p.kernel[1], kx = p.kernel[2], tap_size = kBlock * kBlock;
    const int64_t sx = p.stride[2], dx = p.dilation[2], first = x0 * sx - p.pad_begin[2];
    for (int s = 0; s < 2 && row.source[s]; ++s) {
        const Tensor &t = *row.source[s];
        const bool blocked = t.layout == VOXELRT_BLOCKED16;
        const int64_t X = t.dims[4], step = t.strides[4], lane_step = blocked ? 1 : t.strides[1];
        const bool inside = first >= 0 && first + (W - 1) * sx + (kx - 1) * dx < X;
        for (int64_t c = 0; c < row.channels[s]; c += kBlock, w += kz * ky * kx * tap_size) {
            const int64_t lanes = row.channels[s] - c < kBlock ? row.channels[s] - c : kBlock;
            const float *block = row.base[s] + (blocked ? c / kBlock * t.strides[1] : c * t.strides[1]);
            for (int64_t iz = row.z.begin; iz < row.z.end; ++iz)
                for (int64_t iy = row.y.begin; iy < row.y.end; ++iy) {
                    const float *line = block + (row.z.first + iz * p.dilation[0]) * t.strides[2] +
                                        (row.y.first + iy * p.dilation[1]) * t.strides[3];
                    const float *taps = w + (iz * ky + iy) * kx * tap_size;
                    for (int64_t ix = 0; ix < kx; ++ix, taps += tap_size) {
                        const int64_t at = first + ix * dx;
                        if (inside) {
                            tap<OB, W, true>(sum, taps, row.weight_step, line + at * step, sx * step, nullptr, lanes,
                                             lane_step);
                            continue;
                        }
                        const float *table[W];
                        bool any = false;
                        for (int x = 0; x < W; ++x) {
                            const int64_t i = at + x * sx;
                            const bool in = i >= 0 && i < X;
                            any = any || in;
                            // A LINEAR source has its channels apart: zeros are then read with the same lane step.
                            table[x] = in ? line + i * step : row.zeros;
                        }
                        if (any)
                            tap<OB, W, false>(sum, taps, row.weight_step, nullptr, 0, table, lanes,
                                              lane_step);
                    }
                }
        }
    }
    for (int o = 0; o < OB; ++o)
        for (int x = 0; x < W; ++x)
            for (int k = 0; k < kParts; ++k)
                *reinterpret_cast<vf_at *>(result + (o * W + x) * kBlock + k * kLanes) = sum[o * kParts + k][x];
}

template <int OB> static void tile_of(int width, const Row &row, int64_t x0, float *result) {
    switch (width) {
#define VOXELRT_WIDTH(W)                                                                                               \
    case W:                                                                                                            \
        return tile<OB, W>(row, x0, result);
        VOXELRT_EACH_WIDTH(VOXELRT_WIDTH)
#undef VOXELRT_WIDTH
    default:
        return;
    }
}

static uint64_t direct_scratch(const Step &step, uint32_t) {
    // The row of zeros that tiles at the border read: as far as the lanes of a LINEAR source are apart.
    const Tensor &a = step.in[0];
    const int64_t lanes = a.dims[1] < kBlock ? a.dims[1] : kBlock;
    const int64_t reach = a.layout == VOXELRT_BLOCKED16 ? kBlock : (lanes - 1) * a.strides[1] + 1;
    return static_cast<uint64_t>(reach > kBlock ? reach : kBlock) * sizeof(float);
}

static Message run_direct(const Step &step, const Env &env) {
    const ConvParams &p = step.as<ConvParams>();
    const Tensor &a = step.in[0], &b = step.in[1], &out = step.out[0];
    if (out.count() == 0)
        return nullptr;
    std::memset(env.scratch, 0, direct_scratch(step, 1));
    const int64_t O = out.dims[1], Z = out.dims[2], Y = out.dims[3], X = out.dims[4];
    const int64_t groups = p.groups, group_blocks = groups > 1 ? O / groups / kBlock : blocks_of(O);
    const int64_t per_group = (a.dims[1] + (b.present() ? b.dims[1] : 0)) / groups;
    const Channels c = channels_of(p, per_group);
    const int64_t weight_step = c.blocks() * taps_of(p) * kBlock * kBlock;
    const int64_t pairs = (group_blocks + kBlocksAtOnce - 1) / kBlocksAtOnce;
    const int64_t tiles = (X + kWide - 1) / kWide;
    // Rows of one plane share a task while that leaves enough tasks; a task's weights stay in its cache.
    const int64_t rows = Y >= 8 ? 4 : 1, row_tasks = (Y + rows - 1) / rows;
    env.parallel(groups * pairs * out.dims[0] * Z * row_tasks, [&](int64_t task, uint32_t) {
        const int64_t y0 = task % row_tasks * rows, z = task / row_tasks % Z, n = task / (row_tasks * Z) % out.dims[0];
        const int64_t pair = task / (row_tasks * Z * out.dims[0]) % pairs;
        const int64_t group = task / (row_tasks * Z * out.dims[0] * pairs);
        const int64_t ob = group * group_blocks + pair * kBlocksAtOnce;
        const int64_t left = group_blocks - pair * kBlocksAtOnce;
        Row row{};
        row.p = &p;
        row.source[0] = &a;
        row.base[0] = a.as<const float>() + n * a.strides[0] + group * (per_group / kBlock) * (groups > 1 ? a.strides[1] : 0);
        row.channels[0] = c.first;
        if (b.present()) {
            row.source[1] = &b;
            row.base[1] = b.as<const float>() + n * b.strides[0];
            row.channels[1] = c.second;
        }
        row.weights = step.in[2].as<const float>() + ob * weight_step;
        row.weight_step = weight_step;
        row.zeros = reinterpret_cast<const float *>(env.scratch);
        row.z = taps_inside(z, a.dims[2], p.kernel[0], p.stride[0], p.dilation[0], p.pad_begin[0]);
        for (int64_t y = y0; y < y0 + rows && y < Y; ++y) {
            row.y = taps_inside(y, a.dims[3], p.kernel[1], p.stride[1], p.dilation[1], p.pad_begin[1]);
            for (int64_t t = 0; t < tiles; ++t) { // tiles of nearly equal width
                const int64_t x0 = t * X / tiles;
                const int width = static_cast<int>((t + 1) * X / tiles - x0);
                alignas(64) float sums[kBlocksAtOnce * kWide * kBlock];
                const bool two = kBlocksAtOnce == 2 && left >= 2;
                if (two)
                    tile_of<kBlocksAtOnce>(width, row, x0, sums);
                else
                    tile_of<1>(width, row, x0, sums);
                const Epilogue epilogue{&out, &step.input(3), &step.input(4), {p.activation, p.alpha, p.beta}};
                for (int k = 0; k < (two ? 2 : 1); ++k)
                    epilogue.finish(sums + k * width * kBlock, {n, ob + k, z, y, x0}, 1, width);
            }
        }
    });
    return nullptr;
}

// ---- the grouped kernel: LINEAR, raw weights, computed in double for float64 and in float otherwise ----

static Message check_grouped(const Step &step) {
    const ConvParams &p = step.as<ConvParams>();
    if (Message message = check_params(p))
        return message;
    if (step.inputs < 2 || step.inputs > 3 || step.outputs != 1)
        return "takes a source, weights, an optional bias, and one output";
    const Tensor &a = step.in[0], &w = step.in[1], &out = step.out[0];
    if (a.dtype != VOXELRT_F32 && a.dtype != VOXELRT_F64 && a.dtype != VOXELRT_F16)
        return "float32, float64 or float16";
    if (w.dtype != a.dtype || out.dtype != a.dtype || a.rank != 5 || w.rank != 5 || out.rank != 5)
        return "source, weights and output are of one dtype and have five axes";
    if (!a.contiguous() || !w.contiguous() || !out.contiguous() || a.pending() || w.pending())
        return "source, weights and output are without gaps";
    if (a.dims[1] % p.groups != 0 || out.dims[1] % p.groups != 0 || w.dims[0] != out.dims[1] ||
        w.dims[1] != a.dims[1] / p.groups || a.dims[0] != out.dims[0])
        return "channels, groups or batch do not fit together";
    if (a.dtype != VOXELRT_F32 && p.activation != kNoActivation)
        return "only float32 has an activation";
    for (int i = 0; i < 3; ++i) {
        const int64_t reach = int64_t(p.dilation[i]) * (p.kernel[i] - 1) + 1;
        const int64_t padded = a.dims[2 + i] + p.pad_begin[i] + p.pad_end[i];
        if (w.dims[2 + i] != p.kernel[i] || out.dims[2 + i] != (padded < reach ? 0 : (padded - reach) / p.stride[i] + 1))
            return fail("axis %d of the weights or the output has the wrong size", i);
    }
    return check_bias(step.input(2), out.dims[1], a.dtype);
}

template <class C> static inline C load_as(float value) { return static_cast<C>(value); }
template <class C> static inline C load_as(double value) { return static_cast<C>(value); }
template <class C> static inline C load_as(Half value) { return static_cast<C>(half_to_float(value.bits)); }
static inline void store_as(float *to, float value) { *to = value; }
static inline void store_as(double *to, double value) { *to = value; }
static inline void store_as(Half *to, float value) { to->bits = float_to_half(value); }

// One row of output (n, o, z, y): every tap adds a scaled row of input.
template <class T, class C>
static void grouped_row(const Step &step, int64_t n, int64_t o, int64_t z, int64_t y, C *sums) {
    const ConvParams &p = step.as<ConvParams>();
    const Tensor &a = step.in[0], &w = step.in[1], &out = step.out[0], &bias = step.input(2);
    const int64_t X = out.dims[4], in_x = a.dims[4], per_group = w.dims[1];
    const int64_t first_channel = o / (out.dims[1] / p.groups) * per_group;
    const Range rz = taps_inside(z, a.dims[2], p.kernel[0], p.stride[0], p.dilation[0], p.pad_begin[0]);
    const Range ry = taps_inside(y, a.dims[3], p.kernel[1], p.stride[1], p.dilation[1], p.pad_begin[1]);
    const int64_t sx = p.stride[2], kx = p.kernel[2];
    const C start = bias.present() ? load_as<C>(bias.as<const T>()[o]) : C(0);
    for (int64_t x = 0; x < X; ++x)
        sums[x] = start;
    for (int64_t c = 0; c < per_group; ++c)
        for (int64_t iz = rz.begin; iz < rz.end; ++iz)
            for (int64_t iy = ry.begin; iy < ry.end; ++iy) {
                const int64_t zi = rz.first + iz * p.dilation[0], yi = ry.first + iy * p.dilation[1];
                const T *line =
                    a.as<const T>() + (((n * a.dims[1] + first_channel + c) * a.dims[2] + zi) * a.dims[3] + yi) * in_x;
                const T *weight =
                    w.as<const T>() + (((o * per_group + c) * p.kernel[0] + iz) * p.kernel[1] + iy) * kx;
                for (int64_t ix = 0; ix < kx; ++ix) {
                    const int64_t shift = ix * p.dilation[2] - p.pad_begin[2];
                    // Output positions whose tap is inside: 0 <= x * sx + shift < in_x.
                    const int64_t low = shift >= 0 ? 0 : (-shift + sx - 1) / sx;
                    int64_t high = in_x - shift <= 0 ? 0 : (in_x - shift + sx - 1) / sx;
                    high = high < X ? high : X;
                    const C factor = load_as<C>(weight[ix]);
                    const T *from = line + shift;
                    if (sx == 1)
                        for (int64_t x = low; x < high; ++x)
                            sums[x] += factor * load_as<C>(from[x]);
                    else
                        for (int64_t x = low; x < high; ++x)
                            sums[x] += factor * load_as<C>(from[x * sx]);
                }
            }
}

template <class T, class C> static void run_grouped_as(const Step &step, const Env &env) {
    const Tensor &out = step.out[0];
    const int64_t O = out.dims[1], Z = out.dims[2], Y = out.dims[3], X = out.dims[4];
    C *scratch = reinterpret_cast<C *>(env.scratch);
    env.parallel(out.dims[0] * O * Z * Y, [&](int64_t task, uint32_t worker) {
        const int64_t y = task % Y, z = task / Y % Z, o = task / (Y * Z) % O, n = task / (Y * Z * O);
        C *sums = scratch + worker * ((X + 15) / 16 * 16);
        grouped_row<T, C>(step, n, o, z, y, sums);
        if constexpr (sizeof(C) == sizeof(float))
            activate({step.as<ConvParams>().activation, step.as<ConvParams>().alpha, step.as<ConvParams>().beta}, sums, X);
        T *to = out.as<T>() + (((n * O + o) * Z + z) * Y + y) * X;
        for (int64_t x = 0; x < X; ++x)
            store_as(to + x, sums[x]);
    });
}

static uint64_t grouped_scratch(const Step &step, uint32_t threads) {
    return uint64_t(threads) * static_cast<uint64_t>((step.out[0].dims[4] + 15) / 16 * 16) * 8;
}

static Message run_grouped(const Step &step, const Env &env) {
    if (step.out[0].count() == 0)
        return nullptr;
    switch (step.in[0].dtype) {
    case VOXELRT_F32:
        run_grouped_as<float, float>(step, env);
        break;
    case VOXELRT_F64:
        run_grouped_as<double, double>(step, env);
        break;
    default:
        run_grouped_as<Half, float>(step, env);
        break;
    }
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(conv3d, {{"conv3d.direct", 1, ConvParamsText, sizeof(ConvParams), check_direct, run_direct,
                          direct_scratch, pack_bytes, pack},
                         {"conv3d.grouped", 1, ConvParamsText, sizeof(ConvParams), check_grouped, run_grouped,
                          grouped_scratch, nullptr, nullptr}})
