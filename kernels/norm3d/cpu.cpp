// norm3d: the statistics of instance and group norms as a per-channel affine, and applying such affines. The norms of
// linear tensors are in layer.h. All sums are in double, over tiles of a fixed size, added in order.
#include "activation.h"
#include "norm3d/layer.h"

namespace voxelrt::VOXELRT_ISA {

#define STATISTICS_PARAMS(S, A) S(i32, groups) S(f32, epsilon)
#define APPLY_PARAMS(S, A) S(i32, activation) S(f32, alpha) S(f32, beta)
#define FOLD_PARAMS(S, A) S(f32, epsilon)
#define FROM_SUMS_PARAMS(S, A) STATISTICS_PARAMS(S, A) S(i64, voxels)
VOXELRT_PARAMS(StatisticsParams, STATISTICS_PARAMS)
VOXELRT_PARAMS(FromSumsParams, FROM_SUMS_PARAMS)
VOXELRT_PARAMS(ApplyParams, APPLY_PARAMS)
VOXELRT_PARAMS(FoldParams, FOLD_PARAMS)

// ---- statistics ----

// How one volume is cut: rows of x of a blocked one, elements of a linear one, so many in a tile.
struct Tiles {
    int64_t total, per, count;
    explicit Tiles(const Tensor &x) {
        if (x.layout == VOXELRT_BLOCKED16) {
            total = x.dims[4] ? x.dims[2] * x.dims[3] : 0;
            per = 1 + kTileVoxels / (x.dims[4] + 1);
        } else {
            total = count_from(x, 2);
            per = kTileElements;
        }
        count = (total + per - 1) / per;
    }
    int64_t end(int64_t tile) const { return (tile + 1) * per < total ? (tile + 1) * per : total; }
};

// Gamma and beta (C), scale and shift (N, C) of a tensor (N, C, ...).
static Message check_affine_vectors(const Step &step, const Tensor &x) {
    for (int i = 1; i < 3; ++i) {
        const Tensor &t = step.input(i);
        if (t.present() && (t.dtype != VOXELRT_F32 || t.rank != 1 || t.dims[0] != x.dims[1] ||
                            t.layout != VOXELRT_LINEAR || t.pending()))
            return "gamma and beta have one float32 a channel";
    }
    for (int i = 0; i < 2; ++i) {
        const Tensor &t = step.out[i];
        if (t.dtype != VOXELRT_F32 || t.rank != 2 || t.dims[0] != x.dims[0] || t.dims[1] != x.dims[1] ||
            !t.contiguous())
            return "scale and shift are (N, C) float32";
    }
    return nullptr;
}

// The groups of channels that share a norm; 0 means every channel for itself.
static int64_t group_count(const Step &step, int64_t channels) {
    const int32_t groups = step.as<StatisticsParams>().groups;
    return groups ? groups : channels;
}

static Message check_groups(const Step &step, int64_t channels) {
    const int32_t groups = step.as<StatisticsParams>().groups;
    if (groups < 0 || (groups > 0 && channels % groups != 0))
        return fail("%d groups do not divide %lld channels", groups, static_cast<long long>(channels));
    return nullptr;
}

static Message check_statistics(const Step &step) {
    if (step.inputs < 1 || step.inputs > 3 || step.outputs != 2)
        return "takes a volume, gamma and beta, and gives scale and shift";
    const Tensor &x = step.in[0];
    if (Message message = check_volume(x))
        return message;
    if (x.dtype == VOXELRT_F64)
        return "scale and shift are float32: too coarse for a float64 volume";
    if (x.pending() && x.layout != VOXELRT_BLOCKED16)
        return "takes a pending affine on blocked inputs only";
    if (Message message = check_affine_vectors(step, x))
        return message;
    return check_groups(step, x.dims[1]);
}

// What is known of a set of numbers: how many, their mean, and the sum of squared distances from it.
struct Moments {
    double count = 0.0, mean = 0.0, squares = 0.0;
};

static uint64_t scratch_statistics(const Step &step, uint32_t) {
    const Tensor &x = step.in[0];
    if (x.count() == 0)
        return 0;
    const int64_t channels = x.layout == VOXELRT_BLOCKED16 ? blocks_of(x.dims[1]) * kBlock : x.dims[1];
    return static_cast<uint64_t>(x.dims[0] * channels * Tiles(x).count) * sizeof(Moments);
}

// From Σ(x - shift) and Σ(x - shift)².
static Moments moments_of(double count, double shift, double sum, double squares) {
    const double m2 = squares - sum * sum / count;
    return {count, shift + sum / count, m2 < 0 ? 0.0 : m2}; // a NaN stays
}

// Numbers are summed in float as distances from a number in their midst, some dozens at a time, and those sums in
// double: as exact as double throughout, at the speed of memory.
constexpr int kRun = 16; // numbers in each of four float sums

struct LaneSums {
    Doubles sum = Doubles::fill(0.0), squares = sum;

