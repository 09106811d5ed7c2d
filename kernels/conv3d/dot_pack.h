// Packed weights of dot products: [tile of O][block of I][tap][unit][channel of O][channel of the unit], and for
// integers the sum of each output channel's weights behind them.
#pragma once

#include "bfloat.h"
#include "conv_tile.h"
#include "dot.h"
#include "packed_channels.h"

#include <cstring>

namespace voxelrt::VOXELRT_ISA {

// Units that a tap takes of input channels [16 block, ...) of `channels`.
static inline int64_t units_of_block(int kind, int64_t channels, int64_t block) {
    return ceil_div(least(kBlock, channels - block * kBlock), dot_channels(kind));
}
static inline int64_t units_of_channels(int kind, int64_t channels) { // all blocks
    return channels / kBlock * dot_units(kind) + ceil_div(channels % kBlock, dot_channels(kind));
}

// Bytes of packed weights for so many (packed) input channels; 0 where that overflows.
static inline int64_t dot_weight_bytes(int kind, int64_t in, int64_t taps, int64_t out) {
    const int64_t wide = ceil_div(out, kBlock) * kBlock * 4;
    int64_t bytes;
    if (__builtin_mul_overflow(units_of_channels(kind, in), taps, &bytes) ||
        __builtin_mul_overflow(bytes, wide, &bytes) ||
        __builtin_add_overflow(bytes, kind == kInteger ? wide : 0, &bytes))
        return 0;
    return bytes;
}

// Where weights lie: element (o, i, tap) is at o * out + i * in + tap (taps in order z, y, x).
struct RawWeights {
    const char *data;
    int64_t outputs, inputs, taps, out, in;
};

template <class T, class W>
static inline void pack_dots(int kind, const RawWeights &raw, const PackedChannels &channels, W number, char *packed) {
    const T *weights = reinterpret_cast<const T *>(raw.data);
    uint32_t *to = reinterpret_cast<uint32_t *>(packed);
    const int64_t each = dot_channels(kind), bits = 32 / each;
    for (int64_t o0 = 0; o0 < raw.outputs; o0 += kTileChannels) {
        const int64_t width = least(kTileChannels, ceil_div(raw.outputs - o0, kBlock) * kBlock);
        for (int64_t block = 0; block * kBlock < channels.all; ++block)
            for (int64_t tap = 0; tap < raw.taps; ++tap)
                for (int64_t u = 0; u < units_of_block(kind, channels.all, block); ++u)
                    for (int64_t o = o0; o < o0 + width; ++o, ++to) {
                        uint32_t unit = 0;
                        for (int64_t k = 0; k < each; ++k) {
                            const int64_t i = block * kBlock + u * each + k;
                            const int64_t from = i < channels.all && o < raw.outputs ? channels.raw(i) : -1;
                            if (from >= 0)
                                unit |= number(weights[o * raw.out + from * raw.in + tap]) << (k * bits);
                        }
                        *to = unit;
                    }
    }
}

static inline void pack_bfloats(const RawWeights &raw, const PackedChannels &channels, char *packed) {
    pack_dots<float>(kBfloat, raw, channels, [](float w) { return uint32_t(float_to_bfloat(w)); }, packed);
}

static inline void pack_integers(const RawWeights &raw, const PackedChannels &channels, char *packed) {
    pack_dots<int8_t>(kInteger, raw, channels, [](int8_t w) { return uint32_t(uint8_t(w)); }, packed);
    const int8_t *weights = reinterpret_cast<const int8_t *>(raw.data);
    const int64_t wide = ceil_div(raw.outputs, kBlock) * kBlock;
    int32_t *sums = reinterpret_cast<int32_t *>(
        packed + dot_weight_bytes(kInteger, channels.all, raw.taps, raw.outputs) - wide * 4);
    for (int64_t o = 0; o < wide; ++o) {
        sums[o] = 0;
        for (int64_t i = 0; i < raw.inputs && o < raw.outputs; ++i)
            for (int64_t tap = 0; tap < raw.taps; ++tap)
                sums[o] += weights[o * raw.out + i * raw.in + tap];
    }
}

} // namespace voxelrt::VOXELRT_ISA
