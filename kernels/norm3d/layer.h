// norm3d.layer and norm3d.lrn: norms of linear tensors that are applied where they are computed.
#pragma once

#include "norm3d/sums.h"

namespace voxelrt::VOXELRT_ISA {

#define LAYER_PARAMS(S, A) S(i32, mode) S(i32, axis) S(i32, p) S(f32, epsilon)
VOXELRT_PARAMS(LayerParams, LAYER_PARAMS)

// ---- layer: norms over the axes from `axis` on, one row of numbers a norm ----

enum Mode { kLayer, kRms, kMeanVariance, kLp, kModes };

static Message check_layer(const Step &step) {
    if (step.inputs < 1 || step.inputs > 3 || step.outputs < 1 || step.outputs > 3)
        return "takes x, gamma and beta, and gives y, mean and inverse deviation";
    const Tensor &x = step.in[0], &y = step.out[0];
    const LayerParams p = step.as<LayerParams>();
    if (!is_float(x.dtype) || x.rank < 1)
        return "takes a float tensor of one axis or more";
    if (p.mode < 0 || p.mode >= kModes || p.axis < 0 || p.axis >= x.rank)
        return fail("mode %d or axis %d is not one", p.mode, p.axis);
    if (p.mode == kLp && p.p != 1 && p.p != 2)
        return "p is 1 or 2";
    for (int i = 0; i < 4; ++i) {
        const Tensor &t = i < 3 ? step.input(i) : y;
        if (!t.present() && (i == 1 || i == 2))
            continue;
        if (t.dtype != x.dtype || !same_shape(t, x) || t.layout != VOXELRT_LINEAR || t.pending())
            return "x, gamma, beta (spread by strides of zero) and y are linear, of one dtype and shape";
    }
    for (int i = 1; i < step.outputs; ++i) {
        const Tensor &t = step.out[i];
        if (!t.present())
            continue;
        if (t.dtype != (x.dtype == VOXELRT_F64 ? VOXELRT_F64 : VOXELRT_F32) || t.rank != x.rank || !t.contiguous())
            return "mean and inverse deviation are contiguous and float32, float64 for float64";
        for (int k = 0; k < x.rank; ++k)
            if (t.dims[k] != (k < p.axis ? x.dims[k] : 1))
                return "mean and inverse deviation have one number a norm";
    }
    return nullptr;
}

// y = (x - mean) · inverse · gamma + beta over one row.
struct RowNorm {
    double shift = 0.0; // subtracted before summing: the row's first number
    double mean = 0.0, inverse = 1.0;
};

struct LayerWork {
    const Step &step;
    LayerParams p;
    Loop loop; // of x, gamma, beta and y, over the axes of a norm
    int64_t rows = 1, width = 1, tiles = 1;

