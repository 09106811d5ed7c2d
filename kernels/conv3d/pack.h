// The packed weights of conv3d.direct.
#pragma once

#include "packed_channels.h"
#include "plan.h"

namespace voxelrt::VOXELRT_ISA {

// (O, I / groups, kz, ky, kx) -> [tile of O][block of I][kz][ky][kx][channel of I][channel of O] ----

static bool packable(const ConvParams &p, const Tensor &raw) {
    return raw.rank == 5 && raw.dtype == VOXELRT_F32 && raw.layout == VOXELRT_LINEAR && p.groups >= 1 &&
           raw.dims[2] == p.kernel[0] && raw.dims[3] == p.kernel[1] && raw.dims[4] == p.kernel[2] &&
           raw.dims[0] % p.groups == 0 && (p.groups == 1 || (raw.dims[0] / p.groups) % kBlock == 0);
}

static uint64_t pack_bytes(const void *params, const Tensor &raw) {
    const ConvParams &p = *static_cast<const ConvParams *>(params);
    if (!packable(p, raw))
        return 0;
    int64_t bytes = packed_outputs(p, raw.dims[0]) * 4;
    if (__builtin_mul_overflow(bytes, PackedChannels(p.groups, p.channels0, raw.dims[1]).all, &bytes))
        return 0;
    for (int i = 2; i < 5; ++i)
        if (__builtin_mul_overflow(bytes, raw.dims[i], &bytes))
            return 0;
    return static_cast<uint64_t>(bytes);
}

static void pack(const void *params, const Tensor &raw, char *packed) {
    const ConvParams &p = *static_cast<const ConvParams *>(params);
    const int64_t groups = p.groups;
    const bool narrow = is_narrow(p, raw.dims[0]);
    const int64_t depth = narrow ? 1 : kBlock; // input channels of a block
    const PackedChannels channels(p.groups, p.channels0, raw.dims[1]);
    const int64_t out_group = raw.dims[0] / groups, in = channels.all, taps_z = raw.dims[2], taps_y = raw.dims[3],
                  taps_x = raw.dims[4];
    const float *weights = raw.as<const float>();
    float *to = reinterpret_cast<float *>(packed);
    for (int64_t g = 0; g < groups; ++g)
        for (int64_t o0 = 0, width; o0 < out_group; o0 += width) {
            width =
                narrow ? narrow_width(out_group, o0) : least(kTileChannels, ceil_div(out_group - o0, kBlock) * kBlock);
            const int64_t real = least(width, out_group - o0);
            for (int64_t i0 = 0; i0 < in; i0 += depth)
                for (int64_t z = 0; z < taps_z; ++z)
                    for (int64_t y = 0; y < taps_y; ++y)
                        for (int64_t x = 0; x < taps_x; ++x)
                            for (int64_t i = i0; i < least(in, i0 + depth); ++i, to += width) {
                                const int64_t channel = channels.raw(i);
                                const float *from = weights + (g * out_group + o0) * raw.strides[0] +
                                                    (channel < 0 ? 0 : channel) * raw.strides[1] + z * raw.strides[2] +
                                                    y * raw.strides[3] + x * raw.strides[4];
                                for (int64_t o = 0; o < width; ++o)
                                    to[o] = o < real && channel >= 0 ? from[o * raw.strides[0]] : 0.0f;
                            }
        }
}

} // namespace voxelrt::VOXELRT_ISA
