// stitch: a window's logits, weighted, onto the slab of sums that the windows share. One pass over both; rows are the
// tasks, so the result does not depend on the number of threads. The sums may be updated where they lie.
#include "kernel.h"

#include "round_half.h"
#include "vec.h"
#include <algorithm>
#include <initializer_list>

namespace voxelrt::VOXELRT_ISA {
namespace {

// half: the sums are rounded to half precision each time, and kept as the float32 of the same value.
#define STITCH_PARAMS(S, A) S(f32, share) S(i32, half)
VOXELRT_PARAMS(StitchParams, STITCH_PARAMS)

constexpr int64_t kTaskElements = 16384;

// Step is the stride of the logits along x: a mirrored window is read backwards.
template <int64_t Step, bool Half>
void row(const float *logits, const float *weights, const float *before, float *sums, int64_t count, float share) {
    if constexpr (Step == 1 && !Half) { // in a scratch file's cells rows are short, and their ends count
        const vf16 part = broadcast(share);
        int64_t x = 0;
        for (; x + 16 <= count; x += 16)
            store(sums + x, fma(load(logits + x) * part, load(weights + x), load(before + x)));
        if (const int rest = static_cast<int>(count - x)) {
            const vf16 here = load_first(logits + x, rest) * part;
            store_first(sums + x, fma(here, load_first(weights + x, rest), load_first(before + x, rest)), rest);
        }
        return;
    }
    for (int64_t x = 0; x < count; ++x) {
        const float sum = before[x] + logits[x * Step] * share * weights[x];
        sums[x] = Half ? round_half(sum) : sum;
    }
}

using Row = void (*)(const float *, const float *, const float *, float *, int64_t, float);

Message check(const Step &step) {
    if (step.inputs != 3 || step.outputs != 1)
        return fail("takes three inputs and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &logits = step.in[0], &weights = step.in[1], &before = step.in[2], &sums = step.out[0];
    for (const Tensor *t : {&logits, &weights, &before, &sums})
        if (!t->present() || t->dtype != VOXELRT_F32 || t->layout != VOXELRT_LINEAR || t->pending())
            return "takes linear float32 tensors, nothing pending";
    if (logits.rank != 4 || weights.rank != 3 || before.rank != 4 || sums.rank != 4)
        return "takes logits (C, Z, Y, X), weights (Z, Y, X) and sums (Z, C, Y, X)";
    const int64_t wanted[4] = {logits.dims[1], logits.dims[0], logits.dims[2], logits.dims[3]};
    for (int i = 0; i < 4; ++i)
        if (before.dims[i] != wanted[i] || sums.dims[i] != wanted[i])
            return fail("axis %d of the sums does not fit the logits", i);
    for (int i = 0; i < 3; ++i)
        if (weights.dims[i] != logits.dims[i + 1])
            return fail("axis %d of the weights does not fit the logits", i);
    const bool rows = logits.count() == 0 || logits.dims[3] == 1 ||
                      (weights.strides[2] == 1 && before.strides[3] == 1 && sums.strides[3] == 1 &&
                       (logits.strides[3] == 1 || logits.strides[3] == -1));
    return rows ? nullptr : "takes rows without gaps";
}

Message run(const Step &step, const Env &env) {
    const Tensor &logits = step.in[0], &weights = step.in[1], &before = step.in[2], &sums = step.out[0];
    const int64_t channels = logits.dims[0], depth = logits.dims[1], height = logits.dims[2], width = logits.dims[3];
    const StitchParams params = step.as<StitchParams>();
    const bool back = logits.strides[3] == -1;
    const Row add = params.half ? (back ? row<-1, true> : row<1, true>) : back ? row<-1, false> : row<1, false>;
    if (logits.count() == 0)
        return nullptr;
    env.parallel_range(depth * channels * height, 1 + kTaskElements / width, [&](int64_t begin, int64_t end, uint32_t) {
        int64_t y = begin % height, c = begin / height % channels, z = begin / height / channels;
        for (int64_t left = end - begin; left > 0;) {
            // The rows of a plane that are left: they are where they are by adding, with no division each.
            const int64_t rows = std::min(left, height - y);
            const float *from =
                logits.as<float>() + c * logits.strides[0] + z * logits.strides[1] + y * logits.strides[2];
            const float *weight = weights.as<float>() + z * weights.strides[0] + y * weights.strides[1];
            const float *old =
                before.as<float>() + z * before.strides[0] + c * before.strides[1] + y * before.strides[2];
            float *to = sums.as<float>() + z * sums.strides[0] + c * sums.strides[1] + y * sums.strides[2];
            for (int64_t row = 0; row < rows; ++row) {
                add(from, weight, old, to, width, params.share);
                from += logits.strides[2];
                weight += weights.strides[1];
                old += before.strides[2];
                to += sums.strides[2];
            }
            left -= rows;
            y = 0;
            z += (c + 1) / channels;
            c = (c + 1) % channels;
        }
    });
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(stitch, {{"stitch", 1, StitchParamsText, sizeof(StitchParams), check, run, nullptr, nullptr, nullptr}})
