// From the sums of a tile of dot products to numbers in the destination: scale, bias, residual, statistics, activation.
#pragma once

#include "bfloat.h"
#include "block.h"
#include "conv_tile.h"
#include "dot.h"

namespace voxelrt::VOXELRT_ISA {

constexpr int kDotSums = kTileX * kTileChannels;

// What the tiles of one run of output channels share.
struct DotFinish {
    const Tensor *dst, *residual; // residual: laid out like dst; or null
    DotKind kind;
    int blocks;
    int64_t o, real;            // first output channel, and how many
    float bias[kTileChannels];  // integers: less scale times what the code of zero adds
    float scale[kTileChannels]; // integers: of the source times of the weights
    int32_t activation;
    float alpha, beta;
    float slope, lo, hi;
    bool past_caches;
    double *statistics; // of channel o: sum and sum of squares; or null
};

// Of the output channels from 32 out_tile on.
static inline DotFinish make_finish(const Tensor &dst, DotKind kind, int64_t out_tile, const Tensor &bias,
                                    int32_t activation, float alpha, float beta) {
    DotFinish f{};
    f.dst = &dst;
    f.kind = kind;
    f.o = out_tile * kTileChannels;
    f.real = least(kTileChannels, dst.dims[1] - f.o);
    f.blocks = static_cast<int>(ceil_div(f.real, kBlock));
    f.activation = activation;
    f.alpha = alpha;
    f.beta = beta;
    Tile epilogue{};
    set_epilogue(activation, alpha, beta, epilogue);
    f.slope = epilogue.slope;
    f.lo = epilogue.lo;
    f.hi = epilogue.hi;
    for (int64_t i = 0; bias.present() && i < f.real; ++i)
        f.bias[i] = bias.as<const float>()[f.o + i];
    return f;
}

template <class D>
static inline void put_blocked(const DotFinish &f, const float *made, int64_t b, int64_t positions, int64_t at,
                               int64_t step) {
    D *to = f.dst->as<D>() + at + b * f.dst->strides[1];
    for (int64_t i = 0; i < positions; ++i) {
        const vf16 v = load(made + i * kBlock);
        if (f.past_caches)
            stream(to + i * step, v);
        else
            store(to + i * step, v);
    }
}

static inline void put_planes(const DotFinish &f, const float *made, int64_t b, int64_t positions, int64_t at) {
    const int64_t step = f.dst->strides[4];
    for (int64_t c = 0; c < least(kBlock, f.real - b * kBlock); ++c) {
        float *to = f.dst->as<float>() + at + (b * kBlock + c) * f.dst->strides[1];
        for (int64_t i = 0; i < positions; ++i)
            to[i * step] = made[i * kBlock + c];
    }
}

static inline void add_residual(const DotFinish &f, float *made, int64_t b, int64_t positions, int64_t at) {
    const Tensor &t = *f.residual;
    if (t.layout == VOXELRT_BLOCKED16)
        with_stored(t.dtype, [&](auto tag) {
            const auto *from = t.as<const decltype(tag)>() + at + b * t.strides[1];
            for (int64_t i = 0; i < positions; ++i)
                store(made + i * kBlock, load(made + i * kBlock) + load(from + i * kBlock));
        });
    else
        for (int64_t c = 0; c < least(kBlock, f.real - b * kBlock); ++c) {
            const float *from = t.as<const float>() + at + (b * kBlock + c) * t.strides[1];
            for (int64_t i = 0; i < positions; ++i)
                made[i * kBlock + c] += from[i * t.strides[4]];
        }
}

static inline void add_dot_statistics(double *to, const float *made, int64_t positions, int64_t channels) {
    vf16 sums = zero(), squares = zero();
    for (int64_t i = 0; i < positions; ++i) {
        const vf16 v = load(made + i * kBlock);
        sums = sums + v;
        squares = fma(v, v, squares);
    }
    float a[kBlock], q[kBlock];
    store(a, sums);
    store(q, squares);
    for (int64_t c = 0; c < channels; ++c) {
        to[2 * c] += static_cast<double>(a[c]);
        to[2 * c + 1] += static_cast<double>(q[c]);
    }
}

// Of `sums` [block][position][16], the positions [first, first + positions) of `all`: a row, written from element `at`
// of dst on (of `residual_at` of the residual), positions `step` elements apart in a blocked one.
static inline void finish_dots(const DotFinish &f, float *sums, int64_t all, int64_t first, int64_t positions,
                               int64_t at, int64_t residual_at, int64_t step) {
    for (int64_t b = 0; b < f.blocks; ++b) {
        float *made = sums + (b * all + first) * kBlock;
        const int64_t channels = least(kBlock, f.real - b * kBlock);
        const vf16 bias = load(f.bias + b * kBlock);
        if (f.kind == kInteger) {
            const vf16 scale = load(f.scale + b * kBlock);
            for (int64_t i = 0; i < positions * kBlock; ++i)
                made[i] = static_cast<float>(bits_as<int32_t>(made[i]));
            for (int64_t i = 0; i < positions; ++i)
                store(made + i * kBlock, fma(load(made + i * kBlock), scale, bias));
        } else
            for (int64_t i = 0; i < positions; ++i)
                store(made + i * kBlock, load(made + i * kBlock) + bias);
        if (f.residual)
            add_residual(f, made, b, positions, residual_at);
        if (f.statistics)
            add_dot_statistics(f.statistics + b * kBlock * 2, made, positions, channels);
        if (in_tile(f.activation, f.alpha, f.beta)) {
            const vf16 slope = broadcast(f.slope), lo = broadcast(f.lo), hi = broadcast(f.hi);
            for (int64_t i = 0; i < positions; ++i) {
                const vf16 v = load(made + i * kBlock);
                store(made + i * kBlock, min(hi, max(lo, select(v < zero(), v * slope, v))));
            }
        } else
            activate_row(f.activation, f.alpha, f.beta, made, positions * kBlock);
        if (f.dst->layout == VOXELRT_LINEAR) {
            put_planes(f, made, b, positions, at);
            continue;
        }
        if (channels < kBlock) {
            const vm16 keep = first_lanes(static_cast<int>(channels));
            for (int64_t i = 0; i < positions; ++i)
                store(made + i * kBlock, select(keep, load(made + i * kBlock), zero()));
        }
        with_stored(f.dst->dtype, [&](auto tag) { put_blocked<decltype(tag)>(f, made, b, positions, at, step); });
    }
}

} // namespace voxelrt::VOXELRT_ISA
