// Staging: the part of the source that a task reads, as its tiles want it. Padding becomes zeros, a pending norm is
// applied, and positions a stride apart come to lie side by side.
#pragma once

#include "plan.h"

namespace voxelrt::VOXELRT_ISA {

// Positions m of a staged row, those whose input x lies in the source.
static Span staged_span(const ConvPlan &p, int64_t ox0, int64_t residue) {
    return inside(ox0, p.length, p.s.stride.x, residue - p.s.pad.x, p.s.in.x);
}

struct Norm { // of one block of channels
    bool pending;
    vf16 scale, shift, slope;
};

static Norm norm_of(const Tensor &t, int64_t n, int64_t block) {
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

static void stage_blocked_row(const ConvPlan &p, const float *row, int64_t ox0, const Norm &norm, float *to) {
    for (int64_t q = 0; q < p.residues; ++q, to += p.length * kBlock) {
        const Span span = row ? staged_span(p, ox0, p.residue[q]) : Span{p.length, p.length};
        for (int64_t m = 0; m < span.begin; ++m)
            store(to + m * kBlock, zero());
        const int64_t step = p.s.stride.x * kBlock;
        const float *from = row ? row + (ox0 * p.s.stride.x + p.residue[q] - p.s.pad.x) * kBlock : nullptr;
        if (norm.pending)
            for (int64_t m = span.begin; m < span.end; ++m)
                store(to + m * kBlock, normed(norm, load(from + m * step)));
        else
            for (int64_t m = span.begin; m < span.end; ++m)
                store(to + m * kBlock, load(from + m * step));
        for (int64_t m = span.end; m < p.length; ++m)
            store(to + m * kBlock, zero());
    }
}

static void stage_plane_row(const ConvPlan &p, const Tensor &t, const float *row, int64_t n, int64_t c, int64_t ox0,
                            float *to) {
    for (int64_t q = 0; q < p.residues; ++q, to += p.length) {
        const Span span = row ? staged_span(p, ox0, p.residue[q]) : Span{p.length, p.length};
        for (int64_t m = 0; m < span.begin; ++m)
            to[m] = 0.0f;
        const int64_t step = p.s.stride.x * t.strides[4], first = ox0 * p.s.stride.x + p.residue[q] - p.s.pad.x;
        for (int64_t m = span.begin; m < span.end; ++m)
            to[m] = row[first * t.strides[4] + m * step];
        if (t.pending())
            for (int64_t m = span.begin; m < span.end; ++m) {
                const float y = to[m] * t.pending_scale[n * t.dims[1] + c] + t.pending_shift[n * t.dims[1] + c];
                to[m] = y < 0 ? y * t.pending_slope : y;
            }
        for (int64_t m = span.end; m < p.length; ++m)
            to[m] = 0.0f;
    }
}

// The rows of one channel block (or plane) that the box at `origin` reads. Planes of z outside of the source are never
// read and stay as they are; so are rows of y unless a tile has several, which share their taps.
static void stage(const ConvPlan &p, const Tensor &t, int64_t n, int64_t channel, const Axes &origin, float *to) {
    const ConvShape &s = p.s;
    const Norm norm = p.planes ? Norm{false, zero(), zero(), zero()} : norm_of(t, n, channel);
    const int64_t row_floats = p.residues * p.length * (p.planes ? 1 : kBlock);
    const float *source = t.as<const float>() + n * t.strides[0] + channel * t.strides[1];
    for (int64_t z = 0; z < p.rows_z; ++z) {
        const int64_t iz = origin.z * s.stride.z - s.pad.z + z;
        if (iz < 0 || iz >= s.in.z)
            continue;
        for (int64_t y = 0; y < p.rows_y; ++y) {
            const int64_t iy = origin.y * s.stride.y - s.pad.y + y;
            const bool there = iy >= 0 && iy < s.in.y;
            if (!there && p.rows == 1)
                continue;
            const float *row = there ? source + iz * t.strides[2] + iy * t.strides[3] : nullptr;
            float *target = to + (z * p.rows_y + y) * row_floats;
            if (p.planes)
                stage_plane_row(p, t, row, n, channel, origin.x, target);
            else
                stage_blocked_row(p, row, origin.x, norm, target);
        }
    }
}

} // namespace voxelrt::VOXELRT_ISA
