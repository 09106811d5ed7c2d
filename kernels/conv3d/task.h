// A task of conv3d.direct: its box, its part of the source, and the taps of a tile.
#pragma once

#include "conv_stage.h"
#include "plan.h"

namespace voxelrt::VOXELRT_ISA {

// Taps of one axis, in floats of what the tiles read and in taps of the weights.
struct TapTables {
    Tap z[kMostTaps], y[kMostTaps], x[kMostTaps];
};

// What a task works on, shared by its tiles.
struct Task {
    const ConvPlan *plan;
    const Step *step;
    int64_t n, box;   // box: the number of its box, for the statistics
    Axes origin, end; // output positions
    float *stage, *buffer;
    double *statistics; // (boxes, O, 2) of this n; or null
    TapTables taps;
};

// Where the task of a number lies; answers which run of output channels is its own.
static inline int64_t place_task(Task &task, const ConvPlan &p, const Step &step, int64_t index) {
    task.plan = &p;
    task.step = &step;
    const int64_t boxes = boxes_an_item(p), box = index / p.pieces % boxes;
    task.n = index / (p.pieces * boxes);
    task.box = box;
    task.origin = {box / (p.boxes.y * p.boxes.x) * p.box.z, box / p.boxes.x % p.boxes.y * p.box.y,
                   box % p.boxes.x * p.box.x};
    for (int i = 0; i < 3; ++i)
        task.end[i] = least(p.s.out[i], task.origin[i] + p.box[i]);
    return index % p.pieces;
}

// ---- statistics: a sum a box, added in the order of the boxes ----

static inline int64_t statistics_floats(const Step &step, const ConvPlan &p) { // two a double
    return step.outputs > 1 && step.out[kStatistics].present()
               ? ceil_div(tasks_of(p) / p.pieces * p.s.out_channels * 4, kBlock) * kBlock
               : 0;
}

// Box sums in the order of the boxes, whichever worker made them.
static inline void sum_statistics(const Step &step, const ConvPlan &p, const double *boxes) {
    const int64_t count = boxes_an_item(p), values = p.s.out_channels * 2;
    double *to = step.out[kStatistics].as<double>();
    for (int64_t n = 0; n < p.s.n; ++n)
        for (int64_t i = 0; i < values; ++i) {
            double sum = 0.0;
            for (int64_t box = 0; box < count; ++box)
                sum += boxes[(n * count + box) * values + i];
            to[n * values + i] = sum;
        }
}

// The part of an axis' taps that lie in the source, for one output position.
struct TapRange {
    int64_t begin, end;
};
static inline TapRange taps_inside(int64_t position, int64_t stride, int64_t pad, int64_t dilation, int64_t taps,
                                   int64_t size) {
    const int64_t first = position * stride - pad;
    const int64_t begin = first < 0 ? (-first + dilation - 1) / dilation : 0;
    const int64_t end = size - first <= 0 ? 0 : (size - first + dilation - 1) / dilation;
    return {least(begin, taps), most(least(begin, taps), least(end, taps))};
}

// Where the tiles read: the staged box, or the source itself.
struct Source {
    const float *first; // of output position (0, 0, 0) of the volume and tap (0, 0, 0)
    int64_t block, z, y;
};

static inline void fill_taps(Task &task, int64_t step_z, int64_t step_y) {
    const ConvPlan &p = *task.plan;
    const ConvShape &s = p.s;
    for (int64_t k = 0; k < s.kernel.z; ++k)
        task.taps.z[k] = {k * s.dilation.z * step_z, k * s.kernel.y * s.kernel.x};
    for (int64_t k = 0; k < s.kernel.y; ++k)
        task.taps.y[k] = {k * s.dilation.y * step_y, k * s.kernel.x};
    for (int64_t k = 0; k < s.kernel.x; ++k)
        task.taps.x[k] = {(p.staged_row[k] * p.length + k * s.dilation.x / s.stride.x) * p.unit, k};
}

// The source of input blocks [block, block + count) of the whole channel axis, staged where that is needed.
static inline Source open_source(Task &task, int64_t block, int64_t count) {
    const ConvPlan &p = *task.plan;
    const ConvShape &s = p.s;
    const int64_t blocks0 = p.planes ? s.channels0 : ceil_div(s.channels0, kBlock);
    const auto of = [&](int64_t b) -> const Tensor & { return task.step->in[b < blocks0 ? kSource0 : kSource1]; };
    const auto within = [&](int64_t b) { return b < blocks0 ? b : b - blocks0; };
    if (!p.staged) {
        const Tensor &t = of(block);
        return {t.as<const float>() + task.n * t.strides[0] + within(block) * t.strides[1] - s.pad.z * t.strides[2] -
                    s.pad.y * t.strides[3],
                t.strides[1], t.strides[2], t.strides[3]};
    }
    StageBox box{};
    for (int i = 0; i < 3; ++i)
        box.first[i] = task.origin[i] * s.stride[i] - s.pad[i];
    box.z = p.rows_z;
    box.y = p.rows_y;
    box.length = p.length;
    box.stride = s.stride.x;
    box.residues = p.residues;
    box.residue = p.residue;
    box.in = s.in;
    box.planes = p.planes;
    box.split = p.narrow && !p.planes;
    box.filled = s.channels1 != 0;
    box.zero_rows = p.rows > 1;
    const int64_t floats = block_floats(p), row = staged_row_floats(box);
    const int64_t channels = p.planes ? s.in_channels : count, planes = p.planes ? 1 : p.planes_a_block;
    for (int64_t b = 0; b < channels; ++b)
        stage(box, of(block + b), task.n, within(block + b), task.stage + b * planes * floats, floats);
    const int64_t from_origin =
        task.origin.z * s.stride.z * p.rows_y * row + task.origin.y * s.stride.y * row + task.origin.x * p.unit;
    return {task.stage - from_origin, floats, p.rows_y * row, row};
}

} // namespace voxelrt::VOXELRT_ISA