    explicit LayerWork(const Step &given) : step(given), p(given.as<LayerParams>()) {
        const Tensor *tensors[4] = {&step.in[0], &step.input(1), &step.input(2), &step.out[0]};
        loop = inner_loop(tensors, 4, p.axis);
        for (int i = 0; i < p.axis; ++i)
            rows *= step.in[0].dims[i];
        width = count_from(step.in[0], p.axis);
        tiles = (width + kTileElements - 1) / kTileElements;
    }
    Elements row_of(const Tensor &t, int64_t row) const {
        int64_t offset = 0;
        for (int i = p.axis - 1; i >= 0; --i) {
            offset += row % step.in[0].dims[i] * t.strides[i];
            row /= step.in[0].dims[i];
        }
        return {t.data + offset * bytes_of(t.dtype), t.dtype};
    }
    int64_t end(int64_t tile) const { return (tile + 1) * kTileElements < width ? (tile + 1) * kTileElements : width; }
};

template <class A> static Sums tile_sums(const LayerWork &work, int64_t row, int64_t tile, double shift) {
    double buffer[kChunk];
    const Elements from = work.row_of(work.step.in[0], row);
    Sums all;
    for (int64_t at = tile * kTileElements, end = work.end(tile); at < end; at += kChunk) {
        const int64_t count = end - at < kChunk ? end - at : kChunk;
        const A *x = static_cast<const A *>(load(from, work.loop, 0, at, count, buffer));
        Sums sums;
        if (work.p.mode == kLp && work.p.p == 1)
            for (int64_t i = 0; i < count; ++i)
                sums.squares += std::fabs(static_cast<double>(x[i]));
        else
            sums = sums_of(x, count, shift);
        all.sum += sums.sum;
        all.squares += sums.squares;
    }
    return all;
}

// The first number of a row, so that a large mean costs no digits; norms about zero take zero.
template <class A> static double shift_of(const LayerWork &work, int64_t row) {
    if (work.p.mode == kRms || work.p.mode == kLp)
        return 0.0;
    double buffer[kChunk];
    return static_cast<double>(
        *static_cast<const A *>(load(work.row_of(work.step.in[0], row), work.loop, 0, 0, 1, buffer)));
}

static RowNorm norm_of(const LayerWork &work, const Sums &sums, double shift) {
    const double count = static_cast<double>(work.width), epsilon = static_cast<double>(work.p.epsilon);
    RowNorm norm;
    if (work.p.mode == kLp) {
        const double size = work.p.p == 1 ? sums.squares : std::sqrt(sums.squares);
        norm.inverse = size == 0 ? 0.0 : 1.0 / size; // a row of zeros stays one
        return norm;
    }
    if (work.p.mode == kRms) {
        norm.inverse = 1.0 / std::sqrt(sums.squares / count + epsilon);
        return norm;
    }
    const double mean = sums.sum / count;
    double variance = sums.squares / count - mean * mean;
    variance = variance < 0 ? 0.0 : variance; // a NaN stays
    norm.mean = mean + shift;
    norm.inverse = work.p.mode == kLayer ? 1.0 / std::sqrt(variance + epsilon) : 1.0 / (std::sqrt(variance) + epsilon);
    return norm;
}

template <class A> static void write_tile(const LayerWork &work, int64_t row, int64_t tile, const RowNorm &norm) {
    A x_buffer[kChunk], gamma_buffer[kChunk], beta_buffer[kChunk], y_buffer[kChunk];
    const Tensor &gamma = work.step.input(1), &beta = work.step.input(2);
    const Elements x = work.row_of(work.step.in[0], row), y = work.row_of(work.step.out[0], row);
    const A mean = static_cast<A>(norm.mean), inverse = static_cast<A>(norm.inverse);
    for (int64_t at = tile * kTileElements, end = work.end(tile); at < end; at += kChunk) {
        const int64_t count = end - at < kChunk ? end - at : kChunk;
        const A *from = static_cast<const A *>(load(x, work.loop, 0, at, count, x_buffer));
        A *to = static_cast<A *>(target(y, work.loop, 3, at, y_buffer));
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < count; ++i)
            to[i] = (from[i] - mean) * inverse;
        if (gamma.present()) {
            const A *g = static_cast<const A *>(load(work.row_of(gamma, row), work.loop, 1, at, count, gamma_buffer));
            VOXELRT_INDEPENDENT
            for (int64_t i = 0; i < count; ++i)
                to[i] *= g[i];
        }
        if (beta.present()) {
            const A *b = static_cast<const A *>(load(work.row_of(beta, row), work.loop, 2, at, count, beta_buffer));
            VOXELRT_INDEPENDENT
            for (int64_t i = 0; i < count; ++i)
                to[i] += b[i];
        }
        store(to, y, work.loop, 3, at, count);
    }
}

template <class A> static void write_moments(const Step &step, int64_t row, const RowNorm &norm) {
    const double values[2] = {norm.mean, norm.inverse};
    for (int i = 1; i < step.outputs; ++i)
        if (step.out[i].present())
            step.out[i].as<A>()[row] = static_cast<A>(values[i - 1]);
}

