// resize: ONNX Resize in any number of axes. A row of the output is the weighted sum of input rows that its outer axes
// name, then taken along the row by the innermost resized axis; axes inside that one (the 16 channels of a blocked
// volume among them) are vectors. Nearest moves bytes of any dtype.
#include "taps.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

constexpr int64_t kTaskElements = 16384;
constexpr int kMostRows = 4; // rows that are added up at a time

// One axis: sizes, strides in elements, and its table in scratch.
struct Axis {
    int64_t in, out, in_stride, out_stride;
    int number = -1; // in the tensor; -1: stays as it is
    int64_t taps = 1;
    const int32_t *index = nullptr; // [tap][out]
    const void *weight = nullptr;   // [tap][out]
    const uint8_t *outside = nullptr;
};

struct Job {
    Axis axes[kMaxAxes]; // outer ones, then the one along rows
    int rank = 0;
    int64_t inner = 1; // elements of a vector
    int64_t rows = 1;
    const Axis &row() const { return axes[rank - 1]; }
};

bool resized(const ResizeParams &p, const Tensor &in, const Tensor &out, int axis) {
    return in.dims[axis] != out.dims[axis] || p.scale[axis] != 1.0 || p.coordinate == kCropAndResize;
}

Job job_of(const Step &step) {
    const Tensor &in = step.in[0], &out = step.out[0];
    const ResizeParams p = step.as<ResizeParams>();
    const bool blocked = in.layout == VOXELRT_BLOCKED16;
    Job job;
    int last = in.rank - 1;
    if (blocked)
        job.inner = kBlock;
    else
        while (last > 0 && !resized(p, in, out, last))
            job.inner *= in.dims[last--];
    for (int i = 0; i <= last; ++i) {
        Axis axis{in.dims[i], out.dims[i], in.strides[i], out.strides[i], resized(p, in, out, i) ? i : -1};
        if (blocked && i == 1)
            axis.in = axis.out = (in.dims[1] + kBlock - 1) / kBlock;
        if (axis.number >= 0)
            axis.taps = taps_of(p, i);
        job.axes[job.rank++] = axis;
        if (i < last)
            job.rows *= axis.out;
    }
    if (job.rank == 0)
        job.axes[job.rank++] = {1, 1, 1, 1};
    return job;
}

// ---- scratch: the tables, then a row for each thread ----

uint64_t rounded(int64_t bytes) {
    return (static_cast<uint64_t>(bytes) + 63) / 64 * 64;
}

uint64_t table_bytes(const Axis &axis, int64_t weight_bytes) {
    return rounded(axis.out * axis.taps * 4) + rounded(axis.out * axis.taps * weight_bytes) + rounded(axis.out);
}

uint64_t row_bytes(const Job &job, int64_t weight_bytes) {
    return rounded(job.row().in * job.inner * weight_bytes);
}

uint64_t scratch(const Step &step, uint32_t threads) {
    const Job job = job_of(step);
    const int64_t weight_bytes = step.in[0].dtype == VOXELRT_F64 ? 8 : 4;
    uint64_t bytes = 0;
    for (int i = 0; i < job.rank; ++i)
        bytes += table_bytes(job.axes[i], weight_bytes);
    return step.as<ResizeParams>().mode == kNearest ? bytes : bytes + threads * row_bytes(job, weight_bytes);
}

