// elementwise: unary and binary functions, where and cast, on any dtype with broadcasting. Tensors are cut into
// chunks that are converted to the compute type, worked on by one of the loops of unary.h and binary.h, and
// converted back; float32 and float64 without gaps are worked on where they lie.
#include "binary.h"
#include "runs.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

#define UNARY_PARAMS(S, A) S(i32, op) S(f64, alpha) S(f64, beta)
VOXELRT_PARAMS(UnaryParams, UNARY_PARAMS)
// `post` is a unary function applied to the result (0, Identity, for none).
#define BINARY_PARAMS(S, A) S(i32, op) S(i32, post) S(f64, alpha) S(f64, beta)
VOXELRT_PARAMS(BinaryParams, BINARY_PARAMS)
#define NO_PARAMS(S, A) S(i32, reserved)
VOXELRT_PARAMS(NoParams, NO_PARAMS)

// ---- chunks in a compute type ----

template <class T> constexpr Compute kCompute = Compute::f32;
template <> constexpr Compute kCompute<double> = Compute::f64;
template <> constexpr Compute kCompute<int64_t> = Compute::i64;
template <> constexpr Compute kCompute<uint64_t> = Compute::u64;

template <class T> using Buffer = T[kChunk];

// x -> leaky(x * scale + shift) on a chunk that starts with lane 0.
static const float *apply_pending(const float *from, const Affine16 &affine, int64_t count, float *buffer) {
    const float slope = affine.slope;
    for (int64_t i = 0; i < count; i += kBlock) {
        VOXELRT_INDEPENDENT
        for (int lane = 0; lane < kBlock; ++lane) {
            const float y = from[i + lane] * affine.scale[lane] + affine.shift[lane];
            buffer[i + lane] = y >= 0 ? y : y * slope;
        }
    }
    return buffer;
}

template <class From, class To> VOXELRT_INLINE To convert(From x) {
    if constexpr (From(0.5) != From(0) && To(0.5) == To(0)) { // truncated; what does not fit gives the smallest int64
        if constexpr (To(-1) > To(0))
            if (x >= From(9223372036854775808.0) && x < From(18446744073709551616.0))
                return static_cast<To>(x);
        const bool fits = x >= From(-9223372036854775808.0) && x < From(9223372036854775808.0);
        return static_cast<To>(fits ? static_cast<int64_t>(x) : INT64_MIN);
    } else
        return static_cast<To>(x);
}

template <class From, class To> static void convert_run(const From *from, To *to, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
        to[i] = convert<From, To>(from[i]);
}

// Operand k as T: loaded in its natural type and converted where that is another.
template <class T>
static const T *load_as(const Job &job, int k, const Affine16 *const *pending, int64_t start, int64_t count,
                        Buffer<T> &buffer) {
    const Elements &from = job.operands[k];
    const Compute natural = compute_of(from.dtype);
    if (natural == kCompute<T>) {
        const T *loaded = static_cast<const T *>(load(from, job.loop, k, start, count, buffer));
        if constexpr (std::is_same_v<T, float>)
            if (pending && pending[k])
                return apply_pending(loaded, *pending[k], count, buffer);
        return loaded;
    }
    alignas(64) Buffer<int64_t> other;
    const void *loaded = load(from, job.loop, k, start, count, other);
    with_compute(natural, [&](auto tag) {
        using From = decltype(tag);
        if constexpr (!std::is_same_v<From, T>)
            convert_run<From, T>(static_cast<const From *>(loaded), buffer, count);
    });
    return buffer;
}

