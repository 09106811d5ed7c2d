// How conv3d.direct cuts a step into tasks. Depends on the step alone, never on the threads.
#pragma once

#include "contract.h"
#include "conv_tile.h"
#include "narrow_tiles.h"

namespace voxelrt::VOXELRT_ISA {

constexpr int64_t kStageBytes = 512 << 10;        // wanted at most for what a task stages,
constexpr int64_t kWeightBytes = 64 << 10;        // and for the weights that a tile runs over: both lie in L2
constexpr int64_t kMostStageBytes = 256ll << 20;  // refused beyond
constexpr int64_t kTasks = 32;                    // wanted at least, for many cores
constexpr int64_t kTaskMultiplications = 4 << 20; // but none smaller

// How a step is cut. Depends on the step alone, never on the threads.
struct ConvPlan {
    ConvShape s;
    bool narrow;            // few output channels: the lanes of a tile are positions
    bool head;              // one tap into those, from a blocked source that is read where it lies
    bool planes;            // the source is row-major: one channel a plane
    bool staged;            // the source is copied first
    bool past_caches;       // finished sums need not stay in the caches
    bool blocked;           // so is the destination; else it is written from a buffer, channel by channel
    int64_t unit;           // staged floats of a position: one, where channels are staged as planes, or a block
    int64_t planes_a_block; // staged channels of an input block: all of a source of planes, or a block, or one
    int64_t in_blocks;      // blocks of input channels of a group; planes: 1
    int64_t out_tiles;      // tiles of output channels of a group
    int64_t chunk;          // blocks of input channels staged at a time
    Axes box, boxes;        // output positions of a task, and how many such
    int64_t pieces;         // runs of output channels
    int64_t residues;       // staged rows of one input row: one for each residue of the taps modulo the stride
    int64_t length;         // positions of each
    int64_t rows_z, rows_y; // input rows of a box
    int64_t stage_floats, buffer_floats;
    int64_t rows;                                      // of a tile
    int32_t residue[kMostTaps], staged_row[kMostTaps]; // of each staged row; of each tap
};

static inline int64_t block_floats(const ConvPlan &p) { // staged floats of a block of input channels, or of a plane
    return p.rows_z * p.rows_y * p.residues * p.length * p.unit;
}

static inline void measure_box(ConvPlan &p) {
    const ConvShape &s = p.s;
    p.rows_z = (p.box.z - 1) * s.stride.z + (s.kernel.z - 1) * s.dilation.z + 1;
    p.rows_y = (p.box.y - 1) * s.stride.y + (s.kernel.y - 1) * s.dilation.y + 1;
    p.length = p.box.x + (s.kernel.x - 1) * s.dilation.x / s.stride.x;
    if (p.narrow)
        p.length = ceil_div(p.length, kQuad) * kQuad;
}

// Floats of a row of the narrow tiles' sums, for one output channel: their last vector may reach past the box.
static inline int64_t narrow_row(const ConvPlan &p) {
    return ceil_div(p.box.x, kBlock) * kBlock;
}

static inline bool fits(const ConvPlan &p) {
    return !p.staged || p.chunk * p.planes_a_block * block_floats(p) * 4 <= kStageBytes;
}

// The largest box within the budget of what is staged, grown where that saves most of the overlap.
static inline void choose_box(ConvPlan &p) {
    const ConvShape &s = p.s;
    const int64_t widest = p.head ? 2048 : !p.staged ? 512 : s.taps() == 1 ? 384 : 160;
    p.box = {1, 1, ceil_div(s.out.x, ceil_div(s.out.x, widest))};
    measure_box(p);
    while (!fits(p) && p.chunk > 1)
        p.chunk = ceil_div(p.chunk, 2);
    while (!fits(p) && p.box.x > 4 * kTileX) {
        p.box.x = ceil_div(p.box.x, 2);
        measure_box(p);
    }
    for (bool grown = true; grown;) {
        grown = false;
        const bool z_first = p.rows_z * p.box.y > p.rows_y * p.box.z; // the axis with more overlap
        for (int attempt = 0; attempt < 2 && !grown; ++attempt) {
            const int axis = (attempt == 0) == z_first ? 0 : 1;
            const ConvPlan before = p;
            if (p.box[axis] >= s.out[axis] || (!p.staged && p.box.z * p.box.y * p.box.x >= 512))
                continue;
            p.box[axis] = least(s.out[axis], p.box[axis] * 2);
            measure_box(p);
            grown = fits(p);
            if (!grown)
                p = before;
        }
    }
}

static inline int64_t count_boxes(ConvPlan &p) {
    for (int i = 0; i < 3; ++i) {
        p.box[i] = ceil_div(p.s.out[i], ceil_div(p.s.out[i], p.box[i])); // of nearly equal size
        p.boxes[i] = ceil_div(p.s.out[i], p.box[i]);
    }
    measure_box(p);
    return p.boxes.z * p.boxes.y * p.boxes.x * p.s.n;
}

// Enough tasks for many cores: first by output channels (the weights are then read once), then by smaller boxes.
static inline void choose_tasks(ConvPlan &p) {
    const ConvShape &s = p.s;
    const int64_t out_tiles = p.out_tiles * s.groups;
    int64_t boxes = count_boxes(p);
    p.pieces = p.blocked ? least(out_tiles, ceil_div(kTasks, boxes)) : out_tiles;
    const int64_t each = s.in_group() * s.taps() * ceil_div(out_tiles, p.pieces) * kTileChannels;
    while (boxes * p.pieces < kTasks && p.box.z * p.box.y > 1 &&
           p.box.z * p.box.y * p.box.x * each > 2 * kTaskMultiplications) {
        int64_t &longer = p.box.z > p.box.y ? p.box.z : p.box.y;
        longer = ceil_div(longer, 2);
        boxes = count_boxes(p);
    }
}

// The rows that a strided convolution reads of one input row: taps whose positions agree modulo the stride share one.
static inline void choose_residues(ConvPlan &p) {
    const ConvShape &s = p.s;
    p.residues = 0;
    for (int64_t k = 0; k < s.kernel.x; ++k) {
        const int32_t residue = static_cast<int32_t>(k * s.dilation.x % s.stride.x);
        int64_t found = 0;
        while (found < p.residues && p.residue[found] != residue)
            ++found;
        if (found == p.residues)
            p.residue[p.residues++] = residue;
        p.staged_row[k] = static_cast<int32_t>(found);
    }
}

static inline bool rows_without_gaps(const Tensor &t) {
    return (t.layout == VOXELRT_LINEAR || t.strides[4] == kBlock) && t.strides[3] == t.dims[4] * t.strides[4] &&
           t.strides[2] == t.dims[3] * t.strides[3];
}

// A 1 x 1 x 1 convolution does not care where rows end: one long row.
static inline void flatten(const Step &step, ConvShape &s) {
    const Tensor &other = step.in[kSource1], &residual = step.input(kResidual);
    if (s.taps() != 1 || s.stride.z * s.stride.y * s.stride.x != 1 || s.in.z != s.out.z || s.in.y != s.out.y ||
        s.in.x != s.out.x || !rows_without_gaps(step.in[kSource0]) || !rows_without_gaps(step.out[kDestination]) ||
        (other.present() && !rows_without_gaps(other)) || (residual.present() && !rows_without_gaps(residual)))
        return;
    const int64_t all = s.in.z * s.in.y * s.in.x;
    s.in = {1, 1, all};
    s.out = {1, 1, all};
}

// One tap into a few row-major channels, from blocked ones that are read where they lie: head.h computes these, from
// weights that are packed for wide tiles. With a stride or padding they are rare, and wide tiles' own.
static inline bool is_head(const ConvPlan &p, const ConvParams &params) {
    const ConvShape &s = p.s;
    return !p.planes && !p.blocked && params.groups == 1 && s.out_channels <= kNarrowMost && s.taps() == 1 &&
           s.stride.z * s.stride.y * s.stride.x == 1 && s.in.z == s.out.z && s.in.y == s.out.y && s.in.x == s.out.x;
}

static inline ConvPlan make_plan(const Step &step) {
    const Tensor &src = step.in[kSource0], &other = step.in[kSource1];
    const ConvParams &params = step.as<ConvParams>();
    ConvPlan p{};
    p.s = blocked_shape(step);
    flatten(step, p.s);
    const ConvShape &s = p.s;
    p.planes = src.layout == VOXELRT_LINEAR;
    p.blocked = step.out[kDestination].layout == VOXELRT_BLOCKED16;
    p.past_caches =
        p.blocked && outgrows_caches(step.out[kDestination]) && in_tile(params.activation, params.alpha, params.beta);
    p.head = is_head(p, params);
    p.narrow = p.head || is_narrow(params, s.out_channels);
    p.unit = p.planes || p.narrow ? 1 : kBlock;
    p.planes_a_block = p.planes ? s.in_channels : p.narrow ? kBlock : 1;
    p.in_blocks = p.planes ? 1 : ceil_div(s.in_group(), kBlock);
    p.out_tiles = p.narrow ? 1 : ceil_div(s.out_group(), kTileChannels);
    p.rows = p.unit == 1 ? 1 : choose_rows(s.out.x, s.out.y);
    p.staged = !p.head && (p.unit == 1 || src.pending() || other.pending() || s.stride.x != 1 || s.pad.x != 0 ||
                           params.pad_end[2] != 0 || (p.rows > 1 && (s.pad.y != 0 || params.pad_end[1] != 0)));
    choose_residues(p);
    const int64_t weights_a_block = s.taps() * kBlock * kTileChannels * 4;
    p.chunk = least(p.in_blocks, most(1, kWeightBytes / weights_a_block));
    choose_box(p);
    choose_tasks(p);
    p.stage_floats = p.staged ? p.chunk * p.planes_a_block * block_floats(p) + (p.narrow ? kNarrowX * kBlock : 0) : 0;
    p.buffer_floats = p.narrow    ? p.box.z * p.box.y * s.out_channels * narrow_row(p)
                      : p.blocked ? 0
                                  : p.box.z * p.box.y * p.box.x * kTileChannels;
    return p;
}

static inline int64_t boxes_an_item(const ConvPlan &p) {
    return p.boxes.z * p.boxes.y * p.boxes.x;
}
static inline int64_t tasks_of(const ConvPlan &p) {
    return p.s.n * boxes_an_item(p) * p.pieces;
}

} // namespace voxelrt::VOXELRT_ISA
