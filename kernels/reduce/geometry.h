// What a reduction walks: the axes that stay and the axes that go, each as one loop. Blocked volumes have an axis of
// blocks and one of lanes; where channels go, only the first C of them count.
#pragma once

#include "elements.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

constexpr int64_t kBlockOfResults = 256; // results that are worked on together

struct Geometry {
    Loop kept;         // operand 0: the input, operand 1: the output
    Loop gone;         // operand 0: the input
    int64_t count = 0; // elements of `gone` that count: its first ones
};

// Axes of the output are those of the input or one.
static Message check_reduction(const Step &step, bool same_dtype) {
    if (step.inputs != 1 || step.outputs != 1 || !step.in[0].present() || !step.out[0].present())
        return fail("takes one input and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &out = step.out[0];
    if (in.pending())
        return "the input is pending";
    if (in.rank != out.rank || (same_dtype && in.dtype != out.dtype))
        return "input and output differ in rank or dtype";
    for (int i = 0; i < in.rank; ++i)
        if (out.dims[i] != in.dims[i] && out.dims[i] != 1)
            return fail("axis %d of the output has %lld elements", i, static_cast<long long>(out.dims[i]));
    const bool channels_go = in.rank > 1 && in.dims[1] != out.dims[1];
    if (in.layout == VOXELRT_BLOCKED16 && out.layout == VOXELRT_LINEAR && !channels_go)
        return "a blocked input whose channels stay gives a blocked output";
    if (in.layout == VOXELRT_LINEAR && out.layout == VOXELRT_BLOCKED16)
        return "a linear input gives a linear output";
    if ((in.layout == VOXELRT_BLOCKED16 && in.dtype != VOXELRT_F32) ||
        (out.layout == VOXELRT_BLOCKED16 && out.dtype != VOXELRT_F32))
        return "blocked tensors are float32";
    return nullptr;
}

static Geometry geometry_of(const Tensor &in, const Tensor &out) {
    Geometry g;
    g.kept.operands = 2;
    g.gone.operands = 1;
    g.count = 1;
    const bool blocked = in.layout == VOXELRT_BLOCKED16;
    const bool channels_go = blocked && in.dims[1] != out.dims[1];
    if (channels_go) { // outermost, so that the first C of them come first
        const int64_t steps[2] = {in.strides[1], 1};
        g.gone.add((in.dims[1] + kBlock - 1) / kBlock, &steps[0]);
        g.gone.add(kBlock, &steps[1]);
        g.count = in.dims[1];
    }
    for (int i = 0; i < in.rank; ++i) {
        if (blocked && i == 1) {
            if (!channels_go) {
                const int64_t steps[2] = {in.strides[1], out.strides[1]};
                g.kept.add((in.dims[1] + kBlock - 1) / kBlock, steps);
            }
        } else if (in.dims[i] != out.dims[i]) {
            g.gone.add(in.dims[i], &in.strides[i]);
            g.count *= in.dims[i];
        } else {
            const int64_t steps[2] = {in.strides[i], out.strides[i]};
            g.kept.add(in.dims[i], steps);
        }
    }
    if (blocked && !channels_go) {
        const int64_t steps[2] = {1, 1};
        g.kept.add(kBlock, steps);
    }
    g.kept.finish();
    g.gone.finish();
    return g;
}

// Zeros in the channels past the last of a blocked output.
static void clear_tail(const Tensor &out, const Env &env) {
    const int64_t tail = out.rank == 5 ? out.dims[1] % kBlock : 0;
    if (out.layout != VOXELRT_BLOCKED16 || tail == 0)
        return;
    const int64_t Z = out.dims[2], Y = out.dims[3], X = out.dims[4], block = out.dims[1] / kBlock;
    env.parallel_range(out.dims[0] * Z * Y * X, 4096, [&](int64_t begin, int64_t end, uint32_t) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t x = i % X, y = i / X % Y, z = i / (X * Y) % Z, n = i / (X * Y * Z);
            float *at = out.as<float>() + n * out.strides[0] + block * out.strides[1] + z * out.strides[2] +
                        y * out.strides[3] + x * out.strides[4];
            for (int64_t lane = tail; lane < kBlock; ++lane)
                at[lane] = 0.0f;
        }
    });
}

// Calls body(offset) for the elements [begin, end) of the axes that go.
template <class F> static void for_gone(const Geometry &g, int64_t begin, int64_t end, F &&body) {
    const int64_t stride = g.gone.strides[0][g.gone.rank - 1];
    for_pieces(g.gone, 0, begin, end - begin, [&](int64_t offset, int64_t, int64_t length) {
        for (int64_t i = 0; i < length; ++i)
            body(offset + i * stride);
    });
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA
