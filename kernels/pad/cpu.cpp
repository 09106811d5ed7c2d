// pad: a tensor with elements added at the ends of its axes: a constant, its edge, its reflection or itself again; or
// taken away. Any dtype: elements are bytes. Trailing axes that stay as they are become part of the element.
#include "elements.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

enum Mode : int { kConstant, kEdge, kReflect, kWrap, kModes };

// `begin` elements are added before the first one of each axis (removed if negative); the output's dims say the rest.
#define PAD_PARAMS(S, A) S(i32, mode) A(i64, begin, 8)
VOXELRT_PARAMS(PadParams, PAD_PARAMS)
static_assert(VOXELRT_MAX_RANK == 8, "the length of begin");

constexpr int64_t kMostPadding = int64_t(1) << 40;
constexpr int64_t kTaskBytes = 1 << 17;

struct Axis {
    int64_t in, out, begin;
    int64_t in_stride, out_stride; // bytes
};

// The input's index for an output's, or -1 where there is none.
int64_t source_of(const Axis &axis, int64_t index, int mode) {
    const int64_t i = index - axis.begin, n = axis.in;
    if (i >= 0 && i < n)
        return i;
    if (mode == kConstant)
        return -1;
    if (mode == kEdge || n == 1)
        return i < 0 ? 0 : n - 1;
    const int64_t period = mode == kWrap ? n : 2 * (n - 1);
    const int64_t rest = i % period, at = rest < 0 ? rest + period : rest;
    return at < n ? at : period - at;
}

struct Job {
    Axis axes[kMaxAxes]; // the last one is walked by rows
    int rank = 0;
    int64_t unit = 0; // bytes of an element
    int mode = 0;
    char value[8] = {}; // of the dtype; `width` bytes
    int width = 0;
};

Job job_of(const Step &step) {
    const Tensor &in = step.in[0], &out = step.out[0];
    const PadParams params = step.as<PadParams>();
    Job job;
    job.mode = params.mode;
    job.unit = job.width = bytes_of(in.dtype);
    const bool blocked = in.layout == VOXELRT_BLOCKED16;
    const int64_t width = job.width;
    for (int i = 0; i < in.rank; ++i) {
        Axis axis{in.dims[i], out.dims[i], params.begin[i], in.strides[i] * width, out.strides[i] * width};
        if (blocked && i == 1)
            axis.in = axis.out = (in.dims[1] + kBlock - 1) / kBlock;
        job.axes[job.rank++] = axis;
    }
    if (blocked)
        job.unit *= kBlock;
    while (job.rank > 1) {
        const Axis &last = job.axes[job.rank - 1];
        const bool dense = last.in == 1 || (last.in_stride == job.unit && last.out_stride == job.unit);
        if (last.begin != 0 || last.in != last.out || !dense)
            break;
        job.unit *= last.in;
        --job.rank;
    }
    if (job.rank == 0)
        job.axes[job.rank++] = {1, 1, 0, job.unit, job.unit};
    return job;
}

void fill(const Job &job, char *to, int64_t stride, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
        for (int64_t byte = 0; byte < job.unit; byte += job.width)
            std::memcpy(to + i * stride + byte, job.value, static_cast<size_t>(job.width));
}

template <class T> void copy_units(const char *from, int64_t in_stride, char *to, int64_t out_stride, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
        std::memcpy(to + i * out_stride, from + i * in_stride, sizeof(T));
}

void copy_run(const Job &job, const char *from, int64_t in_stride, char *to, int64_t out_stride, int64_t count) {
    if (in_stride == job.unit && out_stride == job.unit)
        std::memcpy(to, from, static_cast<size_t>(count * job.unit));
    else if (job.unit == 4)
        copy_units<uint32_t>(from, in_stride, to, out_stride, count);
    else if (job.unit == 8)
        copy_units<uint64_t>(from, in_stride, to, out_stride, count);
    else if (job.unit == 2)
        copy_units<uint16_t>(from, in_stride, to, out_stride, count);
    else if (job.unit == 1)
        copy_units<uint8_t>(from, in_stride, to, out_stride, count);
    else
        for (int64_t i = 0; i < count; ++i)
            std::memcpy(to + i * out_stride, from + i * in_stride, static_cast<size_t>(job.unit));
}