    // The next count <= 4 kRun vectors of sixteen; value(i) loads one.
    template <class F> inline void add(int64_t count, vf16 shift, F &&value) {
        vf16 s[4], q[4];
        for (int k = 0; k < 4; ++k)
            s[k] = q[k] = broadcast(0.0f);
        int64_t i = 0;
        for (; i + 4 <= count; i += 4)
            for (int k = 0; k < 4; ++k)
                one(s[k], q[k], value(i + k), shift);
        for (; i < count; ++i)
            one(s[0], q[0], value(i), shift);
        sum = sum + Doubles::of((s[0] + s[1]) + (s[2] + s[3]));
        squares = squares + Doubles::of((q[0] + q[1]) + (q[2] + q[3]));
    }
    static inline void one(vf16 &s, vf16 &q, vf16 x, vf16 shift) {
        const vf16 d = x - shift;
        s = s + d;
        q = fma(d, d, q);
    }
};

// The moments of each channel of a block over rows [begin, end), which are not empty.
template <bool P>
static void blocked_moments(const Tensor &x, const float *from, int64_t begin, int64_t end, const Affine *affine,
                            Moments *result) {
    const auto value = [&](const float *at) { return P ? (*affine)(load(at)) : load(at); };
    const auto line = [&](int64_t row) {
        return from + row / x.dims[3] * x.strides[2] + row % x.dims[3] * x.strides[3];
    };
    const int64_t width = x.dims[4], first = width < 8 ? width : 8;
    vf16 shift = broadcast(0.0f);
    for (int64_t i = 0; i < first; ++i)
        shift = shift + value(line(begin) + i * kBlock);
    shift = shift * broadcast(1.0f / static_cast<float>(first));
    LaneSums sums;
    for (int64_t row = begin; row < end; ++row)
        for (int64_t i = 0; i < width; i += 4 * kRun)
            sums.add(width - i < 4 * kRun ? width - i : 4 * kRun, shift,
                     [&](int64_t k) { return value(line(row) + (i + k) * kBlock); });
    double s[kBlock], q[kBlock];
    float middle[kBlock];
    sums.sum.store(s);
    sums.squares.store(q);
    store(middle, shift);
    const double count = static_cast<double>((end - begin) * width);
    for (int lane = 0; lane < kBlock; ++lane)
        result[lane] = moments_of(count, static_cast<double>(middle[lane]), s[lane], q[lane]);
}

// The moments of elements [begin, end) of one channel.
static Moments linear_moments(const Elements &from, const Loop &loop, int64_t begin, int64_t end) {
    double buffer[kChunk], s[kBlock], q[kBlock], sum = 0.0, squares = 0.0, middle = 0.0;
    LaneSums sums;
    for (int64_t at = begin; at < end; at += kChunk) {
        const int64_t count = end - at < kChunk ? end - at : kChunk;
        const float *x = static_cast<const float *>(load(from, loop, 0, at, count, buffer));
        const int64_t first = count < 8 ? count : 8;
        if (at == begin) {
            for (int64_t i = 0; i < first; ++i)
                middle += static_cast<double>(x[i]);
            middle = static_cast<double>(static_cast<float>(middle / static_cast<double>(first)));
        }
        const vf16 shift = broadcast(static_cast<float>(middle));
        int64_t i = 0;
        for (; i + kBlock <= count; i += 4 * kRun * kBlock) {
            const int64_t vectors = (count - i) / kBlock;
            sums.add(vectors < 4 * kRun ? vectors : 4 * kRun, shift,
                     [&](int64_t k) { return load(x + i + k * kBlock); });
        }
        for (i = count / kBlock * kBlock; i < count; ++i) {
            const double d = static_cast<double>(x[i]) - middle;
            sum += d;
            squares += d * d;
        }
    }
    sums.sum.store(s);
    sums.squares.store(q);
    for (int lane = 0; lane < kBlock; ++lane) {
        sum += s[lane];
        squares += q[lane];
    }
    return moments_of(static_cast<double>(end - begin), middle, sum, squares);
}

// The moments of `count` sets together (Chan, Golub and LeVeque, 1979); get(i) gives one.
template <class F> static Moments together(int64_t count, F &&get) {
    Moments all;
    double sum = 0.0;
    for (int64_t i = 0; i < count; ++i) {
        const Moments one = get(i);
        all.count += one.count;
        sum += one.count * one.mean;
    }
    all.mean = all.count > 0 ? sum / all.count : 0.0;
    for (int64_t i = 0; i < count; ++i) {
        const Moments one = get(i);
        const double distance = one.mean - all.mean;
        all.squares += one.squares + one.count * distance * distance;
    }
    return all;
}

// Scale and shift of the channels [first, last), which share their moments.
static void finish_group(const Step &step, int64_t n, int64_t first, int64_t last, const Moments &all) {
    const Tensor &gamma = step.input(1), &beta = step.input(2);
    const double variance = all.count > 0 ? all.squares / all.count : 0.0;
    const double inverse = 1.0 / std::sqrt(variance + static_cast<double>(step.as<StatisticsParams>().epsilon));
    for (int64_t c = first; c < last; ++c) {
        const double g = gamma.present() ? gamma.as<const float>()[c * gamma.strides[0]] : 1.0;
        const double b = beta.present() ? beta.as<const float>()[c * beta.strides[0]] : 0.0;
        // The shift is made with the rounded scale: a large mean then does not magnify its rounding.
        const float scale = static_cast<float>(g * inverse);
        const int64_t place = n * step.out[0].dims[1] + c;
        step.out[0].as<float>()[place] = scale;
        step.out[1].as<float>()[place] = static_cast<float>(b - all.mean * static_cast<double>(scale));
    }
}

static void tile_moments(const Tensor &x, const Tiles &tiles, const Loop &loop, int64_t n, int64_t i, int64_t tile,
                         Moments *result) {
    const int64_t begin = tile * tiles.per, end = tiles.end(tile), offset = n * x.strides[0] + i * x.strides[1];
    if (x.layout != VOXELRT_BLOCKED16) {
        *result = linear_moments({x.data + offset * bytes_of(x.dtype), x.dtype}, loop, begin, end);
    } else if (x.pending()) {
        const Affine affine(x, n, i);
        blocked_moments<true>(x, x.as<const float>() + offset, begin, end, &affine, result);
    } else {
        blocked_moments<false>(x, x.as<const float>() + offset, begin, end, nullptr, result);
    }
}

static Message run_statistics(const Step &step, const Env &env) {
    const Tensor &x = step.in[0];
    const int64_t N = x.dims[0], C = x.dims[1];
    if (N * C == 0)
        return nullptr;
    const bool blocked = x.layout == VOXELRT_BLOCKED16;
    const Tiles tiles(x);
    const int64_t outer = blocked ? blocks_of(C) : C, lanes = blocked ? kBlock : 1;
    Moments *partial = reinterpret_cast<Moments *>(env.scratch); // (N, outer, tile, lane)
    const Tensor *only = &x;
    const Loop loop = blocked ? Loop() : inner_loop(&only, 1, 2);
    env.parallel(N * outer * tiles.count, [&](int64_t task, uint32_t) {
        tile_moments(x, tiles, loop, task / (tiles.count * outer), task / tiles.count % outer, task % tiles.count,
                     partial + task * lanes);
    });
    const int64_t groups = group_count(step, C);
    const int64_t size = C / groups;
    env.parallel(N * groups, [&](int64_t task, uint32_t) {
        const int64_t n = task / groups, first = task % groups * size;
        const Moments all = together(size * tiles.count, [&](int64_t i) {
            const int64_t c = first + i / tiles.count, tile = i % tiles.count;
            return partial[((n * outer + c / lanes) * tiles.count + tile) * lanes + c % lanes];
        });
        finish_group(step, n, first, first + size, all);
    });
    return nullptr;
}

// ---- from_sums: the same from the sums that a convolution made on its way ----

static Message check_from_sums(const Step &step) {
    if (step.inputs < 1 || step.inputs > 3 || step.outputs != 2)
        return "takes sums, gamma and beta, and gives scale and shift";
    const Tensor &sums = step.in[0];
    if (sums.dtype != VOXELRT_F64 || sums.rank != 3 || sums.dims[2] != 2 || !sums.contiguous() || sums.pending() ||
        sums.dims[0] >= kLongestAxis || sums.dims[1] >= kLongestAxis)
        return "the sums are (N, C, 2), float64";
    if (Message message = check_affine_vectors(step, sums))
        return message;
    if (step.as<FromSumsParams>().voxels < 0)
        return "the number of voxels is negative";
    return check_groups(step, sums.dims[1]);
}

static Message run_from_sums(const Step &step, const Env &) {
    const Tensor &sums = step.in[0];
    const int64_t C = sums.dims[1], groups = group_count(step, C);
    const double count = static_cast<double>(step.as<FromSumsParams>().voxels);
    if (sums.dims[0] * C == 0)
        return nullptr;
    const int64_t size = C / groups;
    for (int64_t n = 0; n < sums.dims[0]; ++n)
        for (int64_t first = 0; first < C; first += size) {
            const Moments all = together(size, [&](int64_t i) {
                const double *from = sums.as<const double>() + (n * C + first + i) * 2;
                return count > 0 ? moments_of(count, 0.0, from[0], from[1]) : Moments{};
            });
            finish_group(step, n, first, first + size, all);
        }
    return nullptr;
}

// ---- apply (vectors over N and C) and affine (over C) ----

static Message check_apply(const Step &step) {
    if (step.inputs != 3 || step.outputs != 1)
        return "takes a tensor, scale and shift, and gives one tensor";
    const Tensor &x = step.in[0], &y = step.out[0];
    if (Message message = check_volume(x))
        return message;
    if (!y.present() || y.dtype != x.dtype || y.layout != x.layout || !same_shape(x, y) || x.pending())
        return "input and output differ in dtype, layout or shape, or something is pending";
    for (int i = 1; i < 3; ++i) {
        const Tensor &t = step.in[i];
        if (t.dtype != (x.dtype == VOXELRT_F64 ? VOXELRT_F64 : VOXELRT_F32) || !t.contiguous() || t.pending())
            return "scale and shift are contiguous and float32, float64 for float64";
        const bool by_channel = t.rank == 1 && t.dims[0] == x.dims[1];
        if (!by_channel && !(t.rank == 2 && t.dims[0] == x.dims[0] && t.dims[1] == x.dims[1]))
            return "scale and shift have one number a channel, or one a batch item and channel";
    }
    if (!same_shape(step.in[1], step.in[2]))
        return "scale and shift differ in shape";
    const int32_t kind = step.as<ApplyParams>().activation;
    if (kind < 0 || kind >= kActivations || (x.dtype == VOXELRT_F64 && kind != kNoActivation))
        return fail("activation %d is unknown, or not one of float64", kind);
    return nullptr;
}

template <class A> static void apply_row(const A *x, A *y, int64_t count, A scale, A shift) {
    VOXELRT_INDEPENDENT
    for (int64_t i = 0; i < count; ++i)
        y[i] = x[i] * scale + shift;
}

template <class A> static void apply_linear(const Step &step, const Env &env) {
    const Tensor &x = step.in[0], &y = step.out[0];
    const Tensor *both[2] = {&x, &y};
    const Loop loop = inner_loop(both, 2, 2);
    const int64_t C = x.dims[1], voxels = count_from(x, 2), tiles = (voxels + kTileElements - 1) / kTileElements;
    const int64_t batch = step.in[1].rank == 2 ? C : 0;
    const ApplyParams p = step.as<ApplyParams>();
    env.parallel_range(x.dims[0] * C * tiles, 1 + 4096 / voxels, [&](int64_t begin, int64_t end, uint32_t) {
        A from[kChunk], to[kChunk];
        for (int64_t task = begin; task < end; ++task) {
            const int64_t tile = task % tiles, c = task / tiles % C, n = task / (tiles * C);
            const Elements source{x.data + (n * x.strides[0] + c * x.strides[1]) * bytes_of(x.dtype), x.dtype};
            const Elements result{y.data + (n * y.strides[0] + c * y.strides[1]) * bytes_of(y.dtype), y.dtype};
            const A scale = step.in[1].as<const A>()[n * batch + c], shift = step.in[2].as<const A>()[n * batch + c];
            const int64_t last = (tile + 1) * kTileElements < voxels ? (tile + 1) * kTileElements : voxels;
            for (int64_t at = tile * kTileElements; at < last; at += kChunk) {
                const int64_t count = last - at < kChunk ? last - at : kChunk;
                A *place = static_cast<A *>(target(result, loop, 1, at, to));
                apply_row(static_cast<const A *>(load(source, loop, 0, at, count, from)), place, count, scale, shift);
                if constexpr (sizeof(A) == sizeof(float))
                    activate_row(p.activation, p.alpha, p.beta, place, count);
                store(place, result, loop, 1, at, count);
            }
        }
    });
}

static void apply_blocked(const Step &step, const Env &env) {
    const Tensor &x = step.in[0], &y = step.out[0];
    const int64_t C = x.dims[1], Z = x.dims[2], Y = x.dims[3], X = x.dims[4], blocks = blocks_of(C);
    const ApplyParams p = step.as<ApplyParams>();
    const bool leaky = p.activation <= kLeakyRelu; // then the affine has it; the others follow row by row
    Tensor pending = x;
    pending.pending_scale = step.in[1].as<const float>();
    pending.pending_shift = step.in[2].as<const float>();
    pending.pending_slope = p.activation == kRelu ? 0.0f : p.activation == kLeakyRelu ? p.alpha : 1.0f;
    env.parallel_range(x.dims[0] * blocks * Z * Y, 1 + 1024 / X, [&](int64_t begin, int64_t end, uint32_t) {
        for (int64_t task = begin; task < end; ++task) {
            const int64_t j = task % Y, z = task / Y % Z, block = task / (Y * Z) % blocks, n = task / (Y * Z * blocks);
            const Affine affine(pending, step.in[1].rank == 2 ? n : 0, block);
            const float *from =
                x.as<const float>() + n * x.strides[0] + block * x.strides[1] + z * x.strides[2] + j * x.strides[3];
            float *to = y.as<float>() + n * y.strides[0] + block * y.strides[1] + z * y.strides[2] + j * y.strides[3];
            for (int64_t i = 0; i < X; ++i)
                store(to + i * kBlock, affine(load(from + i * kBlock)));
            if (leaky)
                continue;
            activate_row(p.activation, p.alpha, p.beta, to, X * kBlock);
            if (C - block * kBlock < kBlock) // channels past the last hold zeros again
                for (int64_t i = 0; i < X; ++i)
                    for (int64_t lane = C - block * kBlock; lane < kBlock; ++lane)
                        to[i * kBlock + lane] = 0.0f;
        }
    });
}

static Message run_apply(const Step &step, const Env &env) {
    if (step.in[0].count() == 0)
        return nullptr;
    if (step.in[0].layout == VOXELRT_BLOCKED16)
        apply_blocked(step, env);
    else if (step.in[0].dtype == VOXELRT_F64)
        apply_linear<double>(step, env);
    else
        apply_linear<float>(step, env);
    return nullptr;
}

// ---- fold: a batch norm's four vectors into scale and shift ----

static Message check_fold(const Step &step) {
    if (step.inputs != 4 || step.outputs != 2)
        return "takes gamma, beta, mean and variance, and gives scale and shift";
    const Tensor &out = step.out[0];
    if (out.rank != 1 || (out.dtype != VOXELRT_F32 && out.dtype != VOXELRT_F64))
        return "scale is a float32 or float64 vector";
    for (int i = 0; i < 6; ++i) {
        const Tensor &t = i < 4 ? step.in[i] : step.out[i - 4];
        if (t.dtype != out.dtype || !same_shape(t, out) || !t.contiguous() || t.pending())
            return "the vectors differ in dtype or length, or have gaps";
    }
    return nullptr;
}

template <class A> static void fold(const Step &step) {
    const A *gamma = step.in[0].as<const A>(), *beta = step.in[1].as<const A>();
    const A *mean = step.in[2].as<const A>(), *variance = step.in[3].as<const A>();
    const double epsilon = static_cast<double>(step.as<FoldParams>().epsilon);
    for (int64_t c = 0; c < step.out[0].dims[0]; ++c) {
        const double inverse = 1.0 / std::sqrt(static_cast<double>(variance[c]) + epsilon);
        const A scale = static_cast<A>(static_cast<double>(gamma[c]) * inverse);
        const A shift = static_cast<A>(static_cast<double>(beta[c]) - static_cast<double>(mean[c]) * scale);
        step.out[0].as<A>()[c] = scale;
        step.out[1].as<A>()[c] = shift;
    }
}

static Message run_fold(const Step &step, const Env &) {
    step.out[0].dtype == VOXELRT_F64 ? fold<double>(step) : fold<float>(step);
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(
    norm3d,
    {{"norm3d.statistics", 1, StatisticsParamsText, sizeof(StatisticsParams), check_statistics, run_statistics,
      scratch_statistics, nullptr, nullptr},
     {"norm3d.from_sums", 1, FromSumsParamsText, sizeof(FromSumsParams), check_from_sums, run_from_sums, nullptr,
      nullptr, nullptr},
     {"norm3d.apply", 1, ApplyParamsText, sizeof(ApplyParams), check_apply, run_apply, nullptr, nullptr, nullptr},
     {"norm3d.fold", 1, FoldParamsText, sizeof(FoldParams), check_fold, run_fold, nullptr, nullptr, nullptr},
     {"norm3d.layer", 1, LayerParamsText, sizeof(LayerParams), check_layer, run_layer, scratch_layer, nullptr, nullptr},
     {"norm3d.lrn", 1, LrnParamsText, sizeof(LrnParams), check_lrn, run_lrn, nullptr, nullptr, nullptr}})
