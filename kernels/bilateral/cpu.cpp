// bilateral: the pairs of non-local means with patches of one voxel, and a weight for the distance.
#include "../non_local_means/pairs.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

#define BILATERAL_PARAMS(S, A) A(i64, radius, 3) A(f32, distance, 3) S(f32, slope)
VOXELRT_PARAMS(BilateralParams, BILATERAL_PARAMS)

PairJob job_of(const Step &step) {
    const BilateralParams p = step.as<BilateralParams>();
    PairJob job{};
    set_dims(job, step, 0);
    for (int i = 0; i < 3; ++i) {
        job.search[i] = p.radius[i] < job.dims[i] ? p.radius[i] : (job.dims[i] > 0 ? job.dims[i] - 1 : 0);
        job.distance[i] = p.distance[i];
    }
    job.slope = p.slope;
    return job;
}

Message check(const Step &step) {
    if (const Message wrong = check_volumes(step))
        return wrong;
    const BilateralParams p = step.as<BilateralParams>();
    const i64 radius[3] = {p.radius[0], p.radius[1], p.radius[2]}, none[3] = {0, 0, 0};
    if (const Message wrong = check_radii(radius, none))
        return wrong;
    return p.slope >= 0 && p.distance[0] >= 0 && p.distance[1] >= 0 && p.distance[2] >= 0 ? nullptr
                                                                                          : "weights do not grow";
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

VOXELRT_KERNELS(bilateral,
                {{"bilateral", 1, BilateralParamsText, sizeof(BilateralParams), check, run, scratch, nullptr, nullptr}})