// Fills the tables and returns the first free byte. Axes that stay have a table too, so that no loop asks.
template <class T> char *make_tables(const ResizeParams &p, Job &job, char *memory) {
    for (int i = 0; i < job.rank; ++i) {
        Axis &axis = job.axes[i];
        int32_t *index = reinterpret_cast<int32_t *>(memory);
        T *weight = reinterpret_cast<T *>(memory + rounded(axis.out * axis.taps * 4));
        uint8_t *outside = reinterpret_cast<uint8_t *>(weight) + rounded(axis.out * axis.taps * sizeof(T));
        for (int64_t j = 0; j < axis.out; ++j) {
            outside[j] = 0;
            if (axis.number < 0) {
                index[j] = static_cast<int32_t>(j);
                weight[j] = T(1);
                continue;
            }
            const double x = position_of(p, axis.number, axis.in, axis.out, j);
            outside[j] = p.coordinate == kCropAndResize && !(x >= 0.0 && x <= static_cast<double>(axis.in - 1));
            if (p.mode == kNearest)
                index[j] = nearest_index(p, x, axis.in);
            else
                fill_taps<T>(p, axis.number, axis.in, x, axis.out, index + j, weight + j);
        }
        axis.index = index;
        axis.weight = weight;
        axis.outside = outside;
        memory += table_bytes(axis, sizeof(T));
    }
    return memory;
}

// ---- interpolation ----

// to = (or +=) the weighted sum of up to four rows.
template <class T> void add_rows(const T *const *rows, const T *weights, int count, bool first, T *to, int64_t length) {
    const T *a = rows[0], *b = rows[count > 1 ? 1 : 0], *c = rows[count > 2 ? 2 : 0], *d = rows[count > 3 ? 3 : 0];
    const T u = weights[0], v = weights[1], w = weights[2], z = weights[3];
    if (count == 4 && first) {
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < length; ++i)
            to[i] = u * a[i] + v * b[i] + (w * c[i] + z * d[i]);
        return;
    }
    if (first) {
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < length; ++i)
            to[i] = u * a[i];
    } else {
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < length; ++i)
            to[i] += u * a[i];
    }
    for (int k = 1; k < count; ++k) {
        const T *more = rows[k], weight = weights[k];
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < length; ++i)
            to[i] += weight * more[i];
    }
}

template <class T> struct Interpolation {
    const Job &job;
    const T *in;
    T *out;
    T extrapolation;

    // The outer axes' part of a row: the input's row itself where one has all the weight, else a sum in `buffer`;
    // null where the row lies outside.
    const T *blended(const int64_t *place, T *buffer) const {
        int64_t digits[kMaxAxes] = {};
        const int outer = job.rank - 1;
        for (int i = 0; i < outer; ++i)
            if (job.axes[i].outside[place[i]])
                return nullptr;
        const T *rows[kMostRows] = {};
        T weights[kMostRows] = {};
        int count = 0;
        bool first = true;
        const int64_t length = job.row().in * job.inner;
        for (int axis = 0; axis >= 0;) {
            int64_t offset = 0;
            T weight = T(1);
            for (int i = 0; i < outer; ++i) {
                const Axis &a = job.axes[i];
                const int64_t at = digits[i] * a.out + place[i];
                offset += a.index[at] * a.in_stride;
                weight *= static_cast<const T *>(a.weight)[at];
            }
            if (weight != T(0)) {
                rows[count] = in + offset;
                weights[count++] = weight;
            }
            axis = outer - 1;
            while (axis >= 0 && ++digits[axis] == job.axes[axis].taps)
                digits[axis--] = 0;
            if (axis < 0 && first && count == 1 && weights[0] == T(1))
                return rows[0];
            if (count == kMostRows || (axis < 0 && count > 0)) {
                add_rows(rows, weights, count, first, buffer, length);
                first = false;
                count = 0;
            }
        }
        if (first) // all weights are zero
            for (int64_t i = 0; i < length; ++i)
                buffer[i] = T(0);
        return buffer;
    }

    void along(const T *from, T *to) const {
        const Axis &row = job.row();
        const int64_t n = row.out, inner = job.inner;
        const T *w = static_cast<const T *>(row.weight);
        const int32_t *at = row.index;
        if (row.number < 0) {
            std::memcpy(to, from, static_cast<size_t>(n * inner) * sizeof(T));
        } else if (inner == 1 && row.taps == 2) {
            VOXELRT_INDEPENDENT
            for (int64_t j = 0; j < n; ++j)
                to[j] = w[j] * from[at[j]] + w[n + j] * from[at[n + j]];
        } else if (inner == 1) {
            for (int64_t j = 0; j < n; ++j) {
                T sum = T(0);
                for (int64_t t = 0; t < row.taps; ++t)
                    sum += w[t * n + j] * from[at[t * n + j]];
                to[j] = sum;
            }
        } else
            for (int64_t j = 0; j < n; ++j)
                for (int64_t t = 0; t < row.taps; ++t) {
                    const T weight = w[t * n + j];
                    const T *source = from + at[t * n + j] * inner;
                    T *result = to + j * inner;
                    VOXELRT_INDEPENDENT
                    for (int64_t i = 0; i < inner; ++i)
                        result[i] = (t == 0 ? T(0) : result[i]) + weight * source[i];
                }
        for (int64_t j = 0; j < n; ++j)
            if (row.outside[j])
                for (int64_t i = 0; i < inner; ++i)
                    to[j * inner + i] = extrapolation;
    }

    void run(int64_t begin, int64_t end, T *buffer) const {
        int64_t place[kMaxAxes];
        for (int64_t row = begin; row < end; ++row) {
            int64_t rest = row;
            T *to = out;
            for (int i = job.rank - 2; i >= 0; --i) {
                place[i] = rest % job.axes[i].out;
                rest /= job.axes[i].out;
                to += place[i] * job.axes[i].out_stride;
            }
            if (const T *from = blended(place, buffer))
                along(from, to);
            else
                for (int64_t i = 0; i < job.row().out * job.inner; ++i)
                    to[i] = extrapolation;
        }
    }
};

