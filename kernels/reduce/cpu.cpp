// reduce: sums, products, extrema and norms over any axes; reduce.arg, where an extremum is; reduce.cumsum.
//
// Two ways through memory: along a result's own elements where they lie together ("rows"), or a block of results at a
// time, element after element ("columns"). Floating point is summed in double. Long sums are cut into pieces whose
// number depends on the length alone, so results do not depend on threads or on the batch.
#include "geometry.h"
#include "joins.h"

#include <type_traits>

namespace voxelrt::VOXELRT_ISA {
namespace {

#define REDUCE_PARAMS(S, A) S(i32, op)
VOXELRT_PARAMS(ReduceParams, REDUCE_PARAMS)
#define ARG_PARAMS(S, A) S(i32, axis) S(i32, smallest) S(i32, last)
VOXELRT_PARAMS(ArgParams, ARG_PARAMS)
#define CUMSUM_PARAMS(S, A) S(i32, axis) S(i32, exclusive) S(i32, reverse)
VOXELRT_PARAMS(CumsumParams, CUMSUM_PARAMS)

constexpr int64_t kPiece = 65536; // elements of a result that are reduced by one task
constexpr int64_t kMostPieces = 64;
constexpr int64_t kFew = 32; // fewer elements than this a result are reduced in columns

// ---- one step ----

// What a piece of a result came to: the sum; for log-sum-exp, the sum of exp(x - largest) and the largest.
template <class A> struct Partial {
    A value, largest;
};

template <class A> A finite_or_zero(A x) {
    return x - x == A(0) ? x : A(0);
}

template <class A> Partial<A> merge(int op, const Partial<A> &a, const Partial<A> &b) {
    if (op != kLogSumExp)
        return {merged(op, a.value, b.value), A(0)};
    if constexpr (A(0.5) != A(0)) {
        const A largest = larger(a.largest, b.largest), s = finite_or_zero(largest);
        const A left = a.value * __builtin_exp(finite_or_zero(a.largest) - s);
        const A right = b.value * __builtin_exp(finite_or_zero(b.largest) - s);
        return {left + right, largest};
    }
    return a;
}

template <class A> A finished(int op, const Partial<A> &partial, int64_t count) {
    if constexpr (A(0.5) != A(0)) {
        switch (op) {
        case kMean:
            return partial.value / static_cast<A>(count);
        case kL2:
            return __builtin_sqrt(partial.value);
        case kLogSum:
            return __builtin_log(partial.value);
        case kLogSumExp:
            return __builtin_log(partial.value) + finite_or_zero(partial.largest);
        default:
            return partial.value;
        }
    } else {
        switch (op) {
        case kMean:
            return count == 0 ? A(0) : partial.value / static_cast<A>(count);
        case kL2:
            return static_cast<A>(__builtin_sqrt(static_cast<double>(partial.value)));
        default:
            return partial.value;
        }
    }
}

int64_t pieces_of(int64_t count) {
    const int64_t pieces = (count + kPiece - 1) / kPiece;
    return pieces < 1 ? 1 : (pieces > kMostPieces ? kMostPieces : pieces);
}

bool by_rows(const Geometry &g) {
    const int64_t gone = g.gone.strides[0][g.gone.rank - 1], kept = g.kept.strides[0][g.kept.rank - 1];
    const int64_t a = gone < 0 ? -gone : gone, b = kept < 0 ? -kept : kept;
    return g.count >= kFew && (b == 0 || a <= b);
}

template <class T> struct Reducer {
    using A = AccumulatorOf<T>;
    const Geometry &g;
    Elements in;
    int op;

    // The partials of results [first, first + count) over elements [begin, end) of the axes that go.
    void columns(int64_t first, int64_t count, int64_t begin, int64_t end, Partial<A> *partials) const {
        alignas(64) A values[kBlockOfResults], largest[kBlockOfResults] = {};
        alignas(64) T buffer[kBlockOfResults];
        auto pass = [&](const Loops<T> &loops, A start) {
            for (int64_t i = 0; i < count; ++i)
                values[i] = start;
            for_gone(g, begin, end, [&](int64_t offset) {
                const Elements at{in.data + offset * bytes_of(in.dtype), in.dtype};
                loops.column(values, static_cast<const T *>(load(at, g.kept, 0, first, count, buffer)), count, largest);
            });
        };
        if (op == kLogSumExp) {
            pass(loops_of<T>(kMax), least<A>());
            A maxima[kBlockOfResults];
            for (int64_t i = 0; i < count; ++i) {
                maxima[i] = values[i];
                largest[i] = finite_or_zero(values[i]);
            }
            pass(loops_of<T>(op), A(0));
            for (int64_t i = 0; i < count; ++i)
                partials[i] = {values[i], maxima[i]};
            return;
        }
        pass(loops_of<T>(op), first_value<A>(op));
        for (int64_t i = 0; i < count; ++i)
            partials[i] = {values[i], A(0)};
    }

    Partial<A> row(int64_t offset, int64_t begin, int64_t end) const {
        const Elements at{in.data + offset * bytes_of(in.dtype), in.dtype};
        alignas(64) T buffer[kChunk];
        auto pass = [&](const Loops<T> &loops, A start, A s) {
            alignas(64) A lanes[kLanes];
            for (A &lane : lanes)
                lane = start;
            for (int64_t i = begin; i < end; i += kChunk) {
                const int64_t count = i + kChunk < end ? kChunk : end - i;
                loops.row(lanes, static_cast<const T *>(load(at, g.gone, 0, i, count, buffer)), count, s);
            }
            return loops.gathered(lanes);
        };
        if (op != kLogSumExp)
            return {pass(loops_of<T>(op), first_value<A>(op), A(0)), A(0)};
        const A largest = pass(loops_of<T>(kMax), least<A>(), A(0));
        return {pass(loops_of<T>(op), A(0), finite_or_zero(largest)), largest};
    }

    void rows(int64_t first, int64_t count, int64_t begin, int64_t end, Partial<A> *partials) const {
        const int64_t stride = g.kept.strides[0][g.kept.rank - 1];
        for_pieces(g.kept, 0, first, count, [&](int64_t offset, int64_t at, int64_t length) {
            for (int64_t i = 0; i < length; ++i)
                partials[at + i] = row(offset + i * stride, begin, end);
        });
    }
};

// The extremum of no integers at all: the dtype's own limit, from the other side.
int64_t limit_of(int dtype, bool smallest) {
    const int bits = 8 * bytes_of(dtype);
    switch (dtype) {
    case VOXELRT_BOOL:
        return smallest ? 0 : 1;
    case VOXELRT_U8:
    case VOXELRT_U16:
    case VOXELRT_U32:
        return smallest ? 0 : (int64_t(1) << bits) - 1;
    default:
        return smallest ? INT64_MIN >> (64 - bits) : INT64_MAX >> (64 - bits);
    }
}

template <class T>
void store_results(const Step &step, const Geometry &g, int64_t first, int64_t count,
                   const Partial<AccumulatorOf<T>> *partials) {
    const int op = step.as<ReduceParams>().op;
    const Elements out{step.out[0].data, step.out[0].dtype};
    alignas(64) T buffer[kBlockOfResults];
    T *values = static_cast<T *>(target(out, g.kept, 1, first, buffer));
    for (int64_t i = 0; i < count; ++i)
        values[i] = static_cast<T>(finished(op, partials[i], g.count));
    if (g.count == 0 && (op == kMax || op == kMin) && std::is_same_v<T, int64_t>)
        for (int64_t i = 0; i < count; ++i)
            values[i] = static_cast<T>(limit_of(out.dtype, op == kMax));
    store(values, out, g.kept, 1, first, count);
}

template <class T> void reduce(const Step &step, const Geometry &g, const Env &env) {
    using A = AccumulatorOf<T>;
    const int op = step.as<ReduceParams>().op;
    const Reducer<T> reducer{g, {step.in[0].data, step.in[0].dtype}, op};
    const bool rows = by_rows(g);
    const int64_t results = g.kept.count(), pieces = pieces_of(g.count), size = (g.count + pieces - 1) / pieces;
    // Tasks of rows hold fewer results the longer these are; that changes no result.
    int64_t block = kBlockOfResults;
    while (rows && block > 1 && block * (g.count / pieces) > kPiece)
        block /= 2;
    const int64_t blocks = (results + block - 1) / block;
    Partial<A> *partials = reinterpret_cast<Partial<A> *>(env.scratch); // (piece, result); unused for one piece
    env.parallel(blocks * pieces, [&](int64_t task, uint32_t) {
        const int64_t piece = task % pieces, first = task / pieces * block;
        const int64_t count = first + block < results ? block : results - first;
        const int64_t begin = piece * size < g.count ? piece * size : g.count;
        const int64_t end = begin + size < g.count ? begin + size : g.count;
        Partial<A> own[kBlockOfResults];
        Partial<A> *to = pieces > 1 ? partials + piece * results + first : own;
        if (rows)
            reducer.rows(first, count, begin, end, to);
        else
            reducer.columns(first, count, begin, end, to);
        if (pieces == 1)
            store_results<T>(step, g, first, count, own);
    });
    if (pieces == 1)
        return;
    env.parallel_range(results, kBlockOfResults, [&](int64_t first, int64_t end, uint32_t) {
        Partial<A> whole[kBlockOfResults];
        for (int64_t i = first; i < end; ++i) {
            whole[i - first] = partials[i];
            for (int64_t piece = 1; piece < pieces; ++piece)
                whole[i - first] = merge(op, whole[i - first], partials[piece * results + i]);
        }
        store_results<T>(step, g, first, end - first, whole);
    });
}

Message check(const Step &step) {
    if (Message message = check_reduction(step, true))
        return message;
    const int op = step.as<ReduceParams>().op;
    if (op < 0 || op >= kOps)
        return fail("there is no reduction %d", op);
    if ((op == kLogSum || op == kLogSumExp) && !is_float(step.in[0].dtype))
        return "logarithms of sums are of floating point";
    if (step.in[0].dtype == VOXELRT_BOOL && op != kMax && op != kMin)
        return "bool has no sums; cast it";
    return nullptr;
}

uint64_t scratch(const Step &step, uint32_t) {
    const Geometry g = geometry_of(step.in[0], step.out[0]);
    const int64_t pieces = pieces_of(g.count);
    return pieces > 1 ? static_cast<uint64_t>(pieces * g.kept.count()) * sizeof(Partial<double>) : 0;
}

Message run(const Step &step, const Env &env) {
    if (step.out[0].count() == 0)
        return nullptr;
    const Geometry g = geometry_of(step.in[0], step.out[0]);
    with_compute(compute_of(step.in[0].dtype), [&](auto tag) { reduce<decltype(tag)>(step, g, env); });
    clear_tail(step.out[0], env);
    return nullptr;
}

// ---- where an extremum is ----

Message check_axis(const Step &step, int axis) {
    const Tensor &in = step.in[0], &out = step.out[0];
    if (axis < 0 || axis >= in.rank)
        return fail("there is no axis %d", axis);
    for (int i = 0; i < in.rank; ++i)
        if (i != axis && in.dims[i] != out.dims[i])
            return fail("axis %d of the output has %lld elements", i, static_cast<long long>(out.dims[i]));
    return nullptr;
}

Message check_arg(const Step &step) {
    if (Message message = check_reduction(step, false))
        return message;
    const ArgParams params = step.as<ArgParams>();
    if (Message message = check_axis(step, params.axis))
        return message;
    if (step.out[0].dtype != VOXELRT_I64 || step.out[0].dims[params.axis] != 1)
        return "gives one int64 of each line";
    const int64_t length = step.in[0].dims[params.axis];
    return length > 0 && length <= INT32_MAX ? nullptr : "an axis of no elements, or of too many";
}

// Of equal ones the first, or the last; a NaN is taken for the extremum, as in NumPy.
template <class T> struct Arg {
    using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>; // as wide as T: both fill the same vectors
    using A = AccumulatorOf<T>;
    const ArgParams params;

    VOXELRT_MEMBER bool takes(T x, T best, bool smallest, bool last) {
        const bool nan = x != x, best_nan = best != best;
        const bool beats = smallest ? x < best : x > best;
        return (((beats | nan) & !best_nan)) | (last & ((x == best) | (nan & best_nan)));
    }

    template <bool smallest, bool last> static void column(T *best, Index *where, const T *x, int64_t n, Index index) {
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < n; ++i) {
            const bool taken = takes(x[i], best[i], smallest, last);
            best[i] = taken ? x[i] : best[i];
            where[i] = taken ? index : where[i];
        }
    }

