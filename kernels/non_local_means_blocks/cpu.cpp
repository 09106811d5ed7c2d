// non_local_means_blocks: sixteen blocks of a row at a time, block centres on every second voxel. A partner's patch is
// loaded once for its distance and once more, from the first cache, for the block's sums, which stay in registers over
// the whole search window. Rows are kept as their even and their odd voxels, so that the loads of neighbouring blocks
// have no gaps.
#include "halo.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

#define NON_LOCAL_MEANS_BLOCKS_PARAMS(S, A)                                                                            \
    A(i64, search, 3)                                                                                                  \
    A(i64, patch, 3)                                                                                                   \
    S(f32, slope)                                                                                                      \
    S(f32, like_means) S(f32, like_variances) S(i32, own) S(i32, squares) S(f32, noise) S(f32, level) S(i64, first)
VOXELRT_PARAMS(NonLocalMeansBlocksParams, NON_LOCAL_MEANS_BLOCKS_PARAMS)

constexpr int64_t kBoxPlanes = 32, kBoxRows = 32;
constexpr int64_t kMostSearch = 32, kMostPatch = 3;
constexpr float kLeast = -100.0f; // the exponent of a weight that counts: float32 could not divide by much less

int64_t half_down(int64_t x, int64_t step) { // x / step towards minus infinity
    return step == 1 ? x : x >> 1;
}

struct Job {
    NonLocalMeansBlocksParams p;
    int64_t dims[3], planes; // of the volume; wanted are the planes from p.first
    int64_t search[3], patch[3], step[3], values;

    explicit Job(const Step &given) : p(given.as<NonLocalMeansBlocksParams>()), planes(given.out[0].dims[1]) {
        values = 1;
        for (int i = 0; i < 3; ++i) {
            dims[i] = given.in[0].dims[i + 1];
            // No partner lies farther away than the volume is wide.
            search[i] = p.search[i] < dims[i] ? p.search[i] : (dims[i] > 0 ? dims[i] - 1 : 0);
            patch[i] = p.patch[i];
            step[i] = patch[i] > 0 ? 2 : 1;
            values *= 2 * patch[i] + 1;
        }
    }
    int64_t box_planes() const { return even(task_size(planes, kBoxPlanes)); }
    int64_t box_rows() const { return even(task_size(dims[1], kBoxRows)); }
    static int64_t even(int64_t n) { return n + n % 2; } // so that few blocks lie across two boxes
};

// Rows of a box, each as `step` phases: voxel x is element x / step of phase x % step.
struct Rows {
    int64_t begin[2], size[2]; // z, y
    int64_t step, left, stride;
    float *data;

    static int64_t stride_of(const Job &job, int64_t left) {
        return left + whole_vectors((job.dims[2] + job.step[2] - 1) / job.step[2]) + left;
    }
    float *row(int64_t z, int64_t y, int64_t phase) const {
        return data + (((z - begin[0]) * size[1] + y - begin[1]) * step + phase) * stride + left;
    }
    float *at(int64_t z, int64_t y, int64_t x) const {
        const int64_t cell = half_down(x, step);
        return row(z, y, x - cell * step) + cell;
    }
    int64_t floats() const { return size[0] * size[1] * step * stride; }
};

struct Task {
    const Job &job;
    int64_t begin[2], end[2]; // the voxels it owns, z and y
    Rows values, means, variances, sums;
    vf16 *held = nullptr; // a block's values and sums, for patches of any size

    Task(const Job &given, int64_t z, int64_t y) : job(given) {
        begin[0] = z;
        begin[1] = y;
        const int64_t most[2] = {job.p.first + job.planes, job.dims[1]}, size[2] = {job.box_planes(), job.box_rows()};
        for (int i = 0; i < 2; ++i)
            end[i] = begin[i] + size[i] < most[i] ? begin[i] + size[i] : most[i];
        const int64_t left = whole_vectors(job.search[2] + 2 * job.patch[2]) + kLanes;
        Rows *const all[4] = {&values, &means, &variances, &sums};
        for (int k = 0; k < 4; ++k) {
            Rows &rows = *all[k];
            for (int i = 0; i < 2; ++i) {
                // Blocks reach a patch past the box, partners a window further, their patches one patch more.
                const int64_t around = k == 3 ? 0 : job.patch[i] + job.search[i] + (k == 0 ? job.patch[i] : 0);
                rows.begin[i] = begin[i] - around;
                rows.size[i] = size[i] + 2 * around;
            }
            rows.step = job.step[2];
            rows.left = left;
            rows.stride = Rows::stride_of(job, left);
        }
    }
    int64_t floats() const {
        return values.floats() + means.floats() + variances.floats() + sums.floats() + 2 * job.values * kLanes;
    }
    void place(float *memory) {
        for (Rows *rows : {&values, &means, &variances, &sums}) {
            rows->data = memory;
            memory += rows->floats();
        }
        held = reinterpret_cast<vf16 *>(memory);
    }