template <class T> void interpolate(const Step &step, const Env &env) {
    const ResizeParams p = step.as<ResizeParams>();
    Job job = job_of(step);
    char *rows = make_tables<T>(p, job, env.scratch);
    const uint64_t each = row_bytes(job, sizeof(T));
    const Interpolation<T> work{job, step.in[0].as<const T>(), step.out[0].as<T>(), static_cast<T>(p.extrapolation)};
    env.parallel_range(job.rows, 1 + kTaskElements / (job.row().out * job.inner),
                       [&](int64_t begin, int64_t end, uint32_t worker) {
                           work.run(begin, end, reinterpret_cast<T *>(rows + worker * each));
                       });
}

// ---- nearest ----

template <class T> void pick(const Axis &row, const char *from, char *to) {
    for (int64_t j = 0; j < row.out; ++j)
        reinterpret_cast<T *>(to)[j] = reinterpret_cast<const T *>(from)[row.index[j]];
}

void pick_row(const Axis &row, int64_t unit, const char *from, char *to) {
    if (row.number < 0)
        std::memcpy(to, from, static_cast<size_t>(row.out * unit));
    else if (unit == 4)
        pick<uint32_t>(row, from, to);
    else if (unit == 1)
        pick<uint8_t>(row, from, to);
    else if (unit == 2)
        pick<uint16_t>(row, from, to);
    else if (unit == 8)
        pick<uint64_t>(row, from, to);
    else if (unit == 64)
        for (int64_t j = 0; j < row.out; ++j)
            std::memcpy(to + j * 64, from + row.index[j] * int64_t(64), 64);
    else
        for (int64_t j = 0; j < row.out; ++j)
            std::memcpy(to + j * unit, from + row.index[j] * unit, static_cast<size_t>(unit));
}

void fill_value(const Tensor &out, char *to, int64_t count, double value) {
    with_storage(out.dtype, [&](auto tag) {
        using S = decltype(tag);
        for (int64_t i = 0; i < count; ++i)
            reinterpret_cast<S *>(to)[i] = Codec<S>::write(static_cast<NaturalOf<S>>(value));
    });
}

