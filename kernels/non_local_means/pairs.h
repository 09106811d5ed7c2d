// Weighted means over a search window where the weight of a pair of voxels is the same seen from either one:
//
//     out(i) = sum_j w(i, j) v(j) / sum_j w(i, j),   w(i, j) = 2^-(max(a S(i, j) - b, 0) + k(j - i))
//
// S(i, j) is the sum of squared differences of the patches around i and j, and k grows with the distance of j from i.
// Both non-local means (k = 0) and the bilateral filter (patches of one voxel) are of this form.
//
// Each unordered pair is worked out once, for the offsets of half the window, and counted at both ends. A task owns the
// sums of a box of whole rows and does the pairs that have an end in it; pairs across two boxes are done by both. For
// an offset (oz, oy) rows are visited in order with all ox of the window, so that two rows of voxels and of sums, and
// the last 2p + 1 rows of squared differences of each ox, stay in the first cache.
#pragma once

#include "halo.h"

namespace voxelrt::VOXELRT_ISA {

struct PairJob {
    int64_t dims[3];
    int64_t first, planes;       // the planes that are wanted: [first, first + planes)
    int64_t search[3], patch[3]; // radii along z, y, x
    float slope, offset;         // a and b
    float distance[3];           // k = sum over axes of distance * o^2
    bool squares;                // sums of v^2, and the root of their mean less `noise`: Rician
    float noise;
};

constexpr int64_t kBoxPlanes = 32, kBoxRows = 64;
constexpr int64_t kMostSearch = 32, kMostPatch = 8;

struct PairTask {
    const PairJob &job;
    Box values;
    int64_t end[3];        // of the box
    float *sums, *weights; // of the box's rows, then a row for ends outside
    int64_t sum_left, sum_stride;
    float *ring;    // [ox][2p + 1][ring_stride], from x = -patch
    float *box_row; // sums of a ring over y
    int64_t ring_stride;

    static int64_t ring_stride_of(const PairJob &job) {
        return whole_vectors(job.dims[2] + 2 * job.patch[2]) + 2 * kLanes;
    }
    static int64_t sum_left_of(const PairJob &job) { return whole_vectors(job.search[2]); }
    static int64_t sum_stride_of(const PairJob &job) {
        return whole_vectors(job.dims[2]) + 2 * sum_left_of(job) + kLanes;
    }
    static void box_size(const PairJob &job, int64_t size[3]) {
        size[0] = task_size(job.planes, kBoxPlanes);
        size[1] = task_size(job.dims[1], kBoxRows);
        size[2] = job.dims[2];
    }
    static void halo_of(const PairJob &job, int64_t halo[3]) {
        for (int i = 0; i < 3; ++i)
            halo[i] = job.search[i] + job.patch[i];
    }
    static uint64_t floats(const PairJob &job) {
        int64_t size[3], halo[3];
        box_size(job, size);
        halo_of(job, halo);
        const int64_t slots = (2 * job.search[2] + 1) * (2 * job.patch[1] + 1) + 1;
        return Box::floats(size, halo) +
               static_cast<uint64_t>(2 * (size[0] * size[1] + 1) * sum_stride_of(job) + slots * ring_stride_of(job));
    }

    PairTask(const PairJob &given, int64_t z, int64_t y, float *memory) : job(given) {
        int64_t size[3], halo[3];
        box_size(job, size);
        halo_of(job, halo);
        for (int i = 0; i < 3; ++i) {
            values.begin[i] = i == 0 ? z : i == 1 ? y : 0;
            const int64_t left = (i == 0 ? job.first + job.planes : job.dims[i]) - values.begin[i];
            values.size[i] = size[i] < left ? size[i] : left;
            values.halo[i] = halo[i];
            end[i] = values.begin[i] + values.size[i];
        }
        values.left = Box::left_of(halo[2]);
        values.stride = Box::stride_of(size[2], halo[2]);
        values.data = memory;
        memory += Box::floats(size, halo);
        sum_left = sum_left_of(job);
        sum_stride = sum_stride_of(job);
        sums = memory;
        weights = sums + (size[0] * size[1] + 1) * sum_stride;
        ring = weights + (size[0] * size[1] + 1) * sum_stride;
        ring_stride = ring_stride_of(job);
        box_row = ring + (2 * job.search[2] + 1) * (2 * job.patch[1] + 1) * ring_stride;
    }

    bool holds(int64_t z, int64_t y) const {
        return z >= values.begin[0] && z < end[0] && y >= values.begin[1] && y < end[1];
    }
    // Where voxel 0 of a row's sums lies, counted from `sums` or `weights`; rows outside share one that nobody reads.
    int64_t sum_row(int64_t z, int64_t y) const {
        const int64_t rows = values.size[0] * values.size[1];
        const int64_t row = holds(z, y) ? (z - values.begin[0]) * values.size[1] + y - values.begin[1] : rows;
        return row * sum_stride + sum_left;
    }