    void columns(const Geometry &g, const Elements &in, int64_t first, int64_t count, int64_t *result) const {
        alignas(64) T best[kBlockOfResults], buffer[kBlockOfResults];
        alignas(64) Index where[kBlockOfResults] = {};
        auto step = params.smallest ? (params.last ? column<true, true> : column<true, false>)
                                    : (params.last ? column<false, true> : column<false, false>);
        Index index = 0;
        for_gone(g, 0, g.count, [&](int64_t offset) {
            const Elements at{in.data + offset * bytes_of(in.dtype), in.dtype};
            const T *x = static_cast<const T *>(load(at, g.kept, 0, first, count, buffer));
            if (index == 0)
                std::memcpy(best, x, static_cast<size_t>(count) * sizeof(T));
            else
                step(best, where, x, count, index);
            ++index;
        });
        for (int64_t i = 0; i < count; ++i)
            result[i] = where[i];
    }

    // The extremum of each chunk, and its place where it is a new one.
    int64_t row(const Geometry &g, const Elements &in) const {
        alignas(64) T buffer[kChunk];
        const bool smallest = params.smallest != 0, last = params.last != 0;
        const int op = smallest ? kMin : kMax;
        const Loops<T> loops = loops_of<T>(op);
        T best = T(0);
        int64_t where = 0;
        for (int64_t begin = 0; begin < g.count; begin += kChunk) {
            const int64_t count = begin + kChunk < g.count ? kChunk : g.count - begin;
            const T *x = static_cast<const T *>(load(in, g.gone, 0, begin, count, buffer));
            alignas(64) A lanes[kLanes];
            for (A &lane : lanes)
                lane = first_value<A>(op);
            loops.row(lanes, x, count, A(0));
            const T here = static_cast<T>(loops.gathered(lanes));
            if (begin > 0 && !takes(here, best, smallest, last))
                continue;
            best = here;
            int64_t i = last ? count - 1 : 0;
            while (!((x[i] == here) | ((x[i] != x[i]) & (here != here))))
                i += last ? -1 : 1;
            where = begin + i;
        }
        return where;
    }
};

Message run_arg(const Step &step, const Env &env) {
    const Tensor &in = step.in[0], &out = step.out[0];
    const Geometry g = geometry_of(in, out);
    const Elements from{in.data, in.dtype}, to{out.data, out.dtype};
    with_compute(compute_of(in.dtype), [&](auto tag) {
        using T = decltype(tag);
        const Arg<T> arg{step.as<ArgParams>()};
        env.parallel_range(out.count(), kBlockOfResults, [&](int64_t first, int64_t end, uint32_t) {
            alignas(64) int64_t result[kBlockOfResults];
            const int64_t stride = g.kept.strides[0][g.kept.rank - 1];
            if (by_rows(g))
                for_pieces(g.kept, 0, first, end - first, [&](int64_t offset, int64_t at, int64_t length) {
                    for (int64_t i = 0; i < length; ++i)
                        result[at + i] = arg.row(g, {from.data + (offset + i * stride) * bytes_of(in.dtype), in.dtype});
                });
            else
                arg.columns(g, from, first, end - first, result);
            int64_t *values = static_cast<int64_t *>(target(to, g.kept, 1, first, result));
            if (values != result)
                std::memcpy(values, result, static_cast<size_t>(end - first) * sizeof(int64_t));
            store(result, to, g.kept, 1, first, end - first);
        });
    });
    return nullptr;
}

// ---- running sums ----

Message check_cumsum(const Step &step) {
    if (Message message = check_reduction(step, true))
        return message;
    const Tensor &in = step.in[0], &out = step.out[0];
    const int axis = step.as<CumsumParams>().axis;
    if (in.layout != VOXELRT_LINEAR || in.dtype == VOXELRT_BOOL)
        return "takes a linear tensor of numbers";
    if (Message message = check_axis(step, axis))
        return message;
    return in.dims[axis] == out.dims[axis] ? nullptr : "input and output differ in shape";
}

// A block of lines side by side, element after element.
template <class T>
void sum_block(const Elements &in, const Elements &out, const Loop &lines, const Loop &line, bool exclusive,
               int64_t first, int64_t count) {
    using A = AccumulatorOf<T>;
    alignas(64) A sums[kBlockOfResults] = {};
    alignas(64) T buffer[kBlockOfResults], result[kBlockOfResults];
    for (int64_t j = 0; j < line.dims[0]; ++j) {
        const Elements from{in.data + j * line.strides[0][0] * bytes_of(in.dtype), in.dtype};
        const Elements to{out.data + j * line.strides[1][0] * bytes_of(out.dtype), out.dtype};
        const T *x = static_cast<const T *>(load(from, lines, 0, first, count, buffer));
        T *y = static_cast<T *>(target(to, lines, 1, first, result));
        for (int64_t i = 0; i < count; ++i) {
            const A before = sums[i];
            sums[i] = wrap_add(before, static_cast<A>(x[i]));
            y[i] = static_cast<T>(exclusive ? before : sums[i]);
        }
        store(y, to, lines, 1, first, count);
    }
}

template <class T> void sum_line(const Elements &in, const Elements &out, const Loop &line, bool exclusive) {
    using A = AccumulatorOf<T>;
    A sum = A(0);
    alignas(64) T buffer[kChunk], result[kChunk];
    for (int64_t first = 0; first < line.dims[0]; first += kChunk) {
        const int64_t count = first + kChunk < line.dims[0] ? kChunk : line.dims[0] - first;
        const T *x = static_cast<const T *>(load(in, line, 0, first, count, buffer));
        T *y = static_cast<T *>(target(out, line, 1, first, result));
        for (int64_t i = 0; i < count; ++i) {
            const A before = sum;
            sum = wrap_add(before, static_cast<A>(x[i]));
            y[i] = static_cast<T>(exclusive ? before : sum);
        }
        store(y, out, line, 1, first, count);
    }
}

Message run_cumsum(const Step &step, const Env &env) {
    const CumsumParams params = step.as<CumsumParams>();
    const Tensor &in = step.in[0], &out = step.out[0];
    if (in.count() == 0)
        return nullptr;
    Loop lines, line; // operand 0: the input, operand 1: the output
    lines.operands = line.operands = 2;
    for (int i = 0; i < in.rank; ++i) {
        const int64_t steps[2] = {in.strides[i], out.strides[i]};
        if (i != params.axis)
            lines.add(in.dims[i], steps);
    }
    lines.finish();
    const int64_t bytes = bytes_of(in.dtype), length = in.dims[params.axis], sign = params.reverse ? -1 : 1;
    const int64_t a = in.strides[params.axis], b = out.strides[params.axis], last = params.reverse ? length - 1 : 0;
    const int64_t steps[2] = {a * sign, b * sign};
    line.add(length, steps);
    line.finish();
    const Elements from{in.data + last * a * bytes, in.dtype}, to{out.data + last * b * bytes, out.dtype};
    const bool alone = ((a == 1 || a == -1) && length >= kFew) || lines.count() < kFew;
    with_compute(compute_of(in.dtype), [&](auto tag) {
        using T = decltype(tag);
        env.parallel_range(lines.count(), alone ? 16 : kBlockOfResults, [&](int64_t first, int64_t end, uint32_t) {
            if (!alone)
                return sum_block<T>(from, to, lines, line, params.exclusive, first, end - first);
            for (int64_t i = first; i < end; ++i) {
                int64_t offset[2] = {};
                for (int k = 0; k < 2; ++k)
                    for_pieces(lines, k, i, 1, [&](int64_t at, int64_t, int64_t) { offset[k] = at; });
                sum_line<T>({from.data + offset[0] * bytes, from.dtype}, {to.data + offset[1] * bytes, to.dtype}, line,
                            params.exclusive);
            }
        });
    });
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(reduce,
                {{"reduce", 1, ReduceParamsText, sizeof(ReduceParams), check, run, scratch, nullptr, nullptr},
                 {"reduce.arg", 1, ArgParamsText, sizeof(ArgParams), check_arg, run_arg, nullptr, nullptr, nullptr},
                 {"reduce.cumsum", 1, CumsumParamsText, sizeof(CumsumParams), check_cumsum, run_cumsum, nullptr,
                  nullptr, nullptr}})
