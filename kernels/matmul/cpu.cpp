// matmul: alpha · A·B + beta · C and an activation, with batches, any strides and broadcasting, in any dtype.
// matmul.integer: (A - a_zero)·(B - b_zero) of 8-bit integers in int32.
//
// B is packed into panels of a tile's columns (ahead of time where it is a weight), A slice by slice by the task that
// needs it. A task makes some rows and columns of one product in a buffer of the computed type; then the epilogue
// stores them. Every number is a sum over k ascending in slices of kSlice, whatever the shape, tiles and threads.
#include "activation.h"
#include "floats.h"
#include "matmul/tile.h"

#include <cstring>

namespace voxelrt::VOXELRT_ISA {

#define MATMUL_PARAMS(S, A)                                                                                            \
    S(i32, packed)                                                                                                     \
    S(i32, transposed) S(f32, alpha) S(f32, beta) S(i32, activation) S(f32, activation_alpha) S(f32, activation_beta)
#define INTEGER_PARAMS(S, A) S(i32, reserved)
VOXELRT_PARAMS(MatmulParams, MATMUL_PARAMS)
VOXELRT_PARAMS(IntegerParams, INTEGER_PARAMS)

constexpr int64_t kTaskRows = 112, kTaskColumns = 256; // of the result, at most
constexpr int64_t kPackedBytes = int64_t(32) << 20;    // of B at a time, or what one task needs
constexpr int64_t kLongestAxis = int64_t(1) << 31;

// The type a dtype is multiplied and summed in. Integers wrap, so that their sign does not matter.
template <class T> struct Summed {
    using type = float;
};
template <> struct Summed<double> {
    using type = double;
};
template <> struct Summed<uint8_t> {
    using type = uint32_t;
};
template <> struct Summed<int8_t> {
    using type = uint32_t;
};
template <> struct Summed<int32_t> {
    using type = uint32_t;
};
template <> struct Summed<int64_t> {
    using type = uint64_t;
};

// Call body(T()) with the storage type of a dtype that can be multiplied; signed and unsigned are the same.
template <class F> static void with_number(int dtype, F &&body) {
    if (with_float(dtype, body))
        return;
    if (dtype == VOXELRT_I32 || dtype == VOXELRT_U32)
        body(int32_t());
    else
        body(int64_t());
}

// A matrix of every batch item: the strides of the batch axes, and of rows and columns.
struct Matrices {
    const char *data = nullptr;
    int dtype = 0;
    int axes = 0;
    int64_t dims[VOXELRT_MAX_RANK] = {}, batch[VOXELRT_MAX_RANK] = {};
    int64_t row = 0, column = 0;

    Matrices() = default;
    explicit Matrices(const Tensor &t) : data(t.data), dtype(t.dtype), axes(t.rank - 2) {
        for (int i = 0; i < axes; ++i) {
            dims[i] = t.dims[i];
            batch[i] = t.strides[i];
        }
        row = t.strides[t.rank - 2];
        column = t.strides[t.rank - 1];
    }
    // One number a row (column stride 0) or a column (row stride 0), of a tensor without the other axis.
    int64_t offset(int64_t item) const {
        int64_t sum = 0;
        for (int i = axes - 1; i >= 0; --i) {
            sum += item % dims[i] * batch[i];
            item /= dims[i];
        }
        return sum;
    }
    bool same_for_all() const {
        for (int i = 0; i < axes; ++i)
            if (dims[i] != 1 && batch[i] != 0)
                return false;
        return true;
    }
    // Whether the rows of all items follow each other at one stride.
    bool rows_continue(int64_t rows) const {
        int64_t expected = row * rows;
        for (int i = axes - 1; i >= 0; --i) {
            if (dims[i] != 1 && batch[i] != expected)
                return false;
            expected *= dims[i];
        }
        return true;
    }
};

// All that a run needs to know: shapes, and how the work is cut. Nothing depends on the threads.
struct Work {
    int64_t items = 1, M = 0, N = 0, K = 0;
    Matrices a, b, c, a_zero, b_zero;
    bool packed = false, shared = false; // B ahead of time; B the same for all items
    int64_t columns = 0, panels = 0;     // of B
    int64_t rows_a_task = 0, panels_a_task = 0, items_at_once = 1, panels_at_once = 0;

