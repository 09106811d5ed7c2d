// The packed weights of conv3d.winograd: transformed by G along each axis, in double.
#pragma once

#include "winograd_plan.h"

namespace voxelrt::VOXELRT_ISA {

static uint64_t pack_winograd_bytes(const void *params, const Tensor &raw) {
    const WinogradParams &p = *static_cast<const WinogradParams *>(params);
    const TileKind *kind = tile_kind(p);
    if (!kind || raw.rank != 5 || raw.dtype != VOXELRT_F32 || raw.layout != VOXELRT_LINEAR || p.groups != 1 ||
        raw.dims[0] > kMostElements || raw.dims[1] > kMostElements)
        return 0;
    for (int i = 0; i < 3; ++i)
        if (raw.dims[2 + i] != p.kernel[i])
            return 0;
    int64_t bytes = ceil_div(raw.dims[0], kBlock) * kBlock * 4 * point_count(*kind);
    if (__builtin_mul_overflow(bytes, PackedChannels(p.groups, p.channels0, raw.dims[1]).all, &bytes))
        return 0;
    return static_cast<uint64_t>(bytes);
}

// (O, I, kz, ky, kx) -> [point][tile of O][I][channel of O]
static void pack_winograd(const void *params, const Tensor &raw, char *packed) {
    const WinogradParams &p = *static_cast<const WinogradParams *>(params);
    const TileKind &kind = *tile_kind(p);
    const PackedChannels channels(p.groups, p.channels0, raw.dims[1]);
    const int64_t outputs = raw.dims[0], wide = ceil_div(outputs, kBlock) * kBlock;
    const int tz = kind.taps[0], ty = kind.taps[1], tx = kind.taps[2], pz = kind.points[0], py = kind.points[1],
              px = kind.points[2];
    float *to = reinterpret_cast<float *>(packed);
    const float *weights = raw.as<const float>();
    double by_x[3][3][9], by_y[3][9][9];
    for (int64_t o0 = 0, width; o0 < wide; o0 += width) {
        width = least(kTileChannels, wide - o0);
        for (int64_t i = 0; i < channels.all; ++i)
            for (int64_t o = 0; o < width; ++o) {
                float *first = to + o0 * channels.all + i * width + o;
                const int64_t step = channels.all * wide, channel = channels.raw(i);
                const bool real = o0 + o < outputs && channel >= 0;
                const float *from = weights + (o0 + o) * raw.strides[0] + channel * raw.strides[1];
                if (!real) {
                    for (int64_t point = 0; point < int64_t(pz) * py * px; ++point)
                        first[point * step] = 0.0f;
                    continue;
                }
                for (int z = 0; z < tz; ++z)
                    for (int y = 0; y < ty; ++y)
                        for (int q = 0; q < px; ++q) {
                            double sum = 0;
                            for (int k = 0; k < tx; ++k)
                                sum += kind.weights[2][q * tx + k] *
                                       static_cast<double>(
                                           from[z * raw.strides[2] + y * raw.strides[3] + k * raw.strides[4]]);
                            by_x[z][y][q] = sum;
                        }
                for (int z = 0; z < tz; ++z)
                    for (int q = 0; q < py; ++q)
                        for (int x = 0; x < px; ++x) {
                            double sum = 0;
                            for (int k = 0; k < ty; ++k)
                                sum += kind.weights[1][q * ty + k] * by_x[z][k][x];
                            by_y[z][q][x] = sum;
                        }
                for (int q = 0; q < pz; ++q)
                    for (int y = 0; y < py; ++y)
                        for (int x = 0; x < px; ++x) {
                            double sum = 0;
                            for (int k = 0; k < tz; ++k)
                                sum += kind.weights[0][q * tz + k] * by_y[k][y][x];
                            first[((int64_t(q) * py + y) * px + x) * step] = static_cast<float>(sum);
                        }
            }
    }
}

} // namespace voxelrt::VOXELRT_ISA