// Stores T into a dtype: bool by "is it not zero", others converted to their natural type. Rounds once.
template <class T> static void store_as(const T *values, const Job &job, int64_t start, int64_t count) {
    const Elements &to = job.operands[0];
    const Compute natural = compute_of(to.dtype);
    if (natural == kCompute<T>)
        return store(values, to, job.loop, 0, start, count);
    alignas(64) Buffer<int64_t> other;
    if (to.dtype == VOXELRT_BOOL) {
        for (int64_t i = 0; i < count; ++i)
            other[i] = values[i] != T(0);
    } else if (std::is_same_v<T, double> && (to.dtype == VOXELRT_F16 || to.dtype == VOXELRT_BF16)) {
        for (int64_t i = 0; i < count; ++i)
            reinterpret_cast<float *>(other)[i] = odd_float(static_cast<double>(values[i]));
    } else
        with_compute(natural, [&](auto tag) {
            using To = decltype(tag);
            if constexpr (!std::is_same_v<To, T>)
                convert_run<T, To>(values, reinterpret_cast<To *>(other), count);
        });
    if (job.loop.dense(0) && bytes_of(to.dtype) == bytes_of(natural))
        std::memcpy(to.data + start * bytes_of(to.dtype), other, static_cast<size_t>(count * bytes_of(to.dtype)));
    else
        store(other, to, job.loop, 0, start, count);
}

template <class T> static T *target_as(const Job &job, int64_t start, Buffer<T> &buffer) {
    return compute_of(job.operands[0].dtype) == kCompute<T>
               ? static_cast<T *>(target(job.operands[0], job.loop, 0, start, buffer))
               : buffer;
}

template <class T> struct UnaryChunk {
    UnaryFunction<T> function;
    Scalars<T> scalars;
    static void run(const Function &f, const Job &job, const Affine16 *const *pending, int64_t start, int64_t count) {
        const UnaryChunk &self = *static_cast<const UnaryChunk *>(f.params);
        alignas(64) Buffer<T> in, out;
        const T *x = load_as<T>(job, 1, pending, start, count, in);
        T *y = target_as<T>(job, start, out);
        self.function(x, y, count, self.scalars);
        store_as<T>(y, job, start, count);
    }
};

template <class T> struct BinaryChunk {
    BinaryFunction<T> function;
    UnaryFunction<T> post; // or null
    Scalars<T> scalars;
    static void run(const Function &f, const Job &job, const Affine16 *const *pending, int64_t start, int64_t count) {
        const BinaryChunk &self = *static_cast<const BinaryChunk *>(f.params);
        alignas(64) Buffer<T> first, second, out;
        const T *x = load_as<T>(job, 1, pending, start, count, first);
        const T *y = load_as<T>(job, 2, pending, start, count, second);
        T *z = target_as<T>(job, start, out);
        self.function(x, y, z, count);
        if (self.post)
            self.post(z, z, count, self.scalars);
        store_as<T>(z, job, start, count);
    }
};

// ---- unary ----

static bool unary_exists(Compute compute, int op) {
    bool exists = false;
    with_compute(compute, [&](auto tag) { exists = unary_function<decltype(tag)>(op) != nullptr; });
    return exists;
}

static Message check_unary(const Step &step) {
    if (Message message = check_operands(step, 1))
        return message;
    const int op = step.as<UnaryParams>().op, in = step.in[0].dtype, out = step.out[0].dtype;
    if (!unary_exists(compute_of(in), op))
        return fail("there is no function %d of dtype %d", op, in);
    const bool asks = op == static_cast<int>(Unary::IsNaN) || op == static_cast<int>(Unary::IsInf);
    if (out != (asks ? VOXELRT_BOOL : in))
        return fail("function %d of dtype %d does not give dtype %d", op, in, out);
    return nullptr;
}

static Message run_unary(const Step &step, const Env &env) {
    const UnaryParams params = step.as<UnaryParams>();
    with_compute(compute_of(step.in[0].dtype), [&](auto tag) {
        using T = decltype(tag);
        const UnaryChunk<T> chunk{unary_function<T>(params.op),
                                  {scalar_of<T>(params.alpha), scalar_of<T>(params.beta)}};
        run_function(step, {UnaryChunk<T>::run, &chunk, step.out[0].dtype == step.in[0].dtype}, env);
    });
    return nullptr;
}