    void fill(const float *volume) const {
        const int64_t around = job.search[2] + 2 * job.patch[2];
        std::memset(values.data, 0, static_cast<size_t>(values.floats()) * sizeof(float));
        for (int64_t z = values.begin[0]; z < values.begin[0] + values.size[0]; ++z)
            for (int64_t y = values.begin[1]; y < values.begin[1] + values.size[1]; ++y) {
                const float *from = volume + (inside(z, job.dims[0], Border::reflect) * job.dims[1] +
                                              inside(y, job.dims[1], Border::reflect)) *
                                                 job.dims[2];
                for (int64_t x = -around; x < job.dims[2] + around; ++x)
                    *values.at(z, y, x) = from[inside(x, job.dims[2], Border::reflect)];
            }
    }

    // Means above the level and variances of the patches around the voxels that may be partners.
    void describe() const {
        const vf16 share = broadcast(1.0f / static_cast<float>(job.values)), level = broadcast(job.p.level);
        for (int64_t z = means.begin[0]; z < means.begin[0] + means.size[0]; ++z)
            for (int64_t y = means.begin[1]; y < means.begin[1] + means.size[1]; ++y)
                for (int64_t phase = 0; phase < means.step; ++phase)
                    for (int64_t c = 0; c * means.step < job.dims[2]; c += kLanes) {
                        const int64_t x = c * means.step + phase;
                        vf16 sum = zero(), squares = zero();
                        visit(z, y, x, [&](vf16 v) { sum = sum + v; });
                        const vf16 mean = sum * share;
                        visit(z, y, x, [&](vf16 v) { squares = fma(v - mean, v - mean, squares); });
                        store(means.row(z, y, phase) + c, mean - level);
                        store(variances.row(z, y, phase) + c, squares * share);
                    }
    }
    template <class F> void visit(int64_t z, int64_t y, int64_t x, F &&body) const {
        for (int64_t i = -job.patch[0]; i <= job.patch[0]; ++i)
            for (int64_t j = -job.patch[1]; j <= job.patch[1]; ++j)
                for (int64_t k = -job.patch[2]; k <= job.patch[2]; ++k)
                    body(load(values.at(z + i, y + j, x + k)));
    }

    // How many blocks hold a voxel of an axis.
    int64_t blocks_of(int axis, int64_t x) const {
        const int64_t step = job.step[axis], r = job.patch[axis], last = (job.dims[axis] - 1) / step;
        const int64_t low = x - r > 0 ? (x - r + step - 1) / step : 0, high = (x + r) / step;
        return (high < last ? high : last) - low + 1;
    }
    void write(float *wanted) const {
        for (int64_t z = begin[0]; z < end[0]; ++z)
            for (int64_t y = begin[1]; y < end[1]; ++y) {
                float *out = wanted + ((z - job.p.first) * job.dims[1] + y) * job.dims[2];
                const int64_t blocks = blocks_of(0, z) * blocks_of(1, y);
                for (int64_t x = 0; x < job.dims[2]; ++x)
                    out[x] = *sums.at(z, y, x) / static_cast<float>(blocks * blocks_of(2, x));
            }
    }
};

