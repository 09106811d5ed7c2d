// What a run of matmul needs to know: the matrices of every batch item, and how the work is cut into tasks.
#pragma once

#include "kernel.h"
#include "matmul/tile.h"

namespace voxelrt::VOXELRT_ISA {

constexpr int64_t kTaskRows = 112, kTaskColumns = 256; // of the result, at most
constexpr int64_t kPackedBytes = int64_t(32) << 20;    // of B at a time, or what one task needs

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
    char *out;                           // the result, without gaps
    int64_t columns = 0, panels = 0;     // of B
    int64_t rows_a_task = 0, panels_a_task = 0, items_at_once = 1, panels_at_once = 0;

    Work(const Step &step, bool integer, bool is_packed, int size)
        : a(step.in[0]), packed(is_packed), out(step.out[0].data) {
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

} // namespace voxelrt::VOXELRT_ISA