// ---- binary ----

// Mixed dtypes occur in Pow only: integers to a floating power are computed in double.
static Compute binary_compute(const Step &step) {
    const Compute compute = compute_of(step.in[0].dtype);
    return !is_float(step.in[0].dtype) && is_float(step.in[1].dtype) ? Compute::f64 : compute;
}

static bool compares(int op) {
    return op >= static_cast<int>(Binary::And) && op <= static_cast<int>(Binary::LessOrEqual);
}

static Message check_binary(const Step &step) {
    if (Message message = check_operands(step, 2))
        return message;
    const BinaryParams params = step.as<BinaryParams>();
    const Compute compute = binary_compute(step);
    bool exists = false;
    with_compute(compute, [&](auto tag) { exists = binary_function<decltype(tag)>(params.op) != nullptr; });
    if (!exists || !unary_exists(compute, params.post))
        return fail("there are no functions %d and %d of dtype %d", params.op, params.post, step.in[0].dtype);
    if (step.in[0].dtype != step.in[1].dtype && params.op != static_cast<int>(Binary::Pow))
        return fail("the inputs have the dtypes %d and %d", step.in[0].dtype, step.in[1].dtype);
    if (step.out[0].dtype != (compares(params.op) ? uint8_t(VOXELRT_BOOL) : step.in[0].dtype))
        return fail("function %d of dtype %d does not give dtype %d", params.op, step.in[0].dtype, step.out[0].dtype);
    return nullptr;
}

static Message run_binary(const Step &step, const Env &env) {
    const BinaryParams params = step.as<BinaryParams>();
    const bool direct = step.in[0].dtype == step.in[1].dtype && step.out[0].dtype == step.in[0].dtype;
    with_compute(binary_compute(step), [&](auto tag) {
        using T = decltype(tag);
        const BinaryChunk<T> chunk{binary_function<T>(params.op),
                                   params.post ? unary_function<T>(params.post) : nullptr,
                                   {scalar_of<T>(params.alpha), scalar_of<T>(params.beta)}};
        run_function(step, {BinaryChunk<T>::run, &chunk, direct}, env);
    });
    return nullptr;
}

// ---- cast ----

static Message check_cast(const Step &step) {
    if (Message message = check_operands(step, 1))
        return message;
    return step.out[0].layout == VOXELRT_LINEAR && !step.in[0].pending() ? nullptr : "takes linear tensors";
}

template <class T> struct CastChunk {
    static void run(const Function &, const Job &job, const Affine16 *const *, int64_t start, int64_t count) {
        alignas(64) Buffer<T> in;
        const T *x = load_as<T>(job, 1, nullptr, start, count, in);
        const Elements &to = job.operands[0];
        if (compute_of(to.dtype) == kCompute<T> && job.loop.dense(0) &&
            bytes_of(to.dtype) == static_cast<int>(sizeof(T)))
            std::memmove(to.data + start * static_cast<int64_t>(sizeof(T)), x, static_cast<size_t>(count) * sizeof(T));
        else
            store_as<T>(x, job, start, count);
    }
};

static Message run_cast(const Step &step, const Env &env) {
    with_compute(compute_of(step.in[0].dtype),
                 [&](auto tag) { run_function(step, {CastChunk<decltype(tag)>::run, nullptr, false}, env); });
    return nullptr;
}

// ---- where ----

static Message check_where(const Step &step) {
    if (Message message = check_operands(step, 3))
        return message;
    if (step.out[0].layout != VOXELRT_LINEAR)
        return "takes linear tensors";
    if (step.in[0].dtype != VOXELRT_BOOL || step.in[1].dtype != step.out[0].dtype ||
        step.in[2].dtype != step.out[0].dtype)
        return "takes a bool and two inputs of the output's dtype";
    return nullptr;
}