// Short rows: a task takes whole rows, each read twice from the cache. Long ones: a task takes a tile.
template <class A> static void run_layer_as(const Step &step, const Env &env) {
    const LayerWork work(step);
    if (work.tiles == 1) {
        env.parallel_range(work.rows, 1 + 8192 / work.width, [&](int64_t begin, int64_t end, uint32_t) {
            for (int64_t row = begin; row < end; ++row) {
                const double shift = shift_of<A>(work, row);
                const RowNorm norm = norm_of(work, tile_sums<A>(work, row, 0, shift), shift);
                write_moments<A>(step, row, norm);
                write_tile<A>(work, row, 0, norm);
            }
        });
        return;
    }
    Sums *partial = reinterpret_cast<Sums *>(env.scratch);
    RowNorm *norms = reinterpret_cast<RowNorm *>(partial + work.rows * work.tiles);
    for (int64_t row = 0; row < work.rows; ++row)
        norms[row].shift = shift_of<A>(work, row);
    env.parallel(work.rows * work.tiles, [&](int64_t task, uint32_t) {
        const int64_t row = task / work.tiles;
        partial[task] = tile_sums<A>(work, row, task % work.tiles, norms[row].shift);
    });
    for (int64_t row = 0; row < work.rows; ++row) {
        Sums sums;
        for (int64_t tile = 0; tile < work.tiles; ++tile) {
            sums.sum += partial[row * work.tiles + tile].sum;
            sums.squares += partial[row * work.tiles + tile].squares;
        }
        norms[row] = norm_of(work, sums, norms[row].shift);
        write_moments<A>(step, row, norms[row]);
    }
    env.parallel(work.rows * work.tiles, [&](int64_t task, uint32_t) {
        write_tile<A>(work, task / work.tiles, task % work.tiles, norms[task / work.tiles]);
    });
}

static uint64_t scratch_layer(const Step &step, uint32_t) {
    if (step.in[0].count() == 0)
        return 0;
    const LayerWork work(step);
    return work.tiles == 1 ? 0
                           : static_cast<uint64_t>(work.rows) *
                                 (sizeof(RowNorm) + static_cast<uint64_t>(work.tiles) * sizeof(Sums));
}

static Message run_layer(const Step &step, const Env &env) {
    if (step.in[0].count() == 0)
        return nullptr;
    step.in[0].dtype == VOXELRT_F64 ? run_layer_as<double>(step, env) : run_layer_as<float>(step, env);
    return nullptr;
}

#define LRN_PARAMS(S, A) S(i32, size) S(f32, alpha) S(f32, beta) S(f32, bias)
VOXELRT_PARAMS(LrnParams, LRN_PARAMS)

// ---- lrn: y = x / (bias + alpha / size · Σ x²)^beta over neighbouring channels ----

static Message check_lrn(const Step &step) {
    if (step.inputs != 1 || step.outputs != 1)
        return "takes one input and gives one output";
    const Tensor &x = step.in[0], &y = step.out[0];
    if (Message message = check_volume(x))
        return message;
    if (y.dtype != x.dtype || !same_shape(x, y) || !x.contiguous() || !y.contiguous() || x.pending() ||
        x.layout != VOXELRT_LINEAR || y.layout != VOXELRT_LINEAR)
        return "input and output are linear without gaps, of one dtype and shape";
    return step.as<LrnParams>().size < 1 ? "size is at least one" : nullptr;
}

template <class T> static void lrn_chunk(const Step &step, int64_t n, int64_t c, int64_t at, int64_t count) {
    using A = typename Computed<T>::type;
    const LrnParams p = step.as<LrnParams>();
    const int64_t C = step.in[0].dims[1], voxels = count_from(step.in[0], 2);
    const int64_t low = c - (int64_t(p.size) - 1) / 2, high = c + int64_t(p.size) / 2;
    const T *x = step.in[0].as<const T>() + n * C * voxels + at;
    A sums[kChunk] = {};
    for (int64_t k = low < 0 ? 0 : low; k <= high && k < C; ++k)
        for (int64_t i = 0; i < count; ++i) {
            const A v = get<A>(x[k * voxels + i]);
            sums[i] += v * v;
        }
    T *y = step.out[0].as<T>() + (n * C + c) * voxels + at;
    const A factor = static_cast<A>(p.alpha) / static_cast<A>(p.size);
    for (int64_t i = 0; i < count; ++i)
        y[i] = put<T>(get<A>(x[c * voxels + i]) *
                      std::pow(static_cast<A>(p.bias) + factor * sums[i], -static_cast<A>(p.beta)));
}

static Message run_lrn(const Step &step, const Env &env) {
    const Tensor &x = step.in[0];
    if (x.count() == 0)
        return nullptr;
    const int64_t C = x.dims[1], voxels = count_from(x, 2), chunks = (voxels + kChunk - 1) / kChunk;
    env.parallel(x.dims[0] * C * chunks, [&](int64_t task, uint32_t) {
        const int64_t at = task % chunks * kChunk, c = task / chunks % C, n = task / (chunks * C);
        const int64_t count = voxels - at < kChunk ? voxels - at : kChunk;
        with_float(x.dtype, [&](auto type) { lrn_chunk<decltype(type)>(step, n, c, at, count); });
    });
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA
