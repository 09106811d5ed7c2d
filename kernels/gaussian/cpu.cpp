// gaussian: three separable passes without a volume in between. A task makes a strip of rows, plane by plane: the rows
// of the z pass, then for each row the y pass into one padded row and the x pass out of it.
#include "halo.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

#define GAUSSIAN_PARAMS(S, A) A(i64, radius, 3)
VOXELRT_PARAMS(GaussianParams, GAUSSIAN_PARAMS)

constexpr int64_t kMostRadius = 4096;
constexpr int64_t kTaskPlanes = 16, kStripBytes = 1 << 16, kLeastRows = 8;

struct Job {
    int64_t dims[3], radius[3];
    const float *weights[3]; // of offsets -radius to radius
    int64_t planes, rows;    // of a task
    int64_t stride, left;

    explicit Job(const Step &step) {
        const GaussianParams p = step.as<GaussianParams>();
        for (int i = 0; i < 3; ++i) {
            dims[i] = step.in[0].dims[i + 1];
            radius[i] = p.radius[i];
            weights[i] = step.in[i + 1].as<float>();
        }
        const int64_t fit = kStripBytes / (4 * (dims[2] > 0 ? dims[2] : 1));
        planes = task_size(dims[0], kTaskPlanes);
        rows = task_size(dims[1], fit > kLeastRows ? fit : kLeastRows);
        left = whole_vectors(radius[2]);
        stride = left + whole_vectors(dims[2]) + whole_vectors(radius[2]) + kLanes;
    }
    // Rows of the z pass, then the padded one.
    int64_t floats() const { return (rows + 2 * radius[1] + 1) * stride; }
};

// to[x] = sum_k weights[k] * from(k)[x] for x in [0, count), k in [0, taps).
template <class From>
void weighted(From &&from, const float *weights, int64_t taps, float *to, int64_t count, bool whole) {
    int64_t x = 0;
    for (; x + 2 * kLanes <= count; x += 2 * kLanes) {
        vf16 a = zero(), b = zero();
        for (int64_t k = 0; k < taps; ++k) {
            const float *row = from(k) + x;
            const vf16 weight = broadcast(weights[k]);
            a = fma(load(row), weight, a);
            b = fma(load(row + kLanes), weight, b);
        }
        store(to + x, a);
        store(to + x + kLanes, b);
    }
    for (; x < count; x += kLanes) {
        const int left = static_cast<int>(count - x < kLanes ? count - x : kLanes);
        vf16 a = zero();
        for (int64_t k = 0; k < taps; ++k)
            a = fma(whole ? load(from(k) + x) : load_first(from(k) + x, left), broadcast(weights[k]), a);
        store_first(to + x, a, left);
    }
}

void strip(const Job &job, const float *volume, float *out, int64_t z, int64_t y0, int64_t y1, float *memory) {
    const int64_t width = job.dims[2], *r = job.radius;
    float *padded = memory + (job.rows + 2 * r[1]) * job.stride + job.left;
    for (int64_t y = y0 - r[1]; y < y1 + r[1]; ++y) {
        const float *row = volume + inside(y, job.dims[1], Border::edge) * width;
        const auto from = [&](int64_t k) {
            return row + inside(z + k - r[0], job.dims[0], Border::edge) * job.dims[1] * width;
        };
        weighted(from, job.weights[0], 2 * r[0] + 1, memory + (y - y0 + r[1]) * job.stride, width, false);
    }
    for (int64_t y = y0; y < y1; ++y) {
        const float *rows = memory + (y - y0) * job.stride;
        weighted([&](int64_t k) { return rows + k * job.stride; }, job.weights[1], 2 * r[1] + 1, padded, width, true);
        for (int64_t x = 1; x <= r[2]; ++x)
            padded[-x] = padded[0];
        for (int64_t x = width; x < width + r[2]; ++x)
            padded[x] = padded[width - 1];
        weighted([&](int64_t k) { return padded + k - r[2]; }, job.weights[2], 2 * r[2] + 1,
                 out + (z * job.dims[1] + y) * width, width, true);
    }
}

Message check(const Step &step) {
    if (step.inputs != 4)
        return fail("takes a volume and three rows of weights, not %d inputs", step.inputs);
    const Step volumes{step.params, step.in, step.out, 1, step.outputs};
    if (const Message wrong = check_volumes(volumes))
        return wrong;
    const GaussianParams p = step.as<GaussianParams>();
    for (int i = 0; i < 3; ++i) {
        if (p.radius[i] < 0 || p.radius[i] > kMostRadius)
            return fail("the radius of axis %d is not in [0, %d]", i, static_cast<int>(kMostRadius));
        const Tensor &weights = step.in[i + 1];
        if (weights.dtype != VOXELRT_F32 || weights.rank != 1 || weights.pending() || !weights.contiguous() ||
            weights.dims[0] != 2 * p.radius[i] + 1)
            return fail("the weights of axis %d are not 2 r + 1 float32 numbers", i);
    }
    return nullptr;
}

uint64_t scratch(const Step &step, uint32_t threads) {
    return threads * static_cast<uint64_t>(Job(step).floats()) * sizeof(float);
}

Message run(const Step &step, const Env &env) {
    if (step.in[0].count() == 0)
        return nullptr;
    const Job job(step);
    const int64_t deep = (job.dims[0] + job.planes - 1) / job.planes, high = (job.dims[1] + job.rows - 1) / job.rows;
    env.parallel(step.in[0].dims[0] * deep * high, [&](int64_t index, uint32_t worker) {
        const int64_t volume = index / high / deep * job.dims[0] * job.dims[1] * job.dims[2];
        const int64_t y = index % high * job.rows, z = index / high % deep * job.planes;
        const int64_t last = z + job.planes < job.dims[0] ? z + job.planes : job.dims[0];
        float *memory = reinterpret_cast<float *>(env.scratch) + static_cast<int64_t>(worker) * job.floats();
        for (int64_t plane = z; plane < last; ++plane)
            strip(job, step.in[0].as<float>() + volume, step.out[0].as<float>() + volume, plane, y,
                  y + job.rows < job.dims[1] ? y + job.rows : job.dims[1], memory);
    });
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(gaussian,
                {{"gaussian", 1, GaussianParamsText, sizeof(GaussianParams), check, run, scratch, nullptr, nullptr}})