template <class T> struct WhereChunk {
    // A chunk of operand k without gaps.
    static const T *gathered(const Job &job, int k, int64_t start, int64_t count, T *buffer) {
        const T *data = reinterpret_cast<const T *>(job.operands[k].data);
        if (job.loop.dense(k))
            return data + start;
        const int64_t stride = job.loop.strides[k][job.loop.rank - 1];
        for_pieces(job.loop, k, start, count, [&](int64_t offset, int64_t at, int64_t length) {
            for (int64_t i = 0; i < length; ++i)
                buffer[at + i] = data[offset + i * stride];
        });
        return buffer;
    }
    static void run(const Function &, const Job &job, const Affine16 *const *, int64_t start, int64_t count) {
        alignas(64) T first[kChunk], second[kChunk], result[kChunk];
        uint8_t flags[kChunk];
        const uint8_t *condition = WhereChunk<uint8_t>::gathered(job, 1, start, count, flags);
        const T *x = gathered(job, 2, start, count, first), *y = gathered(job, 3, start, count, second);
        T *data = reinterpret_cast<T *>(job.operands[0].data);
        T *out = job.loop.dense(0) ? data + start : result;
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < count; ++i)
            out[i] = condition[i] ? x[i] : y[i];
        if (out != result)
            return;
        const int64_t stride = job.loop.strides[0][job.loop.rank - 1];
        for_pieces(job.loop, 0, start, count, [&](int64_t offset, int64_t at, int64_t length) {
            for (int64_t i = 0; i < length; ++i)
                data[offset + i * stride] = result[at + i];
        });
    }
};

static Message run_where(const Step &step, const Env &env) {
    switch (bytes_of(step.out[0].dtype)) {
    case 8:
        return run_function(step, {WhereChunk<uint64_t>::run, nullptr, false}, env);
    case 4:
        return run_function(step, {WhereChunk<uint32_t>::run, nullptr, false}, env);
    case 2:
        return run_function(step, {WhereChunk<uint16_t>::run, nullptr, false}, env);
    default:
        return run_function(step, {WhereChunk<uint8_t>::run, nullptr, false}, env);
    }
}

// ---- require ----

#define REQUIRE_PARAMS(F, A) F(i32, wanted)
VOXELRT_PARAMS(RequireParams, REQUIRE_PARAMS)

static Message check_require(const Step &step) {
    if (step.inputs != 1 || step.outputs != 0)
        return fail("takes 1 input and gives nothing, not %d and %d", step.inputs, step.outputs);
    const Tensor &condition = step.in[0];
    if (condition.dtype != VOXELRT_BOOL || condition.layout != VOXELRT_LINEAR || condition.pending() ||
        condition.count() != 1)
        return "takes one bool";
    return nullptr;
}

static Message run_require(const Step &step, const Env &) {
    const bool wanted = step.as<RequireParams>().wanted != 0, found = *step.in[0].as<const uint8_t>() != 0;
    return found == wanted ? nullptr
                           : fail("the inputs ask for the branch where the condition is %s, which cannot run on inputs "
                                  "of these shapes",
                                  found ? "true" : "false");
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(
    elementwise,
    {{"elementwise.unary", 1, UnaryParamsText, sizeof(UnaryParams), check_unary, run_unary, nullptr, nullptr, nullptr},
     {"elementwise.binary", 1, BinaryParamsText, sizeof(BinaryParams), check_binary, run_binary, nullptr, nullptr,
      nullptr},
     {"elementwise.where", 1, NoParamsText, sizeof(NoParams), check_where, run_where, nullptr, nullptr, nullptr},
     {"elementwise.require", 1, RequireParamsText, sizeof(RequireParams), check_require, run_require, nullptr, nullptr,
      nullptr},
     {"elementwise.cast", 1, NoParamsText, sizeof(NoParams), check_cast, run_cast, nullptr, nullptr, nullptr}})