// Radii of patches known to the compiler, or -1.
template <int P0, int P1, int P2, bool Squares> struct Blocks {
    const Task &task;
    const Job &job;
    const int64_t pz, py, px;
    static constexpr bool kKnown = P0 >= 0;
    static constexpr int kValues = kKnown ? (2 * P0 + 1) * (2 * P1 + 1) * (2 * P2 + 1) : 1;

    explicit Blocks(const Task &given)
        : task(given), job(given.job), pz(kKnown ? P0 : job.patch[0]), py(kKnown ? P1 : job.patch[1]),
          px(kKnown ? P2 : job.patch[2]) {}

    // Call body(i, pointer) for the i-th voxel of the patches of sixteen neighbouring blocks; x is the first centre's.
    template <class F>
    inline __attribute__((always_inline)) void patch(int64_t z, int64_t y, int64_t x, F &&body) const {
        const int64_t step = P2 > 0 ? 2 : kKnown ? 1 : job.step[2];
        const Rows &v = task.values;
        const int64_t plane = v.size[1] * step * v.stride, line = step * v.stride;
        int i = 0;
        if constexpr (kKnown) {
            const float *along[2 * P2 + 1];
#pragma GCC unroll 8
            for (int c = -P2; c <= P2; ++c) {
                const int64_t cell = half_down(x + c, step);
                along[c + P2] = v.row(z - P0, y - P1, x + c - cell * step) + cell;
            }
#pragma GCC unroll 8
            for (int a = 0; a <= 2 * P0; ++a)
#pragma GCC unroll 8
                for (int b = 0; b <= 2 * P1; ++b)
#pragma GCC unroll 8
                    for (int c = 0; c <= 2 * P2; ++c)
                        body(i++, along[c] + a * plane + b * line);
        } else {
            for (int64_t a = -pz; a <= pz; ++a)
                for (int64_t b = -py; b <= py; ++b)
                    for (int64_t c = -px; c <= px; ++c)
                        body(i++, v.at(z + a, y + b, x + c));
        }
    }

    struct Partners { // what makes sixteen partners alike
        vf16 low_mean, high_mean, low_variance, high_variance;
        vm16 centres;
    };

    Partners partners(int64_t z, int64_t y, int64_t x, vm16 centres) const {
        const auto bounds = [&](const Rows &rows, float share, vf16 &low, vf16 &high) {
            const vf16 own = load(rows.at(z, y, x)), far = broadcast(3.4e38f);
            const vm16 any_like = zero() < own;
            low = select(any_like, own * broadcast(share), far);
            high = share > 0.0f ? own * broadcast(1.0f / share) : far;
        };
        Partners made;
        bounds(task.means, job.p.like_means, made.low_mean, made.high_mean);
        bounds(task.variances, job.p.like_variances, made.low_variance, made.high_variance);
        made.centres = centres;
        return made;
    }

    // Sixteen blocks around (z, y, x), (z, y, x + step) ...
    void sixteen(int64_t z, int64_t y, int64_t x, int count) const {
        const int64_t step = job.step[2];
        alignas(64) float lane[kLanes];
        for (int i = 0; i < kLanes; ++i)
            lane[i] = static_cast<float>(x + i * step);
        const vf16 place = load(lane), width = broadcast(static_cast<float>(job.dims[2]));
        const Partners like = partners(z, y, x, first_lanes(count));
        vf16 known_own[kValues], known_sum[kValues];
        vf16 *own = kKnown ? known_own : task.held, *sum = kKnown ? known_sum : task.held + job.values;
        patch(z, y, x, [&](int i, const float *from) {
            own[i] = load(from);
            sum[i] = zero();
        });
        vf16 total = zero(), most = zero();
        const vf16 slope = broadcast(-job.p.slope);
        for (int64_t oz = -job.search[0]; oz <= job.search[0]; ++oz) {
            if (z + oz < 0 || z + oz >= job.dims[0])
                continue;
            for (int64_t oy = -job.search[1]; oy <= job.search[1]; ++oy) {
                if (y + oy < 0 || y + oy >= job.dims[1])
                    continue;
                for (int64_t ox = -job.search[2]; ox <= job.search[2]; ++ox) {
                    if (oz == 0 && oy == 0 && ox == 0)
                        continue;
                    const vf16 mean = load(task.means.at(z + oz, y + oy, x + ox)),
                               variance = load(task.variances.at(z + oz, y + oy, x + ox)),
                               there = place + broadcast(static_cast<float>(ox));
                    const vm16 alike = like.centres & (like.low_mean < mean) & (mean < like.high_mean) &
                                       (like.low_variance < variance) & (variance < like.high_variance) &
                                       (there >= zero()) & (there < width);
                    if (!any(alike))
                        continue;
                    vf16 apart[2] = {zero(), zero()};
                    patch(z + oz, y + oy, x + ox, [&](int i, const float *from) {
                        const vf16 d = load(from) - own[i];
                        apart[i & 1] = fma(d, d, apart[i & 1]);
                    });
                    const vf16 t = slope * (apart[0] + apart[1]);
                    const vf16 w = select(alike & (t >= broadcast(kLeast)), exp2_negative(t), zero());
                    most = max(w, most);
                    total = total + w;
                    patch(z + oz, y + oy, x + ox, [&](int i, const float *from) {
                        const vf16 v = load(from);
                        sum[i] = fma(Squares ? w * v : w, v, sum[i]);
                    });
                }
            }
        }
        finish(z, y, x, count, own, sum, total, most);
    }

    // A block counts as much as its best partner, or nothing where it has partners.
    void finish(int64_t z, int64_t y, int64_t x, int count, const vf16 *own, const vf16 *sum, vf16 total,
                vf16 most) const {
        const vm16 centres = first_lanes(count);
        const vf16 self = select(zero() < most, job.p.own ? most : zero(), broadcast(1.0f)),
                   share = broadcast(1.0f) / (total + self), noise = broadcast(job.p.noise);
        int i = 0;
        for (int64_t a = -pz; a <= pz; ++a)
            for (int64_t b = -py; b <= py; ++b)
                for (int64_t c = -px; c <= px; ++c, ++i) {
                    if (z + a < task.begin[0] || z + a >= task.end[0] || y + b < task.begin[1] || y + b >= task.end[1])
                        continue;
                    vf16 value = fma(Squares ? self * own[i] : self, own[i], sum[i]) * share;
                    if (Squares)
                        value = sqrt(max(zero(), value - noise));
                    float *to = task.sums.at(z + a, y + b, x + c);
                    store(to, load(to) + select(centres, value, zero()));
                }
    }

    void all() const {
        std::memset(task.sums.data, 0, static_cast<size_t>(task.sums.floats()) * sizeof(float));
        const auto first = [&](int axis) { // of the blocks that reach into the box
            const int64_t low = task.begin[axis] - job.patch[axis];
            return low <= 0 ? 0 : (low + job.step[axis] - 1) / job.step[axis] * job.step[axis];
        };
        const int64_t step = job.step[2], blocks = (job.dims[2] + step - 1) / step;
        for (int64_t z = first(0); z < job.dims[0] && z - pz < task.end[0]; z += job.step[0])
            for (int64_t y = first(1); y < job.dims[1] && y - py < task.end[1]; y += job.step[1])
                for (int64_t c = 0; c < blocks; c += kLanes)
                    sixteen(z, y, c * step, static_cast<int>(blocks - c < kLanes ? blocks - c : kLanes));
    }
};

