// Tiles for convolutions to few channels (a flow, a denoised image, a first layer of eight): the lanes of a vector are
// positions along x, so none is wasted on channels that do not exist. The source is staged as planes.
#pragma once

#include "contract.h"
#include "conv_tile.h"

namespace voxelrt::VOXELRT_ISA {

constexpr int kNarrowMost = 8; // output channels of a narrow convolution
constexpr int kNarrowChannels = kVectorRegisters / kRegistersPerBlock >= 32 ? 8 : 4; // of a tile
constexpr int kNarrowX = 8;                                                          // vectors of a tile at most

// Vectors of a tile of `channels`: the sums fill the registers but for the weights' and the source's.
constexpr int narrow_vectors(int channels) {
    return kVectorRegisters / kRegistersPerBlock >= 32 ? (channels <= 3   ? 8
                                                          : channels == 4 ? 6
                                                          : channels <= 6 ? 4
                                                                          : 3)
                                                       : (channels == 1   ? 6
                                                          : channels == 2 ? 3
                                                          : channels == 3 ? 2
                                                                          : 1);
}

static inline bool is_narrow(const ConvParams &p, int64_t outputs) {
    return p.groups == 1 && outputs <= kNarrowMost && int64_t(p.kernel[0]) * p.kernel[1] * p.kernel[2] > 1;
}
// Output channels of the narrow tile that starts at `first`: tiles are of nearly equal width.
static inline int64_t narrow_width(int64_t outputs, int64_t first) {
    const int64_t tiles = ceil_div(outputs, kNarrowChannels), width = ceil_div(outputs, tiles);
    return least(width, outputs - first);
}
// Output channels that the packed weights have room for.
static inline int64_t packed_outputs(const ConvParams &p, int64_t outputs) {
    return is_narrow(p, outputs) ? outputs : ceil_div(outputs, kBlock) * kBlock;
}

// Position x of channel o is summed into dst[o * dst_channel + x]; the source's planes are plane floats apart.
struct NarrowTile {
    const float *src, *weights; // of the first plane; weights: [plane][tap][weight_step, of which the tile's channels]
    const Tap *z, *y, *x;
    int64_t nz, ny, nx;
    int64_t planes, plane, taps, weight_step;
    const float *start; // one number a channel; null: go on from dst
    float *dst;
    int64_t dst_channel;
};
using NarrowFunction = void (*)(const NarrowTile &);

// O output channels, V vectors of sixteen positions.
template <int O, int V> static void narrow_tile(const NarrowTile &t) {
    vf16 sums[O][V];
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v)
            sums[o][v] = t.start ? broadcast(t.start[o]) : load(t.dst + o * t.dst_channel + v * kBlock);
    for (int64_t plane = 0; plane < t.planes; ++plane)
        for (int64_t z = 0; z < t.nz; ++z)
            for (int64_t y = 0; y < t.ny; ++y) {
                const float *src_zy = t.src + plane * t.plane + t.z[z].src + t.y[y].src;
                const float *weights_zy = t.weights + (plane * t.taps + t.z[z].weight + t.y[y].weight) * t.weight_step;
                for (int64_t k = 0; k < t.nx; ++k) {
                    const float *src = src_zy + t.x[k].src, *weights = weights_zy + t.x[k].weight * t.weight_step;
                    if constexpr (O <= V || kRegistersPerBlock > 1) { // the fewer of the two stay in registers
                        vf16 w[O];
#pragma GCC unroll 8
                        for (int o = 0; o < O; ++o)
                            w[o] = broadcast(weights[o]);
#pragma GCC unroll 8
                        for (int v = 0; v < V; ++v) {
                            const vf16 x = load(src + v * kBlock);
#pragma GCC unroll 8
                            for (int o = 0; o < O; ++o)
                                sums[o][v] = fma(x, w[o], sums[o][v]);
                        }
                    } else {
                        vf16 x[V];
#pragma GCC unroll 8
                        for (int v = 0; v < V; ++v)
                            x[v] = load(src + v * kBlock);
#pragma GCC unroll 8
                        for (int o = 0; o < O; ++o) {
                            const vf16 w = broadcast(weights[o]);
#pragma GCC unroll 8
                            for (int v = 0; v < V; ++v)
                                sums[o][v] = fma(x[v], w, sums[o][v]);
                        }
                    }
                }
            }
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v)
            store(t.dst + o * t.dst_channel + v * kBlock, sums[o][v]);
}

template <int O, int V> static NarrowFunction narrow_of(int64_t vectors) {
    if constexpr (V > 1)
        return vectors == V ? narrow_tile<O, V> : narrow_of<O, V - 1>(vectors);
    else
        return narrow_tile<O, 1>;
}
template <int O> static NarrowFunction narrow_of_channels(int64_t channels, int64_t vectors) {
    if constexpr (O > 1)
        return channels == O ? narrow_of<O, narrow_vectors(O)>(vectors) : narrow_of_channels<O - 1>(channels, vectors);
    else
        return narrow_of<1, narrow_vectors(1)>(vectors);
}

} // namespace voxelrt::VOXELRT_ISA
