// The product itself: B and slices of A are packed, tasks multiply them tile by tile and hand over finished rows.
#pragma once

#include "floats.h"
#include "matmul/work.h"

#include <cstring>
#include <type_traits>

namespace voxelrt::VOXELRT_ISA {

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
                if (std::is_same_v<T, A> && column == 1 && count == kDepth) // by itself the compiler copies scalars
                    std::memcpy(group, from, kDepth * sizeof(A));
                else if (column == 1 && count == kDepth)
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

// Asks for the lines of the result that a tile will be stored to. Its rows lie far from each other, so none would come
// by itself, and the last reader of this memory may have been another core.
template <class T> static void fetch_result(const Work &w, int64_t item, int64_t row, int64_t rows, int64_t column) {
    constexpr int64_t size = sizeof(T) == 1 ? 4 : sizeof(T); // products of bytes are int32
    const int64_t width = (w.N - column < w.columns ? w.N - column : w.columns) * size;
    for (int64_t r = row; r < row + rows; ++r) {
        const char *at = w.out + ((item * w.M + r) * w.N + column) * size;
        for (int64_t i = 0; i < width; i += 64)
            __builtin_prefetch(at + i, 1);
    }
}

// `rows` rows at `a` (from `row` on) times `count` panels (from `column` on) into `result`, which has `stride` numbers
// a row.
template <class T, class A>
static void multiply(const Work &w, const T *a, const A *panels, int64_t item, int64_t row, int64_t column,
                     int64_t rows, int64_t count, A *slice, A *result, int64_t stride) {
    for (int64_t k = 0; k < w.K; k += kSlice) {
        const int64_t depth = w.K - k < kSlice ? w.K - k : kSlice;
        const int64_t padded = (depth + kDepth - 1) / kDepth * kDepth;
        pack_rows(a + k * w.a.column, w.a.row, w.a.column, rows, depth, slice);
        if (w.a_zero.data)
            subtract_rows<T>(w.a_zero, item, row, rows, padded, slice);
        for (int64_t j = 0; j < count; ++j)
            for (int64_t r = 0; r < rows; r += kTileRows) {
                const int64_t height = rows - r < kTileRows ? rows - r : kTileRows;
                if (k + depth == w.K)
                    fetch_result<T>(w, item, row + r, height, column + j * w.columns);
                tile_of<A>(height, depth, slice + r * padded, panels + (j * w.K + k) * w.columns,
                           result + r * stride + j * w.columns, stride, k == 0);
            }
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
                multiply(w, a, b, item + i, row, column, rows, count, slice, result, stride);
                const int64_t width = w.N - column < count * w.columns ? w.N - column : count * w.columns;
                for (int64_t r = 0; r < rows; ++r)
                    finish(item + i, row + r, column, width, result + r * stride);
            });
        }
    }
}

} // namespace voxelrt::VOXELRT_ISA
