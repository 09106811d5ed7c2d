// topk: the k largest or smallest elements along an axis and their places, best first. Equal elements keep their
// order; a NaN counts as larger than every number. A heap holds the best k of a line, its worst one at the root.
#include "elements.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

#define TOPK_PARAMS(S, A) S(i32, axis) S(i32, smallest)
VOXELRT_PARAMS(TopkParams, TOPK_PARAMS)

template <class T> struct Entry {
    T value;
    int64_t index;
};

template <class T> struct Order {
    bool smallest;
    bool larger(T a, T b) const { return a > b || (a != a && b == b); }
    bool better(const Entry<T> &a, const Entry<T> &b) const {
        const bool first = smallest ? larger(b.value, a.value) : larger(a.value, b.value);
        const bool second = smallest ? larger(a.value, b.value) : larger(b.value, a.value);
        return first || (!second && a.index < b.index);
    }
};

// Moves the entry at `at` down until no child is worse.
template <class T> void sink(const Order<T> &order, Entry<T> *heap, int64_t at, int64_t size) {
    const Entry<T> entry = heap[at];
    for (int64_t child = 2 * at + 1; child < size; child = 2 * at + 1) {
        if (child + 1 < size && order.better(heap[child], heap[child + 1]))
            ++child;
        if (!order.better(entry, heap[child]))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = entry;
}

// Leaves the best k of a line in `heap`, best first.
template <class T>
void select(const Order<T> &order, const Elements &line, const Loop &axis, Entry<T> *heap, int64_t k) {
    alignas(64) T buffer[kChunk];
    const int64_t length = axis.dims[0];
    int64_t held = 0;
    for (int64_t begin = 0; begin < length; begin += kChunk) {
        const int64_t count = begin + kChunk < length ? kChunk : length - begin;
        const T *x = static_cast<const T *>(load(line, axis, 0, begin, count, buffer));
        for (int64_t i = 0; i < count; ++i) {
            const Entry<T> entry{x[i], begin + i};
            if (held < k) {
                heap[held++] = entry;
                if (held == k)
                    for (int64_t at = k / 2 - 1; at >= 0; --at)
                        sink(order, heap, at, k);
            } else if (order.better(entry, heap[0])) {
                heap[0] = entry;
                sink(order, heap, 0, k);
            }
        }
    }
    for (int64_t size = k - 1; size > 0; --size) {
        const Entry<T> worst = heap[0];
        heap[0] = heap[size];
        heap[size] = worst;
        sink(order, heap, 0, size);
    }
}

uint64_t line_bytes(const Step &step) {
    const int64_t k = step.out[0].dims[step.as<TopkParams>().axis];
    return (static_cast<uint64_t>(k) * sizeof(Entry<double>) + 63) / 64 * 64;
}

uint64_t scratch(const Step &step, uint32_t threads) {
    return line_bytes(step) * threads;
}

Message check(const Step &step) {
    if (step.inputs != 1 || step.outputs != 2 || !step.in[0].present() || !step.out[0].present() ||
        !step.out[1].present())
        return fail("takes one input and two outputs, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &values = step.out[0], &places = step.out[1];
    const int axis = step.as<TopkParams>().axis;
    if (in.pending() || in.layout != VOXELRT_LINEAR || values.layout != VOXELRT_LINEAR ||
        places.layout != VOXELRT_LINEAR)
        return "takes linear tensors, nothing pending";
    if (values.dtype != in.dtype || places.dtype != VOXELRT_I64 || values.rank != in.rank || places.rank != in.rank)
        return "gives values of the input's dtype and int64 places, of its rank";
    if (axis < 0 || axis >= in.rank)
        return fail("there is no axis %d", axis);
    for (int i = 0; i < in.rank; ++i) {
        const bool fits = i == axis ? values.dims[i] <= in.dims[i] : values.dims[i] == in.dims[i];
        if (!fits || places.dims[i] != values.dims[i])
            return fail("axis %d of the outputs does not fit", i);
    }
    return nullptr;
}

Message run(const Step &step, const Env &env) {
    const TopkParams params = step.as<TopkParams>();
    const Tensor &in = step.in[0], &values = step.out[0], &places = step.out[1];
    const int64_t k = values.dims[params.axis];
    if (values.count() == 0)
        return nullptr;
    Loop lines, along; // lines: input, values, places; along: the input's axis
    lines.operands = 3;
    for (int i = 0; i < in.rank; ++i) {
        const int64_t steps[3] = {in.strides[i], values.strides[i], places.strides[i]};
        if (i != params.axis)
            lines.add(in.dims[i], steps);
    }
    lines.finish();
    along.operands = 1;
    along.add(in.dims[params.axis], &in.strides[params.axis]);
    along.finish();
    const uint64_t each = line_bytes(step);
    const int64_t value_step = values.strides[params.axis], place_step = places.strides[params.axis];
    with_storage(in.dtype, [&](auto tag) {
        using S = decltype(tag);
        using T = NaturalOf<S>;
        const Order<T> order{params.smallest != 0};
        env.parallel_range(
            lines.count(), 1 + 4096 / in.dims[params.axis], [&](int64_t begin, int64_t end, uint32_t worker) {
                Entry<T> *heap = reinterpret_cast<Entry<T> *>(env.scratch + worker * each);
                for (int64_t line = begin; line < end; ++line) {
                    int64_t offset[3] = {};
                    for (int i = 0; i < 3; ++i)
                        for_pieces(lines, i, line, 1, [&](int64_t at, int64_t, int64_t) { offset[i] = at; });
                    select(order, {in.data + offset[0] * static_cast<int64_t>(sizeof(S)), in.dtype}, along, heap, k);
                    for (int64_t i = 0; i < k; ++i) {
                        values.as<S>()[offset[1] + i * value_step] = Codec<S>::write(heap[i].value);
                        places.as<int64_t>()[offset[2] + i * place_step] = heap[i].index;
                    }
                }
            });
    });
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(topk, {{"topk", 1, TopkParamsText, sizeof(TopkParams), check, run, scratch, nullptr, nullptr}})
