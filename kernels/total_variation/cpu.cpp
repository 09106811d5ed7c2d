// total_variation: Chambolle's projection. A dual field p of three components; a step makes the image from p's
// divergence, then p from the image's gradient.
#include "stencil.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

#define TOTAL_VARIATION_PARAMS(S, A) S(f32, weight) S(f64, tolerance) S(i64, iterations) S(i64, axes)
VOXELRT_PARAMS(TotalVariationParams, TOTAL_VARIATION_PARAMS)

struct Job {
    int64_t dims[3], stride;
    float *field[3]; // rows of `stride`; what is left of voxel 0 is zero
    float *nothing;  // a row of zeros
    double *sums;    // of every plane

    explicit Job(const Step &step) {
        for (int i = 0; i < 3; ++i)
            dims[i] = step.in[0].dims[i + 1];
        stride = kLanes + whole_vectors(dims[2]);
    }
    int64_t rows() const { return dims[0] * dims[1]; }
    uint64_t bytes() const {
        return static_cast<uint64_t>((3 * rows() + 1) * stride) * sizeof(float) +
               static_cast<uint64_t>(dims[0]) * sizeof(double);
    }
    void place(char *memory) {
        for (int i = 0; i < 3; ++i)
            field[i] = reinterpret_cast<float *>(memory) + i * rows() * stride + kLanes;
        nothing = field[2] + rows() * stride;
        sums = reinterpret_cast<double *>(nothing + stride - kLanes);
    }
    double total() const {
        double sum = 0.0;
        for (int64_t z = 0; z < dims[0]; ++z)
            sum += sums[z];
        return sum;
    }
};

vf16 load_lanes(const float *from, int lanes) {
    return lanes == kLanes ? load(from) : load_first(from, lanes);
}

// image + div p, and the sum of (div p)^2 of a plane.
double image_plane(const Job &job, const float *noisy, float *out, int64_t z) {
    double squares = 0.0;
    for (int64_t y = 0; y < job.dims[1]; ++y) {
        const int64_t row = z * job.dims[1] + y, at = row * job.stride;
        const float *up = z > 0 ? job.field[0] + at - job.dims[1] * job.stride : job.nothing;
        const float *before = y > 0 ? job.field[1] + at - job.stride : job.nothing;
        vf16 sum_row = zero();
        for (int64_t x = 0; x < job.dims[2]; x += kLanes) {
            const int lanes = static_cast<int>(job.dims[2] - x < kLanes ? job.dims[2] - x : kLanes);
            const vf16 d = load(up + x) - load(job.field[0] + at + x) +
                           (load(before + x) - load(job.field[1] + at + x)) +
                           (load(job.field[2] + at + x - 1) - load(job.field[2] + at + x));
            const vf16 counted = lanes == kLanes ? d : select(first_lanes(lanes), d, zero());
            sum_row = fma(counted, counted, sum_row);
            store_first(out + row * job.dims[2] + x, load_lanes(noisy + row * job.dims[2] + x, lanes) + d, lanes);
        }
        squares += static_cast<double>(sum(sum_row));
    }
    return squares;
}

// p = (p - tau grad) / (1 + tau |grad| / weight), and the sum of |grad| of a plane.
double field_plane(const Job &job, const float *image, int64_t z, float tau, float weight) {
    double norms = 0.0;
    const vf16 step = broadcast(tau), share = broadcast(tau / weight), one = broadcast(1.0f);
    for (int64_t y = 0; y < job.dims[1]; ++y) {
        const int64_t row = z * job.dims[1] + y, at = row * job.stride;
        const float *here = image + row * job.dims[2];
        const float *below = z + 1 < job.dims[0] ? here + job.dims[1] * job.dims[2] : here;
        const float *after = y + 1 < job.dims[1] ? here + job.dims[2] : here;
        vf16 sum_row = zero();
        for (int64_t x = 0; x < job.dims[2]; x += kLanes) {
            const int lanes = static_cast<int>(job.dims[2] - x < kLanes ? job.dims[2] - x : kLanes);
            const vf16 v = load_lanes(here + x, lanes);
            // The last voxel of a row has no next one.
            const int next = x + kLanes < job.dims[2] ? static_cast<int>(kLanes) : lanes - 1;
            vf16 gradient[3] = {load_lanes(below + x, lanes) - v, load_lanes(after + x, lanes) - v,
                                load_lanes(here + x + 1, next) - v};
            if (next < kLanes)
                gradient[2] = select(first_lanes(next), gradient[2], zero());
            vf16 squared = gradient[0] * gradient[0];
            squared = fma(gradient[1], gradient[1], squared);
            const vf16 norm = sqrt(fma(gradient[2], gradient[2], squared));
            sum_row = sum_row + norm;
            const vf16 divisor = fma(share, norm, one);
            for (int i = 0; i < 3; ++i) {
                float *p = job.field[i] + at + x;
                store(p, (load(p) - step * gradient[i]) / divisor);
            }
        }
        norms += static_cast<double>(sum(sum_row));
    }
    return norms;
}

void one_volume(Job &job, const TotalVariationParams &p, const float *noisy, float *out, const Env &env) {
    std::memset(env.scratch, 0, job.bytes());
    const float tau = 1.0f / static_cast<float>(2 * p.axes);
    const double voxels = static_cast<double>(job.rows() * job.dims[2]);
    double first = 0.0, last = 0.0;
    for (int64_t i = 0; i < p.iterations; ++i) {
        env.parallel(job.dims[0], [&](int64_t z, uint32_t) { job.sums[z] = image_plane(job, noisy, out, z); });
        double energy = job.total();
        env.parallel(job.dims[0], [&](int64_t z, uint32_t) { job.sums[z] = field_plane(job, out, z, tau, p.weight); });
        energy = (energy + static_cast<double>(p.weight) * job.total()) / voxels;
        const double change = energy > last ? energy - last : last - energy;
        if (i == 0)
            first = energy;
        else if (change < p.tolerance * first)
            return;
        last = energy;
    }
}

Message check(const Step &step) {
    if (const Message wrong = check_volumes(step))
        return wrong;
    const TotalVariationParams p = step.as<TotalVariationParams>();
    if (!(p.weight > 0) || p.iterations < 1 || p.iterations > kMostIterations || !(p.tolerance >= 0))
        return "weight is above 0, iterations are at least 1, tolerance is not negative";
    return p.axes == 2 || p.axes == 3 ? nullptr : "an image has two axes or three";
}

uint64_t scratch(const Step &step, uint32_t) {
    return Job(step).bytes();
}

Message run(const Step &step, const Env &env) {
    if (step.in[0].count() == 0)
        return nullptr;
    Job job(step);
    job.place(env.scratch);
    const int64_t voxels = job.rows() * job.dims[2];
    for (int64_t b = 0; b < step.in[0].dims[0]; ++b)
        one_volume(job, step.as<TotalVariationParams>(), step.in[0].as<float>() + b * voxels,
                   step.out[0].as<float>() + b * voxels, env);
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(total_variation, {{"total_variation", 1, TotalVariationParamsText, sizeof(TotalVariationParams), check,
                                   run, scratch, nullptr, nullptr}})