    Work(const Step &step, bool integer, bool is_packed, int size) : a(step.in[0]), packed(is_packed) {
        const Tensor &out = step.out[0];
        M = out.dims[out.rank - 2];
        N = out.dims[out.rank - 1];
        K = step.in[0].dims[out.rank - 1];
        for (int i = 0; i < out.rank - 2; ++i)
            items *= out.dims[i];
        if (packed)
            b.data = step.in[1].data;
        else
            b = Matrices(step.in[1]);
        shared = b.same_for_all() && !(integer && step.input(3).present());
        if (integer) {
            a_zero = vector(step.input(2), true);
            b_zero = vector(step.input(3), false);
        } else if (step.input(2).present()) {
            c = Matrices(step.input(2));
        }
        if (!integer && shared && a.rows_continue(M) && c.rows_continue(M)) { // one tall product
            M *= items;
            items = 1;
        }
        cut(size);
    }

  private:
    static Matrices vector(const Tensor &t, bool rows) {
        Matrices made;
        if (!t.present())
            return made;
        made.data = t.data;
        made.dtype = t.dtype;
        made.axes = t.rank - 1;
        for (int i = 0; i < made.axes; ++i) {
            made.dims[i] = t.dims[i];
            made.batch[i] = t.strides[i];
        }
        (rows ? made.row : made.column) = t.strides[t.rank - 1];
        return made;
    }
    void cut(int size) {
        columns = kVectorBytes / size * kTileVectors;
        panels = (N + columns - 1) / columns;
        const int64_t strips = (M + kTileRows - 1) / kTileRows;
        int64_t strips_a_task = strips < kTaskRows / kTileRows ? strips : kTaskRows / kTileRows;
        panels_a_task = (strips < 3 ? kTaskColumns / 4 : kTaskColumns) / columns;
        const auto tasks = [&] {
            const double rows = static_cast<double>((strips + strips_a_task - 1) / strips_a_task);
            return rows * static_cast<double>((panels + panels_a_task - 1) / panels_a_task) *
                   static_cast<double>(items);
        };
        while (strips_a_task > 4 && tasks() < 24)
            strips_a_task = (strips_a_task + 1) / 2;
        rows_a_task = strips_a_task * kTileRows;
        items_at_once = items;
        panels_at_once = panels;
        if (packed)
            return;
        const double panel = static_cast<double>(K) * static_cast<double>(columns) * size;
        const double room = static_cast<double>(kPackedBytes) / (panel > 0 ? panel : 1.0), all = double(panels);
        if (room < all)
            panels_at_once = (static_cast<int64_t>(room) + panels_a_task) / panels_a_task * panels_a_task;
        if (!shared && room < all * static_cast<double>(items))
            items_at_once = room < 2 * all ? 1 : static_cast<int64_t>(room / all);
    }
};

// ---- packing ----

// One panel of B: [k][column], zeros past the last column.
template <class T, class A>
static void pack_panel(const T *b, int64_t row, int64_t column, int64_t K, int64_t width, A *to) {
    constexpr int columns = Lanes<A>::columns;
    if (column == 1 && width == columns) {
        for (int64_t k = 0; k < K; ++k)
            for (int j = 0; j < columns; ++j)
                to[k * columns + j] = get<A>(b[k * row + j]);
        return;
    }
    for (int64_t k0 = 0; k0 < K; k0 += 16) { // some lines of a transposed B at a time
        const int64_t end = k0 + 16 < K ? k0 + 16 : K;
        for (int64_t j = 0; j < width; ++j)
            for (int64_t k = k0; k < end; ++k)
                to[k * columns + j] = get<A>(b[k * row + j * column]);
        for (int64_t k = k0; k < end; ++k)
            for (int64_t j = width; j < columns; ++j)
                to[k * columns + j] = A(0);
    }
}

// Some rows of A over a slice of K: strips of kTileRows rows (the last may have fewer), each [k / 16][row][k % 16].
template <class T, class A>
static void pack_rows(const T *a, int64_t row, int64_t column, int64_t rows, int64_t depth, A *to) {
    const int64_t padded = (depth + kDepth - 1) / kDepth * kDepth;
    for (int64_t first = 0; first < rows; first += kTileRows) {
        const int64_t real = rows - first < kTileRows ? rows - first : kTileRows;
        const int64_t height = kAnyRows<A> ? real : kTileRows;
        for (int64_t r = 0; r < height; ++r)
            for (int64_t k = 0; k < padded; k += kDepth) {
                A *group = to + (k * height + r * kDepth);
                const T *from = a + (first + r) * row + k * column;
                const int64_t count = r >= real ? 0 : depth - k < kDepth ? depth - k : kDepth;
                if (column == 1 && count == kDepth)
                    for (int i = 0; i < kDepth; ++i)
                        group[i] = get<A>(from[i]);
                else
                    for (int i = 0; i < kDepth; ++i)
                        group[i] = i < count ? get<A>(from[i * column]) : A(0);
            }
        to += height * padded;
    }
}

// The zero points of columns [j, j + width), off a packed panel.
template <class T, class A>
static void subtract_columns(const Matrices &zero, int64_t item, int64_t j, int64_t width, int64_t K, A *panel) {
    const T *from = reinterpret_cast<const T *>(zero.data) + zero.offset(item) + j * zero.column;
    for (int64_t i = 0; i < width; ++i) {
        const A z = get<A>(from[i * zero.column]);
        for (int64_t k = 0; k < K; ++k)
            panel[k * Lanes<A>::columns + i] -= z;
    }
}

// The zero points of rows [row, row + rows), off packed rows; the groups' padding is never read.
template <class T, class A>
static void subtract_rows(const Matrices &zero, int64_t item, int64_t row, int64_t rows, int64_t padded, A *slice) {
    const T *from = reinterpret_cast<const T *>(zero.data) + zero.offset(item) + row * zero.row;
    for (int64_t r = 0; r < rows; ++r) {
        const A z = get<A>(from[r * zero.row]);
        const int64_t first = r / kTileRows * kTileRows;
        const int64_t height = kAnyRows<A> && rows - first < kTileRows ? rows - first : kTileRows;
        for (int64_t k = 0; k < padded; k += kDepth)
            for (int i = 0; i < kDepth; ++i)
                slice[first * padded + k * height + (r - first) * kDepth + i] -= z;
    }
}

// ---- epilogue ----

// One row of the result: t = alpha · sum + beta · c, activated.
template <class T, class A>
static void finish_row(A *sums, int64_t count, const MatmulParams &p, const T *c, int64_t column, T *out) {
    if constexpr (kFractions<A>) {
        const A alpha = static_cast<A>(p.alpha), beta = static_cast<A>(p.beta);
        if (p.alpha != 1.0f)
            for (int64_t i = 0; i < count; ++i)
                sums[i] *= alpha;
        if (c && column == 1)
            for (int64_t i = 0; i < count; ++i)
                sums[i] += beta * get<A>(c[i]);
        else if (c)
            for (int64_t i = 0; i < count; ++i)
                sums[i] += beta * get<A>(c[i * column]);
    } else if (c) {
        for (int64_t i = 0; i < count; ++i)
            sums[i] += get<A>(c[i * column]);
    }
    if constexpr (kAnyRows<A>)
        activate_row(p.activation, p.activation_alpha, p.activation_beta, sums, count);
    else if constexpr (kFractions<A>)
        for (int64_t i = 0; i < (p.activation ? count : 0); ++i)
            sums[i] = activate_number(p.activation, sums[i], static_cast<double>(p.activation_alpha),
                                      static_cast<double>(p.activation_beta));
    for (int64_t i = 0; i < count; ++i)
        out[i] = put<T>(sums[i]);
}

// ---- the product ----

static int64_t slice_numbers(const Work &w) {
    const int64_t depth = w.K < kSlice ? w.K : kSlice;
    return w.rows_a_task * ((depth + kDepth - 1) / kDepth * kDepth);
}
static int64_t result_numbers(const Work &w) {
    return w.rows_a_task * w.panels_a_task * w.columns;
}
static uint64_t worker_bytes(const Work &w, int size) {
    return (static_cast<uint64_t>(slice_numbers(w) + result_numbers(w)) * static_cast<uint64_t>(size) + 63) / 64 * 64;
}
static uint64_t scratch_of(const Work &w, int size, uint32_t threads) {
    const uint64_t packed = w.packed ? 0
                                     : static_cast<uint64_t>(w.shared ? 1 : w.items_at_once) *
                                           static_cast<uint64_t>(w.panels_at_once) * static_cast<uint64_t>(w.K) *
                                           static_cast<uint64_t>(w.columns) * static_cast<uint64_t>(size);
    return worker_bytes(w, size) * threads + (packed + 63) / 64 * 64;
}

// `rows` rows at `a` (from `row` on) times `count` panels into `result`, which has `stride` numbers a row.
template <class T, class A>
static void multiply(const Work &w, const T *a, const A *panels, int64_t item, int64_t row, int64_t rows, int64_t count,
                     A *slice, A *result, int64_t stride) {
    for (int64_t k = 0; k < w.K; k += kSlice) {
        const int64_t depth = w.K - k < kSlice ? w.K - k : kSlice;
        const int64_t padded = (depth + kDepth - 1) / kDepth * kDepth;
        pack_rows(a + k * w.a.column, w.a.row, w.a.column, rows, depth, slice);
        if (w.a_zero.data)
            subtract_rows<T>(w.a_zero, item, row, rows, padded, slice);
        for (int64_t j = 0; j < count; ++j)
            for (int64_t r = 0; r < rows; r += kTileRows)
                tile_of<A>(rows - r < kTileRows ? rows - r : kTileRows, depth, slice + r * padded,
                           panels + (j * w.K + k) * w.columns, result + r * stride + j * w.columns, stride, k == 0);
    }
    if (w.K == 0)
        for (int64_t i = 0; i < rows * stride; ++i)
            result[i] = A(0);
}

// The whole of matmul and of matmul.integer: finish(item, row, column, count, sums) stores a row's piece.
template <class TA, class TB, class A, class F> static void product(const Work &w, const Env &env, F &&finish) {
    const uint64_t bytes = worker_bytes(w, sizeof(A));
    A *packed = reinterpret_cast<A *>(env.scratch + bytes * env.threads);
    const int64_t row_tasks = (w.M + w.rows_a_task - 1) / w.rows_a_task;
    for (int64_t item = 0; item < w.items; item += w.items_at_once) {
        const int64_t items = w.items - item < w.items_at_once ? w.items - item : w.items_at_once;
        for (int64_t panel = 0; panel < w.panels; panel += w.panels_at_once) {
            const int64_t panels = w.panels - panel < w.panels_at_once ? w.panels - panel : w.panels_at_once;
            const int64_t size = w.K * w.columns;
            if (!w.packed)
                env.parallel((w.shared ? 1 : items) * panels, [&](int64_t task, uint32_t) {
                    const int64_t j = (panel + task % panels) * w.columns, i = item + task / panels;
                    const int64_t width = w.N - j < w.columns ? w.N - j : w.columns;
                    const TB *b = reinterpret_cast<const TB *>(w.b.data) + w.b.offset(i);
                    pack_panel(b + j * w.b.column, w.b.row, w.b.column, w.K, width, packed + task * size);
                    if (w.b_zero.data)
                        subtract_columns<TB>(w.b_zero, i, j, width, w.K, packed + task * size);
                });
            const int64_t panel_tasks = (panels + w.panels_a_task - 1) / w.panels_a_task;
            env.parallel(items * row_tasks * panel_tasks, [&](int64_t task, uint32_t worker) {
                const int64_t p = task % panel_tasks * w.panels_a_task, i = task / (panel_tasks * row_tasks);
                const int64_t row = task / panel_tasks % row_tasks * w.rows_a_task;
                const int64_t rows = w.M - row < w.rows_a_task ? w.M - row : w.rows_a_task;
                const int64_t count = panels - p < w.panels_a_task ? panels - p : w.panels_a_task;
                A *slice = reinterpret_cast<A *>(env.scratch + bytes * worker), *result = slice + slice_numbers(w);
                const A *b = w.packed ? reinterpret_cast<const A *>(w.b.data) + (panel + p) * size
                                      : packed + ((w.shared ? 0 : i) * panels + p) * size;
                const int64_t stride = w.panels_a_task * w.columns, column = (panel + p) * w.columns;
                const TA *a = reinterpret_cast<const TA *>(w.a.data) + w.a.offset(item + i) + row * w.a.row;
                multiply(w, a, b, item + i, row, rows, count, slice, result, stride);
                const int64_t width = w.N - column < count * w.columns ? w.N - column : count * w.columns;
                for (int64_t r = 0; r < rows; ++r)
                    finish(item + i, row + r, column, width, result + r * stride);
            });
        }
    }
}

// ---- matmul ----

static bool spans(const Tensor &t, const Tensor &out, int axes, int64_t before_last, int64_t last) {
    if (t.rank != out.rank || t.layout != VOXELRT_LINEAR || t.pending())
        return false;
    for (int i = 0; i < axes; ++i)
        if (t.dims[i] != out.dims[i])
            return false;
    return t.dims[axes] == before_last && t.dims[axes + 1] == last;
}

static Message check_shapes(const Step &step, bool packed) {
    const Tensor &a = step.in[0], &b = step.in[1], &out = step.out[0];
    if (!a.present() || !b.present() || !out.present() || out.rank < 2 || a.rank != out.rank)
        return "takes and gives matrices, all with the batch axes of the result";
    const int axes = out.rank - 2;
    for (int i = 0; i < out.rank; ++i)
        if (out.dims[i] >= kLongestAxis || a.dims[i] >= kLongestAxis)
            return "an axis is longer than 2^31";
    if (out.layout != VOXELRT_LINEAR || (!out.contiguous() && out.count() != 0))
        return "the result has gaps";
    const int64_t M = out.dims[axes], N = out.dims[axes + 1], K = a.dims[axes + 1];
    if (!spans(a, out, axes, M, K) || (!packed && !spans(b, out, axes, K, N)))
        return fail("A (.., %lld, %lld) and B (.., %lld, %lld) do not make the result",
                    static_cast<long long>(a.dims[axes]), static_cast<long long>(K),
                    static_cast<long long>(b.rank > axes ? b.dims[axes] : 0),
                    static_cast<long long>(b.rank > axes + 1 ? b.dims[axes + 1] : 0));
    if (packed) {
        const int64_t columns = Lanes<float>::columns, panels = (N + columns - 1) / columns;
        if (b.rank != 1 || b.dtype != VOXELRT_F32 || !b.contiguous() || b.dims[0] != panels * columns * K)
            return "packed B is a flat float32 weight of K by N";
    }
    return nullptr;
}

static bool computes_in_float(int dtype) {
    return dtype == VOXELRT_F32 || dtype == VOXELRT_F16 || dtype == VOXELRT_BF16;
}
static bool is_integer(int dtype) {
    return dtype == VOXELRT_I32 || dtype == VOXELRT_U32 || dtype == VOXELRT_I64 || dtype == VOXELRT_U64;
}

static Message check_matmul(const Step &step) {
    if (step.inputs < 2 || step.inputs > 3 || step.outputs != 1)
        return "takes A, B and perhaps C, and gives one result";
    const MatmulParams p = step.as<MatmulParams>();
    const Tensor &a = step.in[0], &c = step.input(2), &out = step.out[0];
    if (p.packed != 0 && p.packed != 1)
        return "packed is 0 or 1";
    if (Message message = check_shapes(step, p.packed != 0))
        return message;
    if (a.dtype != out.dtype || (!p.packed && step.in[1].dtype != out.dtype) ||
        (!is_float(out.dtype) && !is_integer(out.dtype)) || (p.packed && !computes_in_float(out.dtype)))
        return "A, B and the result are of one dtype: a float, or integers of 32 or 64 bits";
    if (c.present() &&
        (c.dtype != out.dtype || !spans(c, out, out.rank - 2, out.dims[out.rank - 2], out.dims[out.rank - 1])))
        return "C has the dtype and shape of the result (spread by strides of zero)";
    if (p.activation < 0 || p.activation >= kActivations || (p.activation != kNoActivation && is_integer(out.dtype)))
        return fail("activation %d is unknown, or not one of this dtype", p.activation);
    if (is_integer(out.dtype) && (p.alpha != 1.0f || p.beta != 1.0f))
        return "alpha and beta of integers are one";
    return nullptr;
}

static int bytes_summed(int dtype) {
    return dtype == VOXELRT_F64 || dtype == VOXELRT_I64 || dtype == VOXELRT_U64 ? 8 : 4;
}

static uint64_t scratch_matmul(const Step &step, uint32_t threads) {
    if (step.out[0].count() == 0)
        return 0;
    const int size = bytes_summed(step.out[0].dtype);
    return scratch_of(Work(step, false, step.as<MatmulParams>().packed != 0, size), size, threads);
}

static Message run_matmul(const Step &step, const Env &env) {
    const Tensor &out = step.out[0];
    if (out.count() == 0)
        return nullptr;
    const MatmulParams p = step.as<MatmulParams>();
    const Work w(step, false, p.packed != 0, bytes_summed(out.dtype));
    with_number(out.dtype, [&](auto type) {
        using T = decltype(type);
        using A = typename Summed<T>::type;
        product<T, T, A>(w, env, [&](int64_t item, int64_t row, int64_t column, int64_t count, A *sums) {
            const T *c = w.c.data ? reinterpret_cast<const T *>(w.c.data) + w.c.offset(item) + row * w.c.row +
                                        column * w.c.column
                                  : nullptr;
            finish_row(sums, count, p, c, w.c.column, out.as<T>() + (item * w.M + row) * w.N + column);
        });
    });
    return nullptr;
}

// A weight (K, N), or (N, K) if `transposed`, of a float dtype computed in float32.
static uint64_t pack_bytes(const void *params, const Tensor &raw) {
    const MatmulParams p = *static_cast<const MatmulParams *>(params);
    if (raw.rank != 2 || !computes_in_float(raw.dtype) || raw.dims[0] >= kLongestAxis || raw.dims[1] >= kLongestAxis)
        return 0;
    const uint64_t K = static_cast<uint64_t>(raw.dims[p.transposed ? 1 : 0]);
    const uint64_t N = static_cast<uint64_t>(raw.dims[p.transposed ? 0 : 1]), columns = Lanes<float>::columns;
    return (N + columns - 1) / columns * columns * K * sizeof(float);
}

static void pack(const void *params, const Tensor &raw, char *packed) {
    const MatmulParams p = *static_cast<const MatmulParams *>(params);
    const int k = p.transposed ? 1 : 0, n = 1 - k;
    const int64_t K = raw.dims[k], N = raw.dims[n], columns = Lanes<float>::columns;
    float *to = reinterpret_cast<float *>(packed);
    with_float(raw.dtype, [&](auto type) {
        using T = decltype(type);
        for (int64_t j = 0; j < N; j += columns, to += columns * K)
            pack_panel(raw.as<const T>() + j * raw.strides[n], raw.strides[k], raw.strides[n], K,
                       N - j < columns ? N - j : columns, to);
    });
}

// ---- matmul.integer ----

static bool is_byte(int dtype) {
    return dtype == VOXELRT_I8 || dtype == VOXELRT_U8;
}

static Message check_integer(const Step &step) {
    if (step.inputs < 2 || step.inputs > 4 || step.outputs != 1)
        return "takes A, B and their zero points, and gives one result";
    if (Message message = check_shapes(step, false))
        return message;
    const Tensor &a = step.in[0], &b = step.in[1], &out = step.out[0];
    if (!is_byte(a.dtype) || !is_byte(b.dtype) || out.dtype != VOXELRT_I32)
        return "A and B are int8 or uint8, the result int32";
    for (int i = 2; i < 4; ++i) {
        const Tensor &t = step.input(i);
        if (!t.present())
            continue;
        bool fits = t.dtype == step.in[i - 2].dtype && t.rank == out.rank - 1 && t.layout == VOXELRT_LINEAR &&
                    !t.pending() && t.dims[out.rank - 2] == out.dims[out.rank - 4 + i];
        for (int k = 0; fits && k < out.rank - 2; ++k)
            fits = t.dims[k] == out.dims[k];
        if (!fits)
            return "a zero point has one number a row of A or a column of B (spread by strides of zero)";
    }
    return nullptr;
}

static uint64_t scratch_integer(const Step &step, uint32_t threads) {
    return step.out[0].count() == 0 ? 0 : scratch_of(Work(step, true, false, 4), 4, threads);
}

static Message run_integer(const Step &step, const Env &env) {
    const Tensor &out = step.out[0];
    if (out.count() == 0)
        return nullptr;
    const Work w(step, true, false, 4);
    const auto finish = [&](int64_t item, int64_t row, int64_t column, int64_t count, const uint32_t *sums) {
        std::memcpy(out.as<int32_t>() + (item * w.M + row) * w.N + column, sums, static_cast<size_t>(count) * 4);
    };
    const bool a_signed = step.in[0].dtype == VOXELRT_I8, b_signed = step.in[1].dtype == VOXELRT_I8;
    if (a_signed)
        b_signed ? product<int8_t, int8_t, uint32_t>(w, env, finish)
                 : product<int8_t, uint8_t, uint32_t>(w, env, finish);
    else
        b_signed ? product<uint8_t, int8_t, uint32_t>(w, env, finish)
                 : product<uint8_t, uint8_t, uint32_t>(w, env, finish);
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(matmul, {{"matmul", 1, MatmulParamsText, sizeof(MatmulParams), check_matmul, run_matmul, scratch_matmul,
                          pack_bytes, pack},
                         {"matmul.integer", 1, IntegerParamsText, sizeof(IntegerParams), check_integer, run_integer,
                          scratch_integer, nullptr, nullptr}})
