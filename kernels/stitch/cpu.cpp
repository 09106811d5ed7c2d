// stitch: a window's logits, weighted, onto the slab of sums that the windows share. One pass over both; rows are the
// tasks, so the result does not depend on the number of threads. The sums may be updated where they lie.
#include "kernel.h"

#include "round_half.h"
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
        for (int64_t i = begin; i < end; ++i) {
            const int64_t y = i % height, c = i / height % channels, z = i / height / channels;
            const float *from =
                logits.as<float>() + c * logits.strides[0] + z * logits.strides[1] + y * logits.strides[2];
            const float *weight = weights.as<float>() + z * weights.strides[0] + y * weights.strides[1];
            const float *old =
                before.as<float>() + z * before.strides[0] + c * before.strides[1] + y * before.strides[2];
            float *to = sums.as<float>() + z * sums.strides[0] + c * sums.strides[1] + y * sums.strides[2];
            add(from, weight, old, to, width, params.share);
        }
    });
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(stitch, {{"stitch", 1, StitchParamsText, sizeof(StitchParams), check, run, nullptr, nullptr, nullptr}})
