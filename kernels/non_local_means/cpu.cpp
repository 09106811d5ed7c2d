// non_local_means: voxel by voxel, each pair of patches compared once (pairs.h).
#include "pairs.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

#define NON_LOCAL_MEANS_PARAMS(S, A)                                                                                   \
    A(i64, search, 3) A(i64, patch, 3) S(f32, slope) S(f32, offset) S(i32, squares) S(f32, noise) S(i64, first)
VOXELRT_PARAMS(NonLocalMeansParams, NON_LOCAL_MEANS_PARAMS)

PairJob job_of(const Step &step) {
    const NonLocalMeansParams p = step.as<NonLocalMeansParams>();
    PairJob job{};
    set_dims(job, step, p.first);
    for (int i = 0; i < 3; ++i) {
        // No partner lies farther away than the volume is wide.
        job.search[i] = p.search[i] < job.dims[i] ? p.search[i] : (job.dims[i] > 0 ? job.dims[i] - 1 : 0);
        job.patch[i] = p.patch[i];
    }
    job.slope = p.slope;
    job.offset = p.offset;
    job.squares = p.squares != 0;
    job.noise = p.noise;
    return job;
}

Message check(const Step &step) {
    if (const Message wrong = check_planes(step, step.as<NonLocalMeansParams>().first))
        return wrong;
    const NonLocalMeansParams p = step.as<NonLocalMeansParams>();
    const i64 search[3] = {p.search[0], p.search[1], p.search[2]}, patch[3] = {p.patch[0], p.patch[1], p.patch[2]};
    if (const Message wrong = check_radii(search, patch))
        return wrong;
    return p.slope >= 0 && p.offset >= 0 && p.noise >= 0 ? nullptr : "slope, offset and noise are not negative";
}

Message run(const Step &step, const Env &env) {
    run_pairs(job_of(step), step, env);
    return nullptr;
}

uint64_t scratch(const Step &step, uint32_t threads) {
    return pair_scratch(job_of(step), threads);
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(non_local_means, {{"non_local_means", 1, NonLocalMeansParamsText, sizeof(NonLocalMeansParams), check,
                                   run, scratch, nullptr, nullptr}})