void run_nearest(const Step &step, const Env &env) {
    const ResizeParams p = step.as<ResizeParams>();
    const Tensor &in = step.in[0], &out = step.out[0];
    Job job = job_of(step);
    make_tables<float>(p, job, env.scratch);
    const int64_t bytes = bytes_of(in.dtype), unit = job.inner * bytes;
    const Axis &row = job.row();
    env.parallel_range(job.rows, 1 + kTaskElements / (row.out * job.inner), [&](int64_t begin, int64_t end, uint32_t) {
        const char *last_from = nullptr, *last_to = nullptr; // rows repeat where outer axes grow
        for (int64_t number = begin; number < end; ++number) {
            int64_t rest = number;
            const char *from = in.data;
            char *to = out.data;
            bool outside = false;
            for (int i = job.rank - 2; i >= 0; --i) {
                const Axis &axis = job.axes[i];
                const int64_t place = rest % axis.out;
                rest /= axis.out;
                from += axis.index[place] * axis.in_stride * bytes;
                to += place * axis.out_stride * bytes;
                outside = outside || axis.outside[place];
            }
            if (outside) {
                fill_value(out, to, row.out * job.inner, p.extrapolation);
                continue;
            }
            if (from == last_from)
                std::memcpy(to, last_to, static_cast<size_t>(row.out * unit));
            else {
                pick_row(row, unit, from, to);
                for (int64_t j = 0; p.coordinate == kCropAndResize && j < row.out; ++j)
                    if (row.outside[j])
                        fill_value(out, to + j * unit, job.inner, p.extrapolation);
            }
            last_from = from;
            last_to = to;
        }
    });
}

// ---- the kernel ----

Message check_axes(const ResizeParams &p, const Tensor &in, const Tensor &out) {
    for (int i = 0; i < in.rank; ++i) {
        if (in.dims[i] > kLongestAxis || out.dims[i] > kLongestAxis)
            return fail("axis %d is too long", i);
        if (!resized(p, in, out, i))
            continue;
        if (!(p.scale[i] > 1e-9 && p.scale[i] < 1e9))
            return fail("the scale of axis %d is %g", i, p.scale[i]);
        if (in.dims[i] == 0 && out.dims[i] > 0)
            return fail("axis %d is empty", i);
        if (p.mode != kNearest && taps_of(p, i) > kMostTaps)
            return fail("axis %d has too many taps", i);
        if (in.layout == VOXELRT_BLOCKED16 && i < 2)
            return "a blocked volume is resized in space";
    }
    return nullptr;
}

Message check(const Step &step) {
    if (step.inputs != 1 || step.outputs != 1 || !step.in[0].present() || !step.out[0].present())
        return fail("takes one input and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &out = step.out[0];
    const ResizeParams p = step.as<ResizeParams>();
    if (in.pending() || in.dtype != out.dtype || in.rank != out.rank || in.layout != out.layout)
        return "the input is pending, or differs from the output in dtype, rank or layout";
    if (p.mode < 0 || p.mode >= kModes || p.coordinate < 0 || p.coordinate >= kCoordinates || p.rounding < 0 ||
        p.rounding >= kRoundings)
        return "there is no such mode";
    if (p.mode != kNearest && in.dtype != VOXELRT_F32 && in.dtype != VOXELRT_F64)
        return "interpolates float32 and float64";
    if (in.layout == VOXELRT_BLOCKED16) {
        if (in.dtype != VOXELRT_F32 || in.strides[4] != kBlock || out.strides[4] != kBlock ||
            p.coordinate == kCropAndResize)
            return "a blocked volume is float32 with dense rows, not cropped";
    } else if (out.count() > 0 && (!in.contiguous() || !out.contiguous()))
        return "linear tensors have no gaps";
    return check_axes(p, in, out);
}

Message run(const Step &step, const Env &env) {
    if (step.out[0].count() == 0)
        return nullptr;
    if (step.as<ResizeParams>().mode == kNearest)
        run_nearest(step, env);
    else if (step.in[0].dtype == VOXELRT_F64)
        interpolate<double>(step, env);
    else
        interpolate<float>(step, env);
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(resize, {{"resize", 1, ResizeParamsText, sizeof(ResizeParams), check, run, scratch, nullptr, nullptr}})
