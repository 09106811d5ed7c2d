// Staging: the part of a source that a task of a convolution reads, as its tiles want it. Padding becomes zeros, a
// pending norm is applied, and positions a stride apart come to lie side by side.
#pragma once

#include "conv_shape.h"
#include "vec.h"

namespace voxelrt::VOXELRT_ISA {

// A box of input positions, staged as [z][y][residue][m][16, or 1 for planes]: row (z, y) holds, for each residue, the
// positions first.x + residue + m * stride for m in [0, length).
struct StageBox {
    Axes first;           // input position of row (0, 0), m = 0, residue 0; may lie outside
    int64_t z, y, length; // rows and positions
    int64_t stride;
    int64_t residues;
    const int32_t *residue;
    Axes in;     // the source's size
    bool planes; // the source is row-major: stage one channel
    bool split;  // the source is blocked: stage each of its channels as a plane; length is a multiple of four
    bool filled; // channels past the last of a block are multiplied (with weights of zero), and so must be staged too
    bool zero_rows; // rows outside in y are read, and so must hold zeros; planes outside in z never are
};

static inline int64_t staged_row_floats(const StageBox &b) {
    return b.residues * b.length * (b.planes || b.split ? 1 : kBlock);
}

struct Norm { // of one block of channels
    bool pending;
    vf16 scale, shift, slope;
};

static inline Norm norm_of(const Tensor &t, int64_t n, int64_t block) {
    if (!t.pending())
        return {false, zero(), zero(), zero()};
    const int64_t at = n * t.dims[1] + block * kBlock;
    const int count = static_cast<int>(least(kBlock, t.dims[1] - block * kBlock));
    return {true, load_first(t.pending_scale + at, count), load_first(t.pending_shift + at, count),
            broadcast(t.pending_slope)};
}

static inline vf16 normed(const Norm &norm, vf16 x) {
    const vf16 y = fma(x, norm.scale, norm.shift);
    return select(y < zero(), y * norm.slope, y);
}

constexpr int64_t kFetched = 32 * kBlock; // floats that a row is fetched ahead, into the next one too

static inline void stage_blocked_row(const StageBox &b, const float *row, const Norm &norm, float *to) {
    for (int64_t q = 0; q < b.residues; ++q, to += b.length * kBlock) {
        const int64_t first = b.first.x + b.residue[q], step = b.stride * kBlock;
        const Span span = inside(0, b.length, b.stride, first, b.in.x);
        for (int64_t m = 0; m < span.begin; ++m)
            store(to + m * kBlock, zero());
        const float *from = row + first * kBlock;
        if (norm.pending)
            for (int64_t m = span.begin; m < span.end; ++m) {
                __builtin_prefetch(from + m * step + kFetched);
                store(to + m * kBlock, normed(norm, load(from + m * step)));
            }
        else
            for (int64_t m = span.begin; m < span.end; ++m) {
                __builtin_prefetch(from + m * step + kFetched);
                store(to + m * kBlock, load(from + m * step));
            }
        for (int64_t m = span.end; m < b.length; ++m)
            store(to + m * kBlock, zero());
    }
}

// A row of a channel block as rows of `plane` floats apart, one for each of `channels` channels (up to a multiple of
// 4).
static inline void split_row(const StageBox &b, const float *row, const Norm &norm, int64_t channels, float *to,
                             int64_t plane) {
    static const float nothing[kBlock] = {};
    float made[4][kBlock];
    for (int64_t q = 0; q < b.residues; ++q, to += b.length) {
        const int64_t first = b.first.x + b.residue[q];
        const Span span = inside(0, b.length, b.stride, first, b.in.x);
        for (int64_t m = 0; m < b.length; m += kQuad) {
            const float *from[kQuad];
            for (int64_t j = 0; j < kQuad; ++j) {
                const bool there = m + j >= span.begin && m + j < span.end;
                __builtin_prefetch(row + (first + (m + j) * b.stride) * kBlock + kFetched);
                from[j] = there ? row + (first + (m + j) * b.stride) * kBlock : nothing;
                if (there && norm.pending) {
                    store(made[j], normed(norm, load(from[j])));
                    from[j] = made[j];
                }
            }
            for (int64_t c = 0; c < channels; c += kQuad) {
                transpose_quad(from, c, to + c * plane + m, plane);
            }
        }
    }
}

static inline void stage_plane_row(const StageBox &b, const Tensor &t, const float *row, int64_t n, int64_t c,
                                   float *to) {
    for (int64_t q = 0; q < b.residues; ++q, to += b.length) {
        const int64_t first = b.first.x + b.residue[q];
        const Span span = inside(0, b.length, b.stride, first, b.in.x);
        for (int64_t m = 0; m < span.begin; ++m)
            to[m] = 0.0f;
        for (int64_t m = span.begin; m < span.end; ++m)
            to[m] = row[(first + m * b.stride) * t.strides[4]];
        if (t.pending())
            for (int64_t m = span.begin; m < span.end; ++m) {
                const float y = to[m] * t.pending_scale[n * t.dims[1] + c] + t.pending_shift[n * t.dims[1] + c];
                to[m] = y < 0 ? y * t.pending_slope : y;
            }
        for (int64_t m = span.end; m < b.length; ++m)
            to[m] = 0.0f;
    }
}

// The box of channel block (of planes: channel) `channel` of item n. `plane`: floats between planes of a split block.
static inline void stage(const StageBox &b, const Tensor &t, int64_t n, int64_t channel, float *to, int64_t plane) {
    const Norm norm = b.planes ? Norm{false, zero(), zero(), zero()} : norm_of(t, n, channel);
    const int64_t row_floats = staged_row_floats(b);
    const float *source = t.as<const float>() + n * t.strides[0] + channel * t.strides[1];
    for (int64_t z = 0; z < b.z; ++z) {
        const int64_t iz = b.first.z + z;
        if (iz < 0 || iz >= b.in.z)
            continue;
        for (int64_t y = 0; y < b.y; ++y) {
            const int64_t iy = b.first.y + y;
            float *target = to + (z * b.y + y) * row_floats;
            if (iy < 0 || iy >= b.in.y) {
                for (int64_t i = 0; i < row_floats && b.zero_rows; ++i) // never with split planes
                    target[i] = 0.0f;
                continue;
            }
            const float *row = source + iz * t.strides[2] + iy * t.strides[3];
            if (b.planes)
                stage_plane_row(b, t, row, n, channel, target);
            else if (b.split)
                split_row(b, row, norm, b.filled ? kBlock : least(kBlock, t.dims[1] - channel * kBlock), target, plane);
            else
                stage_blocked_row(b, row, norm, target);
        }
    }
}

} // namespace voxelrt::VOXELRT_ISA
