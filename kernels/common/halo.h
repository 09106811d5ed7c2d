// Boxes of a volume with what lies around them, for kernels that look at a neighbourhood: rows outside the volume are
// filled by a rule, so that inner loops ask nothing. A box belongs to one task and lies in its thread's scratch.
#pragma once

#include "kernel.h"
#include "vec.h"

#include <cstring>
#include <initializer_list>

namespace voxelrt::VOXELRT_ISA {

enum class Border { edge, reflect }; // the last voxel again, or mirrored at its centre

static inline int64_t inside(int64_t i, int64_t size, Border border) {
    if (i >= 0 && i < size)
        return i;
    if (border == Border::edge)
        return i < 0 ? 0 : size - 1;
    const int64_t period = size > 1 ? 2 * size - 2 : 1;
    i = ((i % period) + period) % period;
    return i < size ? i : period - i;
}

constexpr int64_t kLanes = 16;
static inline int64_t whole_vectors(int64_t n) {
    return (n + kLanes - 1) / kLanes * kLanes;
}

// Cut into equal tasks of at most `most`.
static inline int64_t task_size(int64_t size, int64_t most) {
    const int64_t pieces = (size + most - 1) / most;
    return pieces > 0 ? (size + pieces - 1) / pieces : 1;
}

// Voxels [begin, begin + size) of a volume with `halo` around, as rows of `stride` floats. Before and after a row's
// halo lie zeros that unaligned loads of whole vectors may touch.
struct Box {
    int64_t begin[3], size[3], halo[3]; // z, y, x
    int64_t left, stride;               // of a row: floats before voxel 0, floats in all
    float *data;

    static int64_t left_of(int64_t halo) { return whole_vectors(halo) + kLanes; }
    static int64_t stride_of(int64_t width, int64_t halo) {
        return left_of(halo) + whole_vectors(width) + whole_vectors(halo) + kLanes;
    }
    static uint64_t floats(const int64_t size[3], const int64_t halo[3]) {
        return static_cast<uint64_t>((size[0] + 2 * halo[0]) * (size[1] + 2 * halo[1]) * stride_of(size[2], halo[2]));
    }

    // The row's voxel 0; z and y count from the volume's own 0 and may lie in the halo.
    float *row(int64_t z, int64_t y) const {
        return data + ((z - begin[0] + halo[0]) * (size[1] + 2 * halo[1]) + y - begin[1] + halo[1]) * stride + left;
    }
    int64_t plane() const { return (size[1] + 2 * halo[1]) * stride; }

    // Copy from a volume of dims[3] without gaps. The box spans whole rows: begin[2] is 0 and size[2] dims[2].
    void fill(const float *volume, const int64_t dims[3], Border border) const {
        for (int64_t z = begin[0] - halo[0]; z < begin[0] + size[0] + halo[0]; ++z)
            for (int64_t y = begin[1] - halo[1]; y < begin[1] + size[1] + halo[1]; ++y) {
                const float *from =
                    volume + (inside(z, dims[0], border) * dims[1] + inside(y, dims[1], border)) * dims[2];
                float *to = row(z, y);
                for (int64_t x = -left; x < -halo[2]; ++x)
                    to[x] = 0.0f;
                for (int64_t x = -halo[2]; x < 0; ++x)
                    to[x] = from[inside(x, dims[2], border)];
                std::memcpy(to, from, static_cast<size_t>(dims[2]) * sizeof(float));
                for (int64_t x = dims[2]; x < dims[2] + halo[2]; ++x)
                    to[x] = from[inside(x, dims[2], border)];
                for (int64_t x = dims[2] + halo[2]; x < stride - left; ++x)
                    to[x] = 0.0f;
            }
    }
};

// Volumes (B, Z, Y, X) of float32 without gaps, in and out; the output may be the planes of the input from `first` on.
static inline Message check_planes(const Step &step, int64_t first) {
    if (step.inputs != 1 || step.outputs != 1)
        return fail("takes one input and one output, not %d and %d", step.inputs, step.outputs);
    for (const Tensor *t : {&step.in[0], &step.out[0]})
        if (t->dtype != VOXELRT_F32 || t->rank != 4 || t->pending() || (t->count() > 0 && !t->contiguous()))
            return "takes float32 volumes (B, Z, Y, X) without gaps";
    for (int i = 0; i < 4; ++i)
        if (i != 1 && step.in[0].dims[i] != step.out[0].dims[i])
            return fail("axis %d of the output is not the input's", i);
    if (first < 0 || first > step.in[0].dims[1] || step.out[0].dims[1] > step.in[0].dims[1] - first)
        return "the output has planes that the input lacks";
    return nullptr;
}
static inline Message check_volumes(const Step &step) {
    if (const Message wrong = check_planes(step, 0))
        return wrong;
    return step.in[0].dims[1] == step.out[0].dims[1] ? nullptr : "axis 1 of the output is not the input's";
}

} // namespace voxelrt::VOXELRT_ISA