// A row of the output; `from` is null where it lies outside the input altogether.
void pad_row(const Job &job, const char *from, char *to) {
    const Axis &axis = job.axes[job.rank - 1];
    if (!from)
        return fill(job, to, axis.out_stride, axis.out);
    const int64_t begin = axis.begin < 0 ? 0 : (axis.begin < axis.out ? axis.begin : axis.out);
    const int64_t reach = axis.begin + axis.in;
    const int64_t end = reach < begin ? begin : (reach < axis.out ? reach : axis.out);
    auto outside = [&](int64_t first, int64_t last) {
        if (job.mode == kConstant)
            return fill(job, to + first * axis.out_stride, axis.out_stride, last - first);
        for (int64_t i = first; i < last; ++i)
            copy_run(job, from + source_of(axis, i, job.mode) * axis.in_stride, job.unit, to + i * axis.out_stride,
                     job.unit, 1);
    };
    outside(0, begin);
    if (end > begin)
        copy_run(job, from + (begin - axis.begin) * axis.in_stride, axis.in_stride, to + begin * axis.out_stride,
                 axis.out_stride, end - begin);
    outside(end, axis.out);
}

Message check(const Step &step) {
    if (step.inputs < 1 || step.inputs > 2 || step.outputs != 1 || !step.in[0].present() || !step.out[0].present())
        return fail("takes an input, perhaps a value, and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &value = step.input(1), &out = step.out[0];
    const PadParams params = step.as<PadParams>();
    if (in.pending() || in.dtype != out.dtype || in.rank != out.rank || in.layout != out.layout)
        return "the input is pending, or differs from the output in dtype, rank or layout";
    if (params.mode < 0 || params.mode >= kModes)
        return fail("there is no mode %d", params.mode);
    if (value.present() && (value.dtype != in.dtype || value.count() != 1 || value.layout != VOXELRT_LINEAR))
        return "the value is not one element of the input's dtype";
    for (int i = 0; i < in.rank; ++i) {
        if (params.begin[i] > kMostPadding || params.begin[i] < -kMostPadding || out.dims[i] > kMostPadding ||
            in.dims[i] > kMostPadding)
            return fail("axis %d is padded too far", i);
        if (params.mode != kConstant && in.dims[i] == 0 && out.dims[i] > 0)
            return fail("axis %d is empty", i);
    }
    if (in.layout == VOXELRT_BLOCKED16) {
        if (in.dtype != VOXELRT_F32 || value.present())
            return "a blocked volume is float32 and padded with zeros";
        for (int i = 0; i < 2; ++i)
            if (params.begin[i] != 0 || in.dims[i] != out.dims[i])
                return "a blocked volume is padded in space";
    }
    return nullptr;
}

Message run(const Step &step, const Env &env) {
    const Tensor &in = step.in[0], &value = step.input(1), &out = step.out[0];
    Job job = job_of(step);
    int64_t rows = 1;
    for (int i = 0; i < job.rank - 1; ++i)
        rows *= job.axes[i].out;
    if (out.count() == 0)
        return nullptr;
    if (value.present())
        std::memcpy(job.value, value.data, static_cast<size_t>(job.width));
    bool empty = false; // nothing of the input is seen
    for (int i = 0; i < job.rank; ++i)
        empty = empty || job.axes[i].in == 0;
    const int64_t row_bytes = job.axes[job.rank - 1].out * job.unit;
    env.parallel_range(rows, 1 + kTaskBytes / (row_bytes + 1), [&](int64_t begin, int64_t end, uint32_t) {
        for (int64_t row = begin; row < end; ++row) {
            const char *from = empty ? nullptr : in.data;
            char *to = out.data;
            int64_t rest = row;
            for (int i = job.rank - 2; i >= 0; --i) {
                const Axis &axis = job.axes[i];
                const int64_t index = rest % axis.out;
                rest /= axis.out;
                to += index * axis.out_stride;
                const int64_t source = from ? source_of(axis, index, job.mode) : -1;
                from = source < 0 ? nullptr : from + source * axis.in_stride;
            }
            pad_row(job, from, to);
        }
    });
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(pad, {{"pad", 1, PadParamsText, sizeof(PadParams), check, run, nullptr, nullptr, nullptr}})