    // Every voxel counts itself with weight one.
    void begin_sums() const {
        for (int64_t z = values.begin[0]; z < end[0]; ++z)
            for (int64_t y = values.begin[1]; y < end[1]; ++y) {
                const float *v = values.row(z, y);
                float *sum = sums + sum_row(z, y), *weight = weights + sum_row(z, y);
                for (int64_t x = -sum_left; x < sum_stride - sum_left; ++x) {
                    const bool voxel = x >= 0 && x < job.dims[2];
                    sum[x] = !voxel ? 0.0f : job.squares ? v[x] * v[x] : v[x];
                    weight[x] = voxel ? 1.0f : 0.0f;
                }
            }
        const int64_t rest = sum_row(-1, -1) - sum_left;
        for (int64_t x = 0; x < sum_stride; ++x)
            sums[rest + x] = weights[rest + x] = 0.0f;
    }

    void write(float *wanted) const {
        const vf16 noise = broadcast(job.noise);
        for (int64_t z = values.begin[0]; z < end[0]; ++z)
            for (int64_t y = values.begin[1]; y < end[1]; ++y) {
                const float *sum = sums + sum_row(z, y), *weight = weights + sum_row(z, y);
                float *out = wanted + ((z - job.first) * job.dims[1] + y) * job.dims[2];
                for (int64_t x = 0; x < job.dims[2]; x += kLanes) {
                    const int64_t left = job.dims[2] - x;
                    vf16 mean = load(sum + x) / load(weight + x);
                    if (job.squares)
                        mean = sqrt(max(zero(), mean - noise));
                    store_first(out + x, mean, static_cast<int>(left < kLanes ? left : kLanes));
                }
            }
    }
};

// Radii of patches known to the compiler, or -1.
template <int P0, int P1, int P2, bool Squares> struct PairLoops {
    const PairTask &task;
    const PairJob &job;
    const int64_t pz, py, px;

    explicit PairLoops(const PairTask &given)
        : task(given), job(given.job), pz(P0 >= 0 ? P0 : job.patch[0]), py(P1 >= 0 ? P1 : job.patch[1]),
          px(P2 >= 0 ? P2 : job.patch[2]) {}

    // Squared differences of row y with its partner, summed over the planes of the patches.
    void differences(int64_t z, int64_t y, int64_t oz, int64_t oy, int64_t ox, float *to) const {
        const int64_t plane = task.values.plane(), count = job.dims[2] + 2 * px;
        const float *a = task.values.row(z - pz, y) - px, *b = task.values.row(z - pz + oz, y + oy) - px + ox;
        for (int64_t x = 0; x < count; x += kLanes) {
            vf16 sum = zero();
            for (int64_t p = 0; p <= 2 * pz; ++p) {
                const vf16 difference = load(a + p * plane + x) - load(b + p * plane + x);
                sum = fma(difference, difference, sum);
            }
            store(to + x, sum);
        }
    }

    // The rows of a ring added up, from the oldest.
    const float *added(const float *slots, int64_t newest) const {
        if (py == 0)
            return slots;
        const int64_t count = job.dims[2] + 2 * px, rows = 2 * py + 1;
        for (int64_t x = 0; x < count; x += kLanes) {
            vf16 sum = zero();
            for (int64_t i = 1; i <= rows; ++i)
                sum = sum + load(slots + (newest + i) % rows * task.ring_stride + x);
            store(task.box_row + x, sum);
        }
        return task.box_row;
    }

    // The pairs of one row and one offset: weights, and both ends' sums.
    void count(const float *row, int64_t z, int64_t y, int64_t oz, int64_t oy, int64_t ox) const {
        const float *v = task.values.row(z, y), *u = task.values.row(z + oz, y + oy) + ox;
        float *sum = task.sums + task.sum_row(z, y), *weight = task.weights + task.sum_row(z, y);
        float *far_sum = task.sums + task.sum_row(z + oz, y + oy) + ox;
        float *far_weight = task.weights + task.sum_row(z + oz, y + oy) + ox;
        const float steps[3] = {static_cast<float>(oz), static_cast<float>(oy), static_cast<float>(ox)};
        float k = 0.0f;
        for (int i = 0; i < 3; ++i)
            k += job.distance[i] * steps[i] * steps[i];
        const vf16 slope = broadcast(-job.slope), offset = broadcast(job.offset), far = broadcast(-k);
        const int64_t first = ox < 0 ? -ox : 0, last = job.dims[2] - (ox > 0 ? ox : 0);
        for (int64_t x = first / kLanes * kLanes; x < last; x += kLanes) {
            vf16 s = load(row + x);
            for (int64_t p = 1; p <= 2 * px; ++p)
                s = s + load(row + x + p);
            vf16 w = exp2_negative(min(zero(), fma(slope, s, offset)) + far);
            if (x < first)
                w = select(first_lanes(static_cast<int>(first - x)), zero(), w);
            if (last - x < kLanes)
                w = select(first_lanes(static_cast<int>(last - x)), w, zero());
            vf16 near = load(v + x), other = load(u + x);
            if (Squares) {
                near = near * near;
                other = other * other;
            }
            store(sum + x, fma(w, other, load(sum + x)));
            store(weight + x, load(weight + x) + w);
            store(far_sum + x, fma(w, near, load(far_sum + x)));
            store(far_weight + x, load(far_weight + x) + w);
        }
    }

    // Rows [from, to) of plane z with all ox from `first` on.
    void rows(int64_t z, int64_t from, int64_t to, int64_t oz, int64_t oy, int64_t first) const {
        const int64_t slots = 2 * py + 1, ring = slots * task.ring_stride;
        const auto slot = [&](int64_t y) { return ((y % slots) + slots) % slots; };
        for (int64_t y = from - py; y < to + py; ++y)
            for (int64_t ox = first; ox <= job.search[2]; ++ox) {
                float *mine = task.ring + (ox + job.search[2]) * ring;
                differences(z, y, oz, oy, ox, mine + slot(y) * task.ring_stride);
                if (y >= from + py)
                    count(added(mine, slot(y)), z, y - py, oz, oy, ox);
            }
    }

    void offset(int64_t oz, int64_t oy) const {
        const int64_t *dims = job.dims, *begin = task.values.begin, *end = task.end;
        const int64_t first = oz == 0 && oy == 0 ? 1 : -job.search[2];
        const int64_t z0 = begin[0] - oz > 0 ? begin[0] - oz : 0;
        const int64_t z1 = dims[0] - oz < end[0] ? dims[0] - oz : end[0];
        for (int64_t z = z0; z < z1; ++z) {
            const bool here = z >= begin[0], there = z + oz < end[0]; // which end's plane is in the box
            if (!here && !there)
                continue;
            int64_t y0 = here ? begin[1] : begin[1] - oy, y1 = here ? end[1] : end[1] - oy;
            if (here && there) {
                y0 = oy > 0 ? begin[1] - oy : begin[1];
                y1 = oy > 0 ? end[1] : end[1] - oy;
            }
            y0 = y0 < 0 ? 0 : y0;
            y0 = y0 < -oy ? -oy : y0;
            y1 = y1 > dims[1] ? dims[1] : y1;
            y1 = y1 > dims[1] - oy ? dims[1] - oy : y1;
            if (y0 < y1)
                rows(z, y0, y1, oz, oy, first);
        }
    }

    void all() const {
        for (int64_t oz = 0; oz <= job.search[0]; ++oz)
            for (int64_t oy = oz == 0 ? 0 : -job.search[1]; oy <= job.search[1]; ++oy)
                offset(oz, oy);
    }
};

template <bool Squares> void all_pairs(const PairTask &task) {
    const int64_t *p = task.job.patch;
    if (p[0] == 1 && p[1] == 1 && p[2] == 1)
        PairLoops<1, 1, 1, Squares>(task).all();
    else if (p[0] == 0 && p[1] == 0 && p[2] == 0)
        PairLoops<0, 0, 0, Squares>(task).all();
    else
        PairLoops<-1, -1, -1, Squares>(task).all();
}

inline void run_pairs(const PairJob &job, const Step &step, const Env &env) {
    if (step.out[0].count() == 0)
        return;
    int64_t size[3];
    PairTask::box_size(job, size);
    const int64_t deep = (job.planes + size[0] - 1) / size[0], high = (job.dims[1] + size[1] - 1) / size[1];
    const int64_t plane = job.dims[1] * job.dims[2], each = whole_vectors(static_cast<int64_t>(PairTask::floats(job)));
    env.parallel(step.out[0].dims[0] * deep * high, [&](int64_t index, uint32_t worker) {
        const int64_t y = index % high, z = index / high % deep, b = index / high / deep;
        float *memory = reinterpret_cast<float *>(env.scratch) + static_cast<int64_t>(worker) * each;
        const PairTask task(job, job.first + z * size[0], y * size[1], memory);
        task.values.fill(step.in[0].as<float>() + b * job.dims[0] * plane, job.dims, Border::reflect);
        task.begin_sums();
        if (job.squares)
            all_pairs<true>(task);
        else
            all_pairs<false>(task);
        task.write(step.out[0].as<float>() + b * job.planes * plane);
    });
}

// The volume, and what is wanted of it.
inline void set_dims(PairJob &job, const Step &step, int64_t first) {
    for (int i = 0; i < 3; ++i)
        job.dims[i] = step.in[0].dims[i + 1];
    job.first = first;
    job.planes = step.out[0].dims[1];
}

inline uint64_t pair_scratch(const PairJob &job, uint32_t threads) {
    return threads * static_cast<uint64_t>(whole_vectors(static_cast<int64_t>(PairTask::floats(job)))) * sizeof(float);
}

inline Message check_radii(const i64 *search, const i64 *patch) {
    for (int i = 0; i < 3; ++i) {
        if (search[i] < 0 || search[i] > kMostSearch)
            return fail("the search radius of axis %d is not in [0, %d]", i, static_cast<int>(kMostSearch));
        if (patch[i] < 0 || patch[i] > kMostPatch)
            return fail("the patch radius of axis %d is not in [0, %d]", i, static_cast<int>(kMostPatch));
    }
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA
