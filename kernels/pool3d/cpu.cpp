// pool3d: maximum, average and p-norm over windows, and over whole volumes ("global"). (N, C, Z, Y, X) always; 2-D and
// 1-D tensors come with leading axes of size one. ceil_mode is in the output's dims.
#include "block.h"
#include "pool3d/window.h"

#include <cmath>

namespace voxelrt::VOXELRT_ISA {

constexpr int64_t kTileVoxels = 4096; // of a blocked volume; fixes the summation tree of global pools
constexpr int64_t kTileElements = 16384;

// ---- blocked: sixteen channels in registers, one output row a task ----

// One axis of x taps, unrolled where their number K is known (0: it is not).
template <int K, Mode M, bool P>
static inline void take_taps(vf16 &sum, const float *from, int64_t taps, int64_t step, const Affine *affine) {
    for (int64_t k = 0; k < (K ? K : taps); ++k) {
        vf16 x = load(from + k * step);
        if (P)
            x = (*affine)(x);
        sum = M == kMax ? max(x, sum) : sum + x;
    }
}

struct Row {
    const float *from; // of this batch item and block
    float *to;
    int64_t first_z, last_z, first_y, last_y, z, y; // taps inside, and the first tap's place
    int64_t divisor;                                // taps of z and y to divide by; 0: those inside
};

template <int K, Mode M, bool P>
static inline vf16 window_at(const Tensor &in, const Window &w, const Row &row, int64_t x, int64_t first, int64_t last,
                             const Affine *affine) {
    vf16 sum = broadcast(M == kMax ? -INFINITY : 0.0f);
    for (int64_t kz = row.first_z; kz < row.last_z; ++kz)
        for (int64_t ky = row.first_y; ky < row.last_y; ++ky) {
            const float *from = row.from + (row.z + kz * w.axis[0].dilation) * in.strides[2] +
                                (row.y + ky * w.axis[1].dilation) * in.strides[3] +
                                (x + first * w.axis[2].dilation) * kBlock;
            take_taps<K, M, P>(sum, from, last - first, w.axis[2].dilation * kBlock, affine);
        }
    return sum;
}

// The windows of one output row that may reach over the edge, outputs [begin, end).
template <Mode M, bool P>
static void clipped(const Tensor &in, const Window &w, const Row &row, int64_t begin, int64_t end, int64_t channels,
                    const Affine *affine) {
    for (int64_t o = begin; o < end; ++o) {
        int64_t first, last;
        w.axis[2].inside(o, first, last);
        vf16 sum = window_at<0, M, P>(in, w, row, w.axis[2].start(o), first, last, affine);
        const int64_t inside = (row.last_z - row.first_z) * (row.last_y - row.first_y) * (last - first);
        if (M == kAverage) {
            const int64_t divisor = row.divisor ? row.divisor * w.axis[2].padded(o) : inside;
            sum = sum * broadcast(1.0f / static_cast<float>(divisor > 0 ? divisor : 1));
        }
        store(row.to + o * kBlock, sum);
        if (inside == 0) // nothing but padding: channels past the last still hold zeros
            for (int64_t lane = channels; lane < kBlock; ++lane)
                row.to[o * kBlock + lane] = 0.0f;
    }
}

template <int K, Mode M, bool P>
static void run_row(const Tensor &in, const Window &w, const Row &row, int64_t channels, const Affine *affine) {
    int64_t begin, end;
    w.axis[2].interior(begin, end);
    clipped<M, P>(in, w, row, 0, begin, channels, affine);
    const int64_t taps = w.axis[2].kernel;
    const int64_t inside = (row.last_z - row.first_z) * (row.last_y - row.first_y) * taps;
    if (inside == 0)
        return clipped<M, P>(in, w, row, begin, w.axis[2].out, channels, affine);
    const vf16 factor = broadcast(1.0f / static_cast<float>(row.divisor ? row.divisor * taps : inside));
    for (int64_t o = begin; o < end; ++o) {
        vf16 sum = window_at<K, M, P>(in, w, row, w.axis[2].start(o), 0, taps, affine);
        if (M == kAverage)
            sum = sum * factor;
        store(row.to + o * kBlock, sum);
    }
    clipped<M, P>(in, w, row, end, w.axis[2].out, channels, affine);
}

template <Mode M> static void run_blocked(const Step &step, const Env &env, bool include_pad) {
    const Tensor &in = step.in[0], &out = step.out[0];
    const Window w(step);
    const int64_t C = out.dims[1], Z = out.dims[2], Y = out.dims[3], X = out.dims[4];
    const int64_t blocks = (C + kBlock - 1) / kBlock;
    env.parallel_range(out.dims[0] * blocks * Z * Y, w.grain(X, 4096), [&](int64_t begin, int64_t end, uint32_t) {
        for (int64_t task = begin; task < end; ++task) {
            const int64_t y = task % Y, z = task / Y % Z, block = task / (Y * Z) % blocks, n = task / (Y * Z * blocks);
            Row row{};
            row.from = in.as<const float>() + n * in.strides[0] + block * in.strides[1];
            row.to =
                out.as<float>() + n * out.strides[0] + block * out.strides[1] + z * out.strides[2] + y * out.strides[3];
            w.axis[0].inside(z, row.first_z, row.last_z);
            w.axis[1].inside(y, row.first_y, row.last_y);
            row.z = w.axis[0].start(z);
            row.y = w.axis[1].start(y);
            row.divisor = include_pad ? w.axis[0].padded(z) * w.axis[1].padded(y) : 0;
            const int64_t channels = C - block * kBlock;
            if (in.pending()) {
                const Affine affine(in, n, block);
                w.axis[2].kernel == 2 ? run_row<2, M, true>(in, w, row, channels, &affine)
                                      : run_row<0, M, true>(in, w, row, channels, &affine);
            } else {
                w.axis[2].kernel == 2   ? run_row<2, M, false>(in, w, row, channels, nullptr)
                : w.axis[2].kernel == 3 ? run_row<3, M, false>(in, w, row, channels, nullptr)
                                        : run_row<0, M, false>(in, w, row, channels, nullptr);
            }
        }
    });
}

// ---- linear: taps of z and y fold whole rows into one row of sums, taps of x fold that ----

template <Mode M, class A> static inline A initial() {
    return M == kMax ? -static_cast<A>(INFINITY) : A(0);
}

template <Mode M, class A> static inline A fold(A sum, A x, int p) {
    if (M == kMax)
        return x > sum ? x : sum;
    if (M == kAverage)
        return sum + x;
    const A size = std::fabs(x);
    return sum + (p == 1 ? size : p == 2 ? x * x : std::pow(size, static_cast<A>(p)));
}

template <Mode M, class T, class A> static void fold_row(A *sums, const T *from, int64_t stride, int64_t count, int p) {
    if (stride == 1)
        for (int64_t x = 0; x < count; ++x)
            sums[x] = fold<M>(sums[x], get<A>(from[x]), p);
    else
        for (int64_t x = 0; x < count; ++x)
            sums[x] = fold<M>(sums[x], get<A>(from[x * stride]), p);
}

template <class A> static inline A finish(Mode mode, A sum, int64_t divisor, int p) {
    if (mode == kAverage)
        return sum / static_cast<A>(divisor > 0 ? divisor : 1);
    if (mode == kLp)
        return p == 1 ? sum : p == 2 ? std::sqrt(sum) : std::pow(sum, A(1) / static_cast<A>(p));
    return sum;
}

// Outputs [begin, end) of a row from its sums. K = 2: two taps side by side, two apart, in a form that vectorises.
template <int K, Mode M, class T, class A>
static void fold_taps(T *to, const A *sums, const Axis &axis, int64_t begin, int64_t end, int64_t first, int64_t last,
                      int64_t divisor, int p) {
    const int64_t stride = K ? K : axis.stride, dilation = K ? 1 : axis.dilation;
    for (int64_t x = begin; x < end; ++x) {
        A sum = initial<M, A>();
        for (int64_t k = K ? 0 : first; k < (K ? K : last); ++k) {
            const A tap = sums[x * stride - axis.begin + k * dilation];
            sum = M == kMax ? (tap > sum ? tap : sum) : sum + tap;
        }
        to[x] = put<T>(finish(M, sum, divisor, p));
    }
}

template <Mode M, class T> static void run_linear(const Step &step, const Env &env, bool include_pad, int p) {
    using A = typename Computed<T>::type;
    const Tensor &in = step.in[0], &out = step.out[0];
    const Window w(step);
    const int64_t C = out.dims[1], Z = out.dims[2], Y = out.dims[3], X = out.dims[4], width = in.dims[4];
    env.parallel_range(out.dims[0] * C * Z * Y, w.grain(X, 65536), [&](int64_t begin, int64_t end, uint32_t worker) {
        A *sums = reinterpret_cast<A *>(env.scratch) + int64_t(worker) * ((width + 7) / 8 * 8);
        for (int64_t task = begin; task < end; ++task) {
            const int64_t y = task % Y, z = task / Y % Z, c = task / (Y * Z) % C, n = task / (Y * Z * C);
            const T *from = in.as<const T>() + n * in.strides[0] + c * in.strides[1];
            int64_t first_z, last_z, first_y, last_y;
            w.axis[0].inside(z, first_z, last_z);
            w.axis[1].inside(y, first_y, last_y);
            for (int64_t x = 0; x < width; ++x)
                sums[x] = initial<M, A>();
            for (int64_t kz = first_z; kz < last_z; ++kz)
                for (int64_t ky = first_y; ky < last_y; ++ky)
                    fold_row<M>(sums,
                                from + (w.axis[0].start(z) + kz * w.axis[0].dilation) * in.strides[2] +
                                    (w.axis[1].start(y) + ky * w.axis[1].dilation) * in.strides[3],
                                in.strides[4], width, p);
            const int64_t rows = (last_z - first_z) * (last_y - first_y);
            const int64_t padded = include_pad ? w.axis[0].padded(z) * w.axis[1].padded(y) : 0;
            T *to = out.as<T>() + task * X;
            const int64_t taps = w.axis[2].kernel;
            const auto edge = [&](int64_t begin_x, int64_t end_x) {
                for (int64_t x = begin_x; x < end_x; ++x) {
                    int64_t first, last;
                    w.axis[2].inside(x, first, last);
                    const int64_t divisor = include_pad ? padded * w.axis[2].padded(x) : rows * (last - first);
                    fold_taps<0, M>(to, sums, w.axis[2], x, x + 1, first, last, divisor, p);
                }
            };
            int64_t inner, behind;
            w.axis[2].interior(inner, behind);
            edge(0, inner);
            const int64_t divisor = (include_pad ? padded : rows) * taps;
            if (taps == 2 && w.axis[2].stride == 2 && w.axis[2].dilation == 1)
                fold_taps<2, M>(to, sums, w.axis[2], inner, behind, 0, taps, divisor, p);
            else
                fold_taps<0, M>(to, sums, w.axis[2], inner, behind, 0, taps, divisor, p);
            edge(behind, X);
        }
    });
}

// The maximum and where it is: the offset in the whole input tensor, as ONNX counts it. The first of equals wins.
template <class T> static void run_indices(const Step &step, const Env &env, bool column_major) {
    using A = typename Computed<T>::type;
    const Tensor &in = step.in[0], &out = step.out[0];
    const Window w(step);
    const int64_t C = out.dims[1], Z = out.dims[2], Y = out.dims[3], X = out.dims[4];
    const int64_t volume = in.dims[2] * in.dims[3] * in.dims[4];
    const int64_t unit[3] = {column_major ? 1 : in.dims[3] * in.dims[4], column_major ? in.dims[2] : in.dims[4],
                             column_major ? in.dims[2] * in.dims[3] : 1};
    env.parallel(out.dims[0] * C * Z * Y, [&](int64_t task, uint32_t) {
        const int64_t y = task % Y, z = task / Y % Z, c = task / (Y * Z) % C, n = task / (Y * Z * C);
        const T *from = in.as<const T>() + n * in.strides[0] + c * in.strides[1];
        int64_t first[3], last[3];
        w.axis[0].inside(z, first[0], last[0]);
        w.axis[1].inside(y, first[1], last[1]);
        for (int64_t x = 0; x < X; ++x) {
            w.axis[2].inside(x, first[2], last[2]);
            A best = initial<kMax, A>();
            int64_t place = -1;
            for (int64_t kz = first[0]; kz < last[0]; ++kz)
                for (int64_t ky = first[1]; ky < last[1]; ++ky)
                    for (int64_t kx = first[2]; kx < last[2]; ++kx) {
                        const int64_t at[3] = {w.axis[0].start(z) + kz * w.axis[0].dilation,
                                               w.axis[1].start(y) + ky * w.axis[1].dilation,
                                               w.axis[2].start(x) + kx * w.axis[2].dilation};
                        const A value =
                            get<A>(from[at[0] * in.strides[2] + at[1] * in.strides[3] + at[2] * in.strides[4]]);
                        if (value > best || place < 0) {
                            best = value > best ? value : best;
                            place = (n * C + c) * volume + at[0] * unit[0] + at[1] * unit[1] + at[2] * unit[2];
                        }
                    }
            out.as<T>()[task * X + x] = put<T>(best);
            step.out[1].as<int64_t>()[task * X + x] = place;
        }
    });
}

static uint64_t scratch_window(const Step &step, uint32_t threads) {
    const uint64_t width = (static_cast<uint64_t>(step.in[0].dims[4]) + 7) / 8 * 8;
    return step.in[0].layout == VOXELRT_LINEAR ? width * 8 * threads : 0;
}

static Message run_max(const Step &step, const Env &env) {
    const Tensor &in = step.in[0];
    if (step.out[0].count() == 0)
        return nullptr;
    if (in.layout == VOXELRT_BLOCKED16) {
        run_blocked<kMax>(step, env, false);
        return nullptr;
    }
    const bool indices = step.outputs == 2 && step.out[1].present(), columns = step.as<MaxParams>().column_major != 0;
    const auto with = [&](auto type) {
        using T = decltype(type);
        indices ? run_indices<T>(step, env, columns) : run_linear<kMax, T>(step, env, false, 0);
    };
    if (!with_float(in.dtype, with))
        in.dtype == VOXELRT_I8 ? with(int8_t()) : with(uint8_t());
    return nullptr;
}

static Message run_average(const Step &step, const Env &env) {
    const bool include_pad = step.as<AverageParams>().count_include_pad != 0;
    if (step.out[0].count() == 0)
        return nullptr;
    if (step.in[0].layout == VOXELRT_BLOCKED16)
        run_blocked<kAverage>(step, env, include_pad);
    else
        with_float(step.in[0].dtype,
                   [&](auto type) { run_linear<kAverage, decltype(type)>(step, env, include_pad, 0); });
    return nullptr;
}

static Message run_lp(const Step &step, const Env &env) {
    const int p = step.as<LpParams>().p;
    if (step.out[0].count() != 0)
        with_float(step.in[0].dtype, [&](auto type) { run_linear<kLp, decltype(type)>(step, env, false, p); });
    return nullptr;
}

// ---- global: tiles of a fixed size, their results in double, added in order ----

static Message check_global(const Step &step) {
    if (step.inputs != 1 || step.outputs != 1)
        return "takes one input and gives one output";
    const Tensor &in = step.in[0], &out = step.out[0];
    if (Message message = check_volume(in, out))
        return message;
    if (out.dims[2] != 1 || out.dims[3] != 1 || out.dims[4] != 1)
        return "gives one voxel";
    if (!is_float(in.dtype) || (out.layout == VOXELRT_BLOCKED16 && out.dtype != VOXELRT_F32))
        return "takes floats; blocked outputs are float32";
    if (in.pending() && in.layout != VOXELRT_BLOCKED16)
        return "takes a pending affine on blocked inputs only";
    const GlobalParams p = step.as<GlobalParams>();
    return p.mode < kMax || p.mode > kLp || p.p < 1 ? "mode is 0, 1 or 2 and p at least one" : nullptr;
}

// How a volume is cut: rows of x, so many in a tile.
struct Tiles {
    int64_t rows, per, count, width;
    explicit Tiles(const Tensor &in) {
        width = in.dims[4];
        rows = width ? in.dims[2] * in.dims[3] : 0;
        per = 1 + (in.layout == VOXELRT_BLOCKED16 ? kTileVoxels : kTileElements) / (width + 1);
        count = (rows + per - 1) / per;
    }
};

static uint64_t scratch_global(const Step &step, uint32_t) {
    const Tensor &in = step.in[0];
    const uint64_t channels = static_cast<uint64_t>((in.dims[1] + kBlock - 1) / kBlock * kBlock);
    return static_cast<uint64_t>(in.dims[0]) * channels * static_cast<uint64_t>(Tiles(in).count) * sizeof(double);
}

template <Mode M> static inline double merge(double a, double b) {
    return M == kMax ? (b > a ? b : a) : a + b;
}

// Sixteen numbers folded into sixteen results.
template <Mode M> static inline void fold_into(Doubles &sums, Doubles x, int p) {
    if (M == kMax) {
        sums = larger(x, sums);
    } else if (M == kAverage) {
        sums = sums + x;
    } else if (p == 2) {
        sums = sums + x * x;
    } else {
        x = larger(x, Doubles::fill(0.0) - x);
        if (p != 1) {
            double all[kBlock];
            x.store(all);
            for (double &value : all)
                value = std::pow(value, p);
            x = Doubles::load(all);
        }
        sums = sums + x;
    }
}

template <Mode M, bool P>
static void blocked_tile(const Tensor &in, const float *from, int64_t begin, int64_t end, int p, const Affine *affine,
                         double *result) {
    Doubles sums = Doubles::fill(initial<M, double>());
    for (int64_t row = begin; row < end; ++row) {
        const float *line = from + row / in.dims[3] * in.strides[2] + row % in.dims[3] * in.strides[3];
        for (int64_t x = 0; x < in.dims[4]; ++x)
            fold_into<M>(sums, P ? Doubles::of((*affine)(load(line + x * kBlock))) : Doubles::load(line + x * kBlock),
                         p);
    }
    sums.store(result);
}

template <class T> static inline Doubles sixteen(const T *from, int64_t stride) {
    double all[kBlock];
    for (int i = 0; i < kBlock; ++i)
        all[i] = get<double>(from[i * stride]);
    return Doubles::load(all);
}

template <Mode M, class T>
static double linear_tile(const Tensor &in, const T *from, int64_t begin, int64_t end, int p) {
    const int64_t width = in.dims[4], stride = in.strides[4];
    Doubles sums = Doubles::fill(initial<M, double>());
    double rest = initial<M, double>(), all[kBlock];
    for (int64_t row = begin; row < end; ++row) {
        const T *line = from + row / in.dims[3] * in.strides[2] + row % in.dims[3] * in.strides[3];
        int64_t x = 0;
        for (; x + kBlock <= width; x += kBlock) {
            if constexpr (sizeof(T) >= 4)
                fold_into<M>(sums, stride == 1 ? Doubles::load(line + x) : sixteen(line + x * stride, stride), p);
            else
                fold_into<M>(sums, sixteen(line + x * stride, stride), p);
        }
        for (; x < width; ++x)
            rest = fold<M>(rest, get<double>(line[x * stride]), p);
    }
    sums.store(all);
    for (double value : all)
        rest = merge<M>(rest, value);
    return rest;
}

template <Mode M, class T> static void run_global_as(const Step &step, const Env &env) {
    const Tensor &in = step.in[0], &out = step.out[0];
    const int p = step.as<GlobalParams>().p;
    const Tiles tiles(in);
    const bool blocked = in.layout == VOXELRT_BLOCKED16;
    const int64_t C = in.dims[1], groups = blocked ? (C + kBlock - 1) / kBlock : C, lanes = blocked ? kBlock : 1;
    double *partial = reinterpret_cast<double *>(env.scratch); // (N, group, tile, lane)
    env.parallel(in.dims[0] * groups * tiles.count, [&](int64_t task, uint32_t) {
        const int64_t tile = task % tiles.count, group = task / tiles.count % groups, n = task / (tiles.count * groups);
        const int64_t begin = tile * tiles.per, end = begin + tiles.per < tiles.rows ? begin + tiles.per : tiles.rows;
        const T *from = in.as<const T>() + n * in.strides[0] + group * in.strides[1];
        if (!blocked) {
            partial[task] = linear_tile<M>(in, from, begin, end, p);
        } else if (in.pending()) {
            const Affine affine(in, n, group);
            blocked_tile<M, true>(in, in.as<const float>() + n * in.strides[0] + group * in.strides[1], begin, end, p,
                                  &affine, partial + task * kBlock);
        } else {
            blocked_tile<M, false>(in, in.as<const float>() + n * in.strides[0] + group * in.strides[1], begin, end, p,
                                   nullptr, partial + task * kBlock);
        }
    });
    const bool to_blocked = out.layout == VOXELRT_BLOCKED16;
    const int64_t padded = to_blocked ? (C + kBlock - 1) / kBlock * kBlock : C;
    for (int64_t n = 0; n < in.dims[0]; ++n)
        for (int64_t c = 0; c < padded; ++c) {
            double sum = initial<M, double>();
            for (int64_t tile = 0; tile < tiles.count && c < C; ++tile)
                sum = merge<M>(sum, partial[((n * groups + c / lanes) * tiles.count + tile) * lanes + c % lanes]);
            const T result = c < C ? put<T>(finish(M, sum, tiles.rows * tiles.width, p)) : put<T>(0.0);
            const int64_t channel = to_blocked ? c / kBlock * out.strides[1] + c % kBlock : c * out.strides[1];
            out.as<T>()[n * out.strides[0] + channel] = result;
        }
}

static Message run_global(const Step &step, const Env &env) {
    const int mode = step.as<GlobalParams>().mode;
    if (step.out[0].count() == 0)
        return nullptr;
    with_float(step.in[0].dtype, [&](auto type) {
        using T = decltype(type);
        mode == kMax       ? run_global_as<kMax, T>(step, env)
        : mode == kAverage ? run_global_as<kAverage, T>(step, env)
                           : run_global_as<kLp, T>(step, env);
    });
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(pool3d,
                {{"pool3d.max", 1, MaxParamsText, sizeof(MaxParams), check_max, run_max, scratch_window, nullptr,
                  nullptr},
                 {"pool3d.average", 1, AverageParamsText, sizeof(AverageParams), check_average, run_average,
                  scratch_window, nullptr, nullptr},
                 {"pool3d.lp", 1, LpParamsText, sizeof(LpParams), check_lp, run_lp, scratch_window, nullptr, nullptr},
                 {"pool3d.global", 1, GlobalParamsText, sizeof(GlobalParams), check_global, run_global, scratch_global,
                  nullptr, nullptr}})
