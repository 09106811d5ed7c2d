// conv3d.depthwise: every channel of a blocked volume with a kernel of its own. Sixteen channels lie in the lanes, so
// nothing is summed across them, and neighbours along x share the inputs that they load.
//
// Work is cut into runs of rows of one block of channels: the rows that a kernel reads again stay in the nearest cache.
#include "depthwise_tile.h"

namespace voxelrt::VOXELRT_ISA {

static Message check_depthwise(const Step &step) {
    if (Message message = check_conv(step))
        return message;
    const Tensor &src = step.in[kSource0], &weights = step.in[kWeights], &residual = step.input(kResidual),
                 &dst = step.out[kDestination];
    if (src.dtype != VOXELRT_F32 || weights.dtype != VOXELRT_F32)
        return "takes float32";
    if (step.in[kSource1].present())
        return "takes one source";
    if (step.outputs > 1 && step.out[kStatistics].present())
        return "has no statistics output";
    const ConvShape s = conv_shape(step);
    if (s.groups != s.in_channels || s.groups != s.out_channels)
        return "takes as many groups as there are channels, in and out";
    if (!blocked_rows(src) || !blocked_rows(dst) || (residual.present() && !blocked_rows(residual)))
        return "takes blocked tensors without gaps along x";
    if (empty(dst))
        return nullptr;
    if (Message message = check_strides(step))
        return message;
    int64_t wanted;
    if (weights.rank != 1 || !weights.contiguous() ||
        __builtin_mul_overflow(ceil_div(s.out_channels, kBlock) * kBlock, s.taps(), &wanted) ||
        weights.dims[0] < wanted)
        return "the packed weights are too short";
    return nullptr;
}

// (O, 1, kz, ky, kx) -> [block of O][kz][ky][kx][16], zeros past the last channel.
static uint64_t pack_depthwise_bytes(const void *params, const Tensor &raw) {
    const ConvParams &p = *static_cast<const ConvParams *>(params);
    if (raw.rank != 5 || raw.dtype != VOXELRT_F32 || raw.layout != VOXELRT_LINEAR || raw.dims[1] != 1 ||
        raw.dims[0] != p.groups || raw.dims[2] != p.kernel[0] || raw.dims[3] != p.kernel[1] ||
        raw.dims[4] != p.kernel[2])
        return 0;
    int64_t bytes = ceil_div(raw.dims[0], kBlock) * kBlock * 4;
    for (int i = 2; i < 5; ++i)
        if (__builtin_mul_overflow(bytes, raw.dims[i], &bytes))
            return 0;
    return static_cast<uint64_t>(bytes);
}

static void pack_depthwise(const void *, const Tensor &raw, char *packed) {
    float *to = reinterpret_cast<float *>(packed);
    for (int64_t o0 = 0; o0 < raw.dims[0]; o0 += kBlock)
        for (int64_t z = 0; z < raw.dims[2]; ++z)
            for (int64_t y = 0; y < raw.dims[3]; ++y)
                for (int64_t x = 0; x < raw.dims[4]; ++x)
                    for (int64_t o = o0; o < o0 + kBlock; ++o, ++to)
                        *to = o < raw.dims[0] ? raw.as<const float>()[o * raw.strides[0] + z * raw.strides[2] +
                                                                      y * raw.strides[3] + x * raw.strides[4]]
                                              : 0.0f;
}

// What follows the sums, over a finished row: residual, activation, and zeros in the lanes past the last channel.
static void finish_row(const Step &step, const ConvShape &s, const float *residual, int lanes, float *dst) {
    const ConvParams &p = step.as<ConvParams>();
    if (residual)
        for (int64_t x = 0; x < s.out.x * kBlock; x += kBlock)
            store(dst + x, load(dst + x) + load(residual + x));
    activate_row(p.activation, p.alpha, p.beta, dst, s.out.x * kBlock);
    if (lanes < kBlock)
        for (int64_t x = 0; x < s.out.x * kBlock; x += kBlock)
            store(dst + x, select(first_lanes(lanes), load(dst + x), zero()));
}

static void depthwise_row(const Step &step, const ConvShape &s, const DepthwiseRun *runs, int64_t row) {
    const Tensor &src = step.in[kSource0], &dst = step.out[kDestination], &bias = step.input(kBias),
                 &residual = step.input(kResidual);
    const int64_t blocks = ceil_div(s.out_channels, kBlock), oy = row % s.out.y, oz = row / s.out.y % s.out.z,
                  block = row / (s.out.y * s.out.z) % blocks, n = row / (s.out.y * s.out.z * blocks);
    const int lanes = static_cast<int>(least(kBlock, s.out_channels - block * kBlock));
    alignas(64) float start[kBlock];
    store(start, bias.present() ? load_first(bias.as<const float>() + block * kBlock, lanes) : zero());
    DepthwiseTile tile{};
    tile.plane = src.as<const float>() + n * src.strides[0] + block * src.strides[1];
    tile.weights = step.in[kWeights].as<const float>() + block * s.taps() * kBlock;
    tile.bias = start;
    tile.norm = norm_of(src, n, block);
    tile.step_z = src.strides[2];
    tile.step_y = src.strides[3];
    const auto at = [&](const Tensor &t) {
        return t.as<float>() + n * t.strides[0] + block * t.strides[1] + oz * t.strides[2] + oy * t.strides[3];
    };
    float *to = at(dst);
    const int64_t tiles = ceil_div(s.out.x, kMostOutputs);
    for (int64_t i = 0; i < tiles; ++i) { // of nearly equal widths
        const int64_t x = s.out.x * i / tiles, count = s.out.x * (i + 1) / tiles - x;
        tile.first = {oz * s.stride.z - s.pad.z, oy * s.stride.y - s.pad.y, x * s.stride.x - s.pad.x};
        if (runs)
            runs[count - 1](tile, s, to + x * kBlock);
        else
            depthwise_any(tile, s, count, to + x * kBlock);
    }
    finish_row(step, s, residual.present() ? at(residual) : nullptr, lanes, to);
}

static Message run_depthwise(const Step &step, const Env &env) {
    if (empty(step.out[kDestination]))
        return nullptr;
    const ConvShape s = conv_shape(step);
    const DepthwiseRun *runs = depthwise_tiles(s);
    const int64_t rows = s.n * ceil_div(s.out_channels, kBlock) * s.out.z * s.out.y;
    const int64_t work = s.out.x * (s.taps() + 16); // vector operations a row; an activation is worth some
    env.parallel_range(rows, 1 + 30000 / work, [&](int64_t begin, int64_t end, uint32_t) {
        for (int64_t row = begin; row < end; ++row)
            depthwise_row(step, s, runs, row);
    });
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(conv3d_depthwise, {{"conv3d.depthwise", 1, ConvParamsText, sizeof(ConvParams), check_depthwise,
                                    run_depthwise, nullptr, pack_depthwise_bytes, pack_depthwise}})
