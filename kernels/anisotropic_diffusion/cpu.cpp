// anisotropic_diffusion: Perona and Malik's equation, whose conductance falls with the gradient's magnitude at the face
// between two voxels. A step takes two sweeps: the mean squared gradient, then the fluxes.
#include "stencil.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

#define ANISOTROPIC_DIFFUSION_PARAMS(S, A) A(f32, scale, 3) S(f32, conductance) S(f32, step) S(i64, iterations)
VOXELRT_PARAMS(AnisotropicDiffusionParams, ANISOTROPIC_DIFFUSION_PARAMS)

constexpr float kLog2E = 1.44269504f;

struct Scheme {
    vf16 scale[3], half[3];
    explicit Scheme(const AnisotropicDiffusionParams &p) {
        for (int i = 0; i < 3; ++i) {
            scale[i] = broadcast(p.scale[i]);
            half[i] = broadcast(0.5f * p.scale[i]);
        }
    }

    vf16 squared_gradient(const Neighbours &n) const {
        vf16 sum = zero();
        for (int i = 0; i < 3; ++i) {
            const vf16 slope = half[i] * (n.plus[i] - n.minus[i]);
            sum = fma(slope, slope, sum);
        }
        return sum;
    }

    // The flux through the face on one side of axis i: the difference times its conductance. The other two components
    // of the gradient at the face are means of those at the voxels it parts.
    vf16 flux(const Neighbours &n, const vf16 *slopes, int i, int side, vf16 less) const {
        const vf16 along = scale[i] * (side ? n.plus[i] - n.centre : n.centre - n.minus[i]);
        vf16 squared = along * along;
        for (int j = 0; j < 3; ++j)
            if (j != i) {
                const vf16 across =
                    broadcast(0.5f) * fma(half[j], n.corner(i, side, j, 1) - n.corner(i, side, j, 0), slopes[j]);
                squared = fma(across, across, squared);
            }
        return along * exp2_negative(squared * less);
    }

    vf16 change(const Neighbours &n, vf16 less) const {
        vf16 slopes[3], total = zero();
        for (int i = 0; i < 3; ++i)
            slopes[i] = half[i] * (n.plus[i] - n.minus[i]);
        for (int i = 0; i < 3; ++i)
            total = total + (flux(n, slopes, i, 1, less) - flux(n, slopes, i, 0, less));
        return total;
    }
};

Message check(const Step &step) {
    if (const Message wrong = check_scheme<AnisotropicDiffusionParams>(step))
        return wrong;
    return step.as<AnisotropicDiffusionParams>().conductance > 0 ? nullptr : "the conductance is above 0";
}

void one_step(const StencilJob &job, const AnisotropicDiffusionParams &p, const float *from, float *to,
              const Env &env) {
    const Scheme scheme(p);
    const vf16 time = broadcast(p.step);
    double *sums = job.task_sums(env);
    for (int64_t i = 0; i < job.tasks(); ++i)
        sums[i] = 0.0;
    job.visit(from, env, [&](int64_t task, int64_t, int lanes, const Neighbours &n) {
        sums[task] += static_cast<double>(sum(select(first_lanes(lanes), scheme.squared_gradient(n), zero())));
    });
    double total = 0.0;
    for (int64_t i = 0; i < job.tasks(); ++i)
        total += sums[i];
    const double width = 2.0 * total / static_cast<double>(job.voxels()) * p.conductance * p.conductance;
    if (!(width > 0.0)) { // nothing varies
        std::memcpy(to, from, static_cast<size_t>(job.voxels()) * sizeof(float));
        return;
    }
    const vf16 less = broadcast(static_cast<float>(-static_cast<double>(kLog2E) / width));
    job.visit(from, env, [&](int64_t, int64_t at, int lanes, const Neighbours &n) {
        store_first(to + at, fma(time, scheme.change(n, less), n.centre), lanes);
    });
}

Message run(const Step &step, const Env &env) {
    return run_scheme<AnisotropicDiffusionParams>(step, env, one_step);
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(anisotropic_diffusion,
                {{"anisotropic_diffusion", 1, AnisotropicDiffusionParamsText, sizeof(AnisotropicDiffusionParams), check,
                  run, stencil_scratch, nullptr, nullptr}})
