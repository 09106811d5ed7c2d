// curvature_flow: level surfaces move with their mean curvature, one sweep a step.
#include "stencil.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

#define CURVATURE_FLOW_PARAMS(S, A) A(f32, scale, 3) S(f32, step) S(i64, iterations)
VOXELRT_PARAMS(CurvatureFlowParams, CURVATURE_FLOW_PARAMS)

constexpr float kFlat = 1e-9f; // squared gradients below it have no direction

struct Scheme {
    vf16 first[3], second[3], cross[3];
    explicit Scheme(const CurvatureFlowParams &p) {
        for (int i = 0, pair = 0; i < 3; ++i) {
            first[i] = broadcast(0.5f * p.scale[i]);
            second[i] = broadcast(p.scale[i] * p.scale[i]);
            for (int j = i + 1; j < 3; ++j, ++pair)
                cross[pair] = broadcast(0.25f * p.scale[i] * p.scale[j]);
        }
    }

    vf16 speed(const Neighbours &n) const {
        vf16 slope[3], bend[3], squared = zero(), total = zero();
        for (int i = 0; i < 3; ++i) {
            slope[i] = first[i] * (n.plus[i] - n.minus[i]);
            bend[i] = second[i] * (n.plus[i] - n.centre - (n.centre - n.minus[i]));
            squared = fma(slope[i], slope[i], squared);
        }
        for (int i = 0; i < 3; ++i)
            total = fma(bend[(i + 1) % 3] + bend[(i + 2) % 3], slope[i] * slope[i], total);
        for (int i = 0, pair = 0; i < 3; ++i)
            for (int j = i + 1; j < 3; ++j, ++pair) {
                const vf16 *d = n.diagonal[pair];
                const vf16 twist = cross[pair] * (d[0] - d[1] - (d[2] - d[3]));
                total = total - broadcast(2.0f) * slope[i] * slope[j] * twist;
            }
        return select(squared < broadcast(kFlat), zero(), total / squared);
    }
};

Message run(const Step &step, const Env &env) {
    return run_scheme<CurvatureFlowParams>(
        step, env, [](const StencilJob &job, const auto &p, const float *from, float *to, const Env &e) {
            const Scheme scheme(p);
            const vf16 time = broadcast(p.step);
            job.visit(from, e, [&](int64_t, int64_t at, int lanes, const Neighbours &n) {
                store_first(to + at, fma(time, scheme.speed(n), n.centre), lanes);
            });
        });
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(curvature_flow, {{"curvature_flow", 1, CurvatureFlowParamsText, sizeof(CurvatureFlowParams),
                                  check_scheme<CurvatureFlowParams>, run, stencil_scratch, nullptr, nullptr}})
