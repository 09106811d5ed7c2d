// matmul: alpha · A·B + beta · C and an activation, with batches, any strides and broadcasting, in any dtype.
// matmul.integer: (A - a_zero)·(B - b_zero) of 8-bit integers in int32.
//
// B is packed into panels of a tile's columns (ahead of time where it is a weight), A slice by slice by the task that
// needs it. A task makes some rows and columns of one product in a buffer of the computed type; then the epilogue
// stores them. Every number is a sum over k ascending in slices of kSlice, whatever the shape, tiles and threads.
#include "activation.h"
#include "floats.h"
#include "matmul/product.h"

#include <cstring>

namespace voxelrt::VOXELRT_ISA {

#define MATMUL_PARAMS(S, A)                                                                                            \
    S(i32, packed)                                                                                                     \
    S(i32, transposed) S(f32, alpha) S(f32, beta) S(i32, activation) S(f32, activation_alpha) S(f32, activation_beta)
#define INTEGER_PARAMS(S, A) S(i32, reserved)
VOXELRT_PARAMS(MatmulParams, MATMUL_PARAMS)
VOXELRT_PARAMS(IntegerParams, INTEGER_PARAMS)

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