template <bool Squares> void all_blocks(const Task &task) {
    const int64_t *p = task.job.patch;
    if (p[0] == 1 && p[1] == 1 && p[2] == 1)
        Blocks<1, 1, 1, Squares>(task).all();
    else if (p[0] == 0 && p[1] == 1 && p[2] == 1)
        Blocks<0, 1, 1, Squares>(task).all();
    else
        Blocks<-1, -1, -1, Squares>(task).all();
}

Message check(const Step &step) {
    const NonLocalMeansBlocksParams p = step.as<NonLocalMeansBlocksParams>();
    if (const Message wrong = check_planes(step, p.first))
        return wrong;
    for (int i = 0; i < 3; ++i) {
        if (p.search[i] < 0 || p.search[i] > kMostSearch)
            return fail("the search radius of axis %d is not in [0, %d]", i, static_cast<int>(kMostSearch));
        if (p.patch[i] < 0 || p.patch[i] > kMostPatch)
            return fail("the patch radius of axis %d is not in [0, %d]", i, static_cast<int>(kMostPatch));
        if (step.in[0].dims[i + 1] > 1 << 22)
            return fail("axis %d is too long", i);
    }
    if (!(p.like_means >= 0 && p.like_means < 1 && p.like_variances >= 0 && p.like_variances < 1))
        return "shares of means and variances lie in [0, 1)";
    return p.slope >= 0 && p.noise >= 0 ? nullptr : "slope and noise are not negative";
}

uint64_t scratch(const Step &step, uint32_t threads) {
    const Job job(step);
    return threads * static_cast<uint64_t>(Task(job, 0, 0).floats()) * sizeof(float);
}

Message run(const Step &step, const Env &env) {
    if (step.out[0].count() == 0)
        return nullptr;
    const Job job(step);
    const int64_t size[2] = {job.box_planes(), job.box_rows()};
    const int64_t deep = (job.planes + size[0] - 1) / size[0], high = (job.dims[1] + size[1] - 1) / size[1];
    const int64_t plane = job.dims[1] * job.dims[2];
    env.parallel(step.out[0].dims[0] * deep * high, [&](int64_t index, uint32_t worker) {
        const int64_t y = index % high, z = index / high % deep, b = index / high / deep;
        Task task(job, job.p.first + z * size[0], y * size[1]);
        task.place(reinterpret_cast<float *>(env.scratch) + static_cast<int64_t>(worker) * task.floats());
        task.fill(step.in[0].as<float>() + b * job.dims[0] * plane);
        task.describe();
        if (job.p.squares)
            all_blocks<true>(task);
        else
            all_blocks<false>(task);
        task.write(step.out[0].as<float>() + b * job.planes * plane);
    });
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(non_local_means_blocks, {{"non_local_means_blocks", 1, NonLocalMeansBlocksParamsText,
                                          sizeof(NonLocalMeansBlocksParams), check, run, scratch, nullptr, nullptr}})
