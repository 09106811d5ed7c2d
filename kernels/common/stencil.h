// Explicit schemes on volumes: every step makes each voxel from its 3 x 3 x 3 neighbourhood (without the corners) of
// the step before. Two volumes take turns, the output and one in scratch; beyond a face its last voxel goes on.
#pragma once

#include "halo.h"

namespace voxelrt::VOXELRT_ISA {

constexpr int64_t kStencilPlanes = 8, kStencilRows = 32;
constexpr int64_t kStencilHalo[3] = {1, 1, 1};
constexpr int64_t kMostIterations = 1 << 20;

// Sixteen voxels' neighbours; axes are 0: z, 1: y, 2: x.
struct Neighbours {
    vf16 centre, plus[3], minus[3];
    vf16 diagonal[3][4]; // of (z, y), (z, x), (y, x): - -, - +, + -, + +

    Neighbours(const float *at, const int64_t step[3]) {
        centre = load(at);
        for (int i = 0; i < 3; ++i) {
            plus[i] = load(at + step[i]);
            minus[i] = load(at - step[i]);
        }
        for (int i = 0, pair = 0; i < 3; ++i)
            for (int j = i + 1; j < 3; ++j, ++pair) {
                diagonal[pair][0] = load(at - step[i] - step[j]);
                diagonal[pair][1] = load(at - step[i] + step[j]);
                diagonal[pair][2] = load(at + step[i] - step[j]);
                diagonal[pair][3] = load(at + step[i] + step[j]);
            }
    }
    // The voxel at a distance of one along i (side 0: minus, 1: plus) and one along j.
    vf16 corner(int i, int side_i, int j, int side_j) const {
        const int a = i < j ? i : j, b = i < j ? j : i;
        return diagonal[a + b - 1][i < j ? 2 * side_i + side_j : 2 * side_j + side_i];
    }
};

struct StencilJob {
    int64_t dims[3], size[3];
    int64_t deep, high; // boxes
    uint64_t box;       // floats of one

    explicit StencilJob(const Step &step) {
        for (int i = 0; i < 3; ++i)
            dims[i] = step.in[0].dims[i + 1];
        size[0] = task_size(dims[0], kStencilPlanes);
        size[1] = task_size(dims[1], kStencilRows);
        size[2] = dims[2];
        deep = (dims[0] + size[0] - 1) / size[0];
        high = (dims[1] + size[1] - 1) / size[1];
        box = Box::floats(size, kStencilHalo);
    }
    int64_t voxels() const { return dims[0] * dims[1] * dims[2]; }
    int64_t tasks() const { return deep * high; }
    // The other volume, a double a task, a box a thread.
    uint64_t scratch(uint32_t threads) const {
        return (static_cast<uint64_t>(whole_vectors(voxels())) + threads * box) * sizeof(float) +
               static_cast<uint64_t>(whole_vectors(tasks())) * sizeof(double);
    }

    // Call body(task, voxel index, lanes, neighbours) for every sixteen voxels of a volume.
    template <class F> void visit(const float *volume, const Env &env, F &&body) const {
        float *boxes = reinterpret_cast<float *>(env.scratch) + whole_vectors(voxels()) + 2 * whole_vectors(tasks());
        env.parallel(tasks(), [&](int64_t task, uint32_t worker) {
            Box part{};
            part.begin[0] = task / high * size[0];
            part.begin[1] = task % high * size[1];
            for (int i = 0; i < 3; ++i) {
                part.size[i] = dims[i] - part.begin[i] < size[i] ? dims[i] - part.begin[i] : size[i];
                part.halo[i] = 1;
            }
            part.left = Box::left_of(1);
            part.stride = Box::stride_of(dims[2], 1);
            part.data = boxes + worker * box;
            part.fill(volume, dims, Border::edge);
            const int64_t step[3] = {part.plane(), part.stride, 1};
            for (int64_t z = part.begin[0]; z < part.begin[0] + part.size[0]; ++z)
                for (int64_t y = part.begin[1]; y < part.begin[1] + part.size[1]; ++y)
                    for (int64_t x = 0; x < dims[2]; x += kLanes) {
                        const int64_t left = dims[2] - x;
                        body(task, (z * dims[1] + y) * dims[2] + x, static_cast<int>(left < kLanes ? left : kLanes),
                             Neighbours(part.row(z, y) + x, step));
                    }
        });
    }

    // `iterations` steps of every volume; one_step(from, to, env) makes one.
    template <class F> void iterate(const Step &step, const Env &env, int64_t iterations, F &&one_step) const {
        for (int64_t b = 0; b < step.in[0].dims[0]; ++b) {
            const float *from = step.in[0].as<float>() + b * voxels();
            float *out = step.out[0].as<float>() + b * voxels(), *other = reinterpret_cast<float *>(env.scratch);
            if (iterations == 0)
                std::memcpy(out, from, static_cast<size_t>(voxels()) * sizeof(float));
            for (int64_t i = 0; i < iterations; ++i) {
                float *to = (iterations - 1 - i) % 2 == 0 ? out : other;
                one_step(from, to, env);
                from = to;
            }
        }
    }
    double *task_sums(const Env &env) const {
        return reinterpret_cast<double *>(reinterpret_cast<float *>(env.scratch) + whole_vectors(voxels()));
    }
};

// ---- what the kernels of such schemes register: P has `iterations` ----

inline uint64_t stencil_scratch(const Step &step, uint32_t threads) {
    return StencilJob(step).scratch(threads);
}

template <class P> Message check_scheme(const Step &step) {
    if (const Message wrong = check_volumes(step))
        return wrong;
    const P p = step.as<P>();
    return p.iterations >= 0 && p.iterations <= kMostIterations ? nullptr : "iterations are out of range";
}

// one_step(job, p, from, to, env) makes a volume from the one before.
template <class P, class F> Message run_scheme(const Step &step, const Env &env, F &&one_step) {
    if (step.in[0].count() == 0)
        return nullptr;
    const P p = step.as<P>();
    const StencilJob job(step);
    job.iterate(step, env, p.iterations,
                [&](const float *from, float *to, const Env &e) { one_step(job, p, from, to, e); });
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA
