// conv_transpose3d.direct: BLOCKED16 volumes, packed weights. conv_transpose3d.grouped: LINEAR, any groups, raw weights.
//
// Output positions x of one phase (x mod stride) read the same taps at source positions that go up by one: for each
// phase a transposed convolution is an ordinary one of fewer taps, and the direct kernel runs its tiles so.
#include "../common/elements.h"
#include "../conv3d/tap.h"

namespace voxelrt::VOXELRT_ISA {

#define TRANSPOSE_PARAMS(S, A)                                                                                         \
    A(i32, kernel, 3)                                                                                                  \
    A(i32, stride, 3)                                                                                                  \
    A(i32, dilation, 3)                                                                                                \
    A(i32, pad_begin, 3)                                                                                               \
    A(i32, pad_end, 3)                                                                                                 \
    A(i32, output_padding, 3)                                                                                          \
    S(i32, groups)                                                                                                     \
    S(i32, activation)                                                                                                 \
    S(f32, alpha)                                                                                                      \
    S(f32, beta)
VOXELRT_PARAMS(TransposeParams, TRANSPOSE_PARAMS)

static int64_t taps_of(const TransposeParams &p) { return int64_t(p.kernel[0]) * p.kernel[1] * p.kernel[2]; }

static uint64_t pack_bytes(const void *params, const Tensor &raw) {
    const TransposeParams &p = *static_cast<const TransposeParams *>(params);
    if (check_window(p) || p.groups != 1 || raw.rank != 5 || raw.dtype != VOXELRT_F32 || raw.dims[0] < 1 ||
        raw.dims[1] < 1 || raw.dims[0] > (1 << 24) || raw.dims[1] > (1 << 24) || taps_of(p) > (1 << 24))
        return 0;
    for (int i = 0; i < 3; ++i)
        if (raw.dims[2 + i] != p.kernel[i])
            return 0;
    return uint64_t(blocks_of(raw.dims[1])) * uint64_t(blocks_of(raw.dims[0])) * uint64_t(taps_of(p)) * kBlock *
           kBlock * 4;
}

// [output block][input block][tap][16 input][16 output] from (I, O, kz, ky, kx).
static void pack(const void *params, const Tensor &raw, char *packed) {
    const TransposeParams &p = *static_cast<const TransposeParams *>(params);
    const int64_t I = raw.dims[0], O = raw.dims[1], taps = taps_of(p);
    float *to = reinterpret_cast<float *>(packed);
    for (int64_t ob = 0; ob < blocks_of(O); ++ob)
        for (int64_t ib = 0; ib < blocks_of(I); ++ib)
            for (int64_t tap = 0; tap < taps; ++tap)
                for (int64_t i = ib * kBlock; i < (ib + 1) * kBlock; ++i)
                    for (int64_t o = ob * kBlock; o < (ob + 1) * kBlock; ++o)
                        *to++ = i < I && o < O ? raw.as<const float>()[(i * O + o) * taps + tap] : 0.0f;
}

static Message check_shapes(const TransposeParams &p, const Tensor &a, const Tensor &out) {
    if (a.dims[0] != out.dims[0])
        return "batch of source and output differ";
    for (int i = 0; i < 3; ++i) {
        if (p.output_padding[i] < 0 || p.output_padding[i] > (1 << 20) || p.pad_begin[i] < 0 || p.pad_end[i] < 0)
            return "paddings are not negative";
        const int64_t size = a.dims[2 + i] == 0 ? 0
                                                : (a.dims[2 + i] - 1) * p.stride[i] +
                                                      int64_t(p.dilation[i]) * (p.kernel[i] - 1) + 1 - p.pad_begin[i] -
                                                      p.pad_end[i] + p.output_padding[i];
        if (out.dims[2 + i] != (size < 0 ? 0 : size))
            return fail("axis %d of the output has %lld voxels", i, static_cast<long long>(out.dims[2 + i]));
    }
    return nullptr;
}

static Message check_direct(const Step &step) {
    const TransposeParams &p = step.as<TransposeParams>();
    if (Message message = check_window(p))
        return message;
    if (p.groups != 1 || step.inputs < 2 || step.inputs > 3 || step.outputs != 1)
        return "takes a source, weights, an optional bias and one output, in one group";
    const Tensor &a = step.in[0], &w = step.in[1], &out = step.out[0];
    if (a.dtype != VOXELRT_F32 || out.dtype != VOXELRT_F32 || a.layout != VOXELRT_BLOCKED16 ||
        out.layout != VOXELRT_BLOCKED16 || a.pending() || a.strides[4] != kBlock || out.strides[4] != kBlock)
        return "source and output are blocked float32 volumes with nothing pending";
    if (Message message = check_shapes(p, a, out))
        return message;
    const int64_t numbers = blocks_of(out.dims[1]) * blocks_of(a.dims[1]) * taps_of(p) * kBlock * kBlock;
    if (w.dtype != VOXELRT_F32 || w.rank != 1 || !w.contiguous() || w.dims[0] != numbers || w.pending())
        return "the packed weights have another size";
    return check_bias(step.input(2), out.dims[1], VOXELRT_F32);
}

// Along one axis: the taps that reach an output position, and their source positions.
struct Axis {
    int64_t position, size, stride, dilation, kernel;
    // The source position of a tap, or -1 where it has none.
    int64_t source(int64_t tap) const {
        const int64_t at = position - tap * dilation;
        return at >= 0 && at % stride == 0 && at / stride < size ? at / stride : -1;
    }
};

struct Row {
    const TransposeParams *p;
    const Tensor *source;
    const float *base;
    const float *weights;
    int64_t weight_step;
    Axis z, y;
};

alignas(64) static const float kZeros[kBlock] = {};

// W output positions of one phase: x = phase + stride * (i0 + i).
template <int OB, int W> static void tile(const Row &row, int64_t phase, int64_t i0, float *result) {
    const TransposeParams &p = *row.p;
    const Tensor &t = *row.source;
    vf sum[OB * kParts][W] = {};
    const int64_t sx = p.stride[2], X = t.dims[4], kx = p.kernel[2], tap_size = kBlock * kBlock;
    const float *w = row.weights;
    for (int64_t c = 0; c < t.dims[1]; c += kBlock, w += taps_of(p) * tap_size) {
        const int64_t lanes = t.dims[1] - c < kBlock ? t.dims[1] - c : kBlock;
        for (int64_t iz = 0; iz < p.kernel[0]; ++iz) {
            const int64_t z = row.z.source(iz);
            for (int64_t iy = 0; z >= 0 && iy < p.kernel[1]; ++iy) {
                const int64_t y = row.y.source(iy);
                if (y < 0)
                    continue;
                const float *line = row.base + c / kBlock * t.strides[1] + z * t.strides[2] + y * t.strides[3];
                for (int64_t ix = 0; ix < kx; ++ix) {
                    const int64_t offset = phase + p.pad_begin[2] - ix * p.dilation[2];
                    if ((offset % sx + sx) % sx != 0)
                        continue;
                    const int64_t first = offset / sx + i0;
                    const float *taps = w + ((iz * p.kernel[1] + iy) * kx + ix) * tap_size;
                    if (first >= 0 && first + W <= X) {
                        tap<OB, W, true>(sum, taps, row.weight_step, line + first * kBlock, kBlock, nullptr, lanes, 1);
                        continue;
                    }
                    const float *table[W];
                    for (int x = 0; x < W; ++x)
                        table[x] = first + x >= 0 && first + x < X ? line + (first + x) * kBlock : kZeros;
                    tap<OB, W, false>(sum, taps, row.weight_step, nullptr, 0, table, lanes, 1);
                }
            }
        }
    }
    for (int o = 0; o < OB; ++o)
        for (int x = 0; x < W; ++x)
            for (int k = 0; k < kParts; ++k)
                *reinterpret_cast<vf_at *>(result + (o * W + x) * kBlock + k * kLanes) = sum[o * kParts + k][x];
}

template <int OB> static void tile_of(int width, const Row &row, int64_t phase, int64_t i0, float *result) {
    switch (width) {
#define VOXELRT_WIDTH(W)                                                                                               \
    case W:                                                                                                            \
        return tile<OB, W>(row, phase, i0, result);
        VOXELRT_EACH_WIDTH(VOXELRT_WIDTH)
#undef VOXELRT_WIDTH
    default:
        return;
    }
}

static Message run_direct(const Step &step, const Env &env) {
    const TransposeParams &p = step.as<TransposeParams>();
    const Tensor &a = step.in[0], &out = step.out[0];
    static const Tensor absent;
    if (out.count() == 0)
        return nullptr;
    const int64_t Z = out.dims[2], Y = out.dims[3], X = out.dims[4], blocks = blocks_of(out.dims[1]);
    const int64_t pairs = (blocks + kBlocksAtOnce - 1) / kBlocksAtOnce, sx = p.stride[2];
    const Epilogue epilogue{&out, &step.input(2), &absent, {p.activation, p.alpha, p.beta}};
    env.parallel(pairs * out.dims[0] * Z * Y, [&](int64_t task, uint32_t) {
        const int64_t y = task % Y, z = task / Y % Z, n = task / (Y * Z) % out.dims[0];
        const int64_t ob = task / (Y * Z * out.dims[0]) * kBlocksAtOnce;
        Row row;
        row.p = &p;
        row.source = &a;
        row.base = a.as<const float>() + n * a.strides[0];
        row.weight_step = blocks_of(a.dims[1]) * taps_of(p) * kBlock * kBlock;
        row.weights = step.in[1].as<const float>() + ob * row.weight_step;
        row.z = {z + p.pad_begin[0], a.dims[2], p.stride[0], p.dilation[0], p.kernel[0]};
        row.y = {y + p.pad_begin[1], a.dims[3], p.stride[1], p.dilation[1], p.kernel[1]};
        const bool two = kBlocksAtOnce == 2 && ob + 1 < blocks;
        alignas(64) float sums[kBlocksAtOnce * kWide * kBlock];
        for (int64_t phase = 0; phase < sx && phase < X; ++phase) {
            const int64_t count = (X - phase + sx - 1) / sx, tiles = (count + kWide - 1) / kWide;
            for (int64_t t = 0; t < tiles; ++t) {
                const int64_t i0 = t * count / tiles;
                const int width = static_cast<int>((t + 1) * count / tiles - i0);
                if (two)
                    tile_of<kBlocksAtOnce>(width, row, phase, i0, sums);
                else
                    tile_of<1>(width, row, phase, i0, sums);
                for (int k = 0; k < (two ? 2 : 1); ++k)
                    epilogue.finish(sums + k * width * kBlock, {n, ob + k, z, y, phase + i0 * sx}, sx, width);
            }
        }
    });
    return nullptr;
}

// ---- the grouped kernel ----

static Message check_grouped(const Step &step) {
    const TransposeParams &p = step.as<TransposeParams>();
    if (Message message = check_window(p))
        return message;
    if (step.inputs < 2 || step.inputs > 3 || step.outputs != 1)
        return "takes a source, weights, an optional bias and one output";
    const Tensor &a = step.in[0], &w = step.in[1], &out = step.out[0];
    if (a.dtype != VOXELRT_F32 && a.dtype != VOXELRT_F64 && a.dtype != VOXELRT_F16)
        return "float32, float64 or float16";
    if (w.dtype != a.dtype || out.dtype != a.dtype || a.rank != 5 || w.rank != 5 || out.rank != 5)
        return "source, weights and output are of one dtype and have five axes";
    if (!a.contiguous() || !w.contiguous() || !out.contiguous() || a.pending() || w.pending())
        return "source, weights and output are without gaps";
    if (w.dims[0] != a.dims[1] || a.dims[1] % p.groups != 0 || out.dims[1] != w.dims[1] * p.groups)
        return "channels and groups do not fit together";
    if (a.dtype != VOXELRT_F32 && p.activation != kNoActivation)
        return "only float32 has an activation";
    for (int i = 0; i < 3; ++i)
        if (w.dims[2 + i] != p.kernel[i])
            return "the weights have another kernel size";
    if (Message message = check_shapes(p, a, out))
        return message;
    return check_bias(step.input(2), out.dims[1], a.dtype);
}

static inline float number(float value) { return value; }
static inline double number(double value) { return value; }
static inline float number(Half value) { return half_to_float(value.bits); }
static inline void put(float *to, float value) { *to = value; }
static inline void put(double *to, double value) { *to = value; }
static inline void put(Half *to, float value) { to->bits = float_to_half(value); }

// One row of output (n, o, z, y).
template <class T, class C>
static void grouped_row(const Step &step, int64_t n, int64_t o, int64_t z, int64_t y, C *sums) {
    const TransposeParams &p = step.as<TransposeParams>();
    const Tensor &a = step.in[0], &w = step.in[1], &out = step.out[0], &bias = step.input(2);
    const int64_t X = out.dims[4], in_x = a.dims[4], sx = p.stride[2];
    const int64_t inputs = a.dims[1] / p.groups, outputs = w.dims[1], group = o / outputs;
    const Axis az{z + p.pad_begin[0], a.dims[2], p.stride[0], p.dilation[0], p.kernel[0]};
    const Axis ay{y + p.pad_begin[1], a.dims[3], p.stride[1], p.dilation[1], p.kernel[1]};
    const C start = bias.present() ? C(number(bias.as<const T>()[o])) : C(0);
    for (int64_t x = 0; x < X; ++x)
        sums[x] = start;
    for (int64_t c = group * inputs; c < (group + 1) * inputs; ++c)
        for (int64_t iz = 0; iz < p.kernel[0]; ++iz) {
            const int64_t zi = az.source(iz);
            for (int64_t iy = 0; zi >= 0 && iy < p.kernel[1]; ++iy) {
                const int64_t yi = ay.source(iy);
                if (yi < 0)
                    continue;
                const T *line = a.as<const T>() + (((n * a.dims[1] + c) * a.dims[2] + zi) * a.dims[3] + yi) * in_x;
                const T *weight = w.as<const T>() +
                                  (((c * outputs + o % outputs) * p.kernel[0] + iz) * p.kernel[1] + iy) * p.kernel[2];
                for (int64_t ix = 0; ix < p.kernel[2]; ++ix) {
                    // Source position i lands at i * stride + shift; those inside [0, X).
                    const int64_t shift = ix * p.dilation[2] - p.pad_begin[2];
                    const int64_t low = shift >= 0 ? 0 : (-shift + sx - 1) / sx;
                    int64_t high = X - shift <= 0 ? 0 : (X - shift + sx - 1) / sx;
                    high = high < in_x ? high : in_x;
                    const C factor = number(weight[ix]);
                    for (int64_t i = low; i < high; ++i)
                        sums[i * sx + shift] += factor * number(line[i]);
                }
            }
        }
}

template <class T, class C> static void run_grouped_as(const Step &step, const Env &env) {
    const TransposeParams &p = step.as<TransposeParams>();
    const Tensor &out = step.out[0];
    const Activation activation{p.activation, p.alpha, p.beta};
    const int64_t O = out.dims[1], Z = out.dims[2], Y = out.dims[3], X = out.dims[4];
    C *scratch = reinterpret_cast<C *>(env.scratch);
    env.parallel(out.dims[0] * O * Z * Y, [&](int64_t task, uint32_t worker) {
        const int64_t y = task % Y, z = task / Y % Z, o = task / (Y * Z) % O, n = task / (Y * Z * O);
        C *sums = scratch + worker * ((X + 15) / 16 * 16);
        grouped_row<T, C>(step, n, o, z, y, sums);
        if constexpr (sizeof(C) == sizeof(float))
            activate(activation, sums, X);
        T *to = out.as<T>() + (((n * O + o) * Z + z) * Y + y) * X;
        for (int64_t x = 0; x < X; ++x)
            put(to + x, sums[x]);
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

VOXELRT_KERNELS(conv_transpose3d, {{"conv_transpose3d.direct", 1, TransposeParamsText, sizeof(TransposeParams),
                                    check_direct, run_direct, nullptr, pack_bytes, pack},
                                   {"conv_transpose3d.grouped", 1, TransposeParamsText, sizeof(TransposeParams),
                                    check_grouped, run_grouped, grouped_scratch, nullptr, nullptr}})
