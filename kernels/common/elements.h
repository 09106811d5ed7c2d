// Elements of any dtype. A kernel that works on all dtypes computes in one of four types (float, double, int64_t,
// uint64_t: the "natural" type of a dtype is the narrowest that holds it) on chunks of a strided tensor, so that
// neither the number of dtypes nor broadcasting multiplies its code.
#pragma once

#include "approx.h"
#include "kernel.h"

#include <cstring>

namespace voxelrt::VOXELRT_ISA {

#define VOXELRT_MEMBER __attribute__((always_inline)) static

constexpr int64_t kChunk = 512; // elements converted at a time

struct Half {
    uint16_t bits;
};
struct BFloat {
    uint16_t bits;
};
struct Bool {
    uint8_t value;
};

// ---- float16 and bfloat16, rounded to nearest even ----
VOXELRT_INLINE float half_to_float(uint16_t half) {
    const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fff) << 13;
    float value = bits_as<float>(magnitude) * bits_as<float>(0x77800000); // 2^112: the exponents' offsets differ
    uint32_t bits = bits_as<uint32_t>(value);
    bits = magnitude >= 0x0f800000u ? (magnitude | 0x7f800000u) : bits; // infinity and NaN
    return bits_as<float>(bits | static_cast<uint32_t>(half & 0x8000) << 16);
}

VOXELRT_INLINE uint16_t float_to_half(float value) {
    const uint32_t bits = bits_as<uint32_t>(value), magnitude = bits & 0x7fffffffu;
    const uint32_t sign = (bits >> 16) & 0x8000u;
    // Subnormal halves: adding 0.5 leaves the rounded number in the low bits.
    const uint32_t small = bits_as<uint32_t>(bits_as<float>(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
    uint32_t half = magnitude < 0x38800000u ? small : normal;
    half = magnitude >= 0x477ff000u ? 0x7c00u : half; // from 65520 on: infinity
    half = magnitude > 0x7f800000u ? 0x7e00u : half;
    return static_cast<uint16_t>(half | sign);
}

VOXELRT_INLINE float bfloat_to_float(uint16_t value) {
    return bits_as<float>(static_cast<uint32_t>(value) << 16);
}

VOXELRT_INLINE uint16_t float_to_bfloat(float value) {
    const uint32_t bits = bits_as<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? ((bits >> 16) | 0x40u) : rounded);
}

// The float next to `value` towards zero with its last bit set where inexact: rounding it again to fewer bits then
// gives what rounding `value` once would.
VOXELRT_INLINE float odd_float(double value) {
    const float near = static_cast<float>(value);
    const double back = static_cast<double>(near);
    const uint32_t bits = bits_as<uint32_t>(near);
    const double size = value < 0 ? -value : value, near_size = back < 0 ? -back : back;
    const uint32_t odd = (near_size > size ? bits - 1 : bits) | 1u;
    return bits_as<float>(back == value || value != value ? bits : odd);
}

// ---- storage types: how an element is read into and written from its natural type ----
template <class S> struct Natural {
    using type = int64_t;
};
template <> struct Natural<float> {
    using type = float;
};
template <> struct Natural<Half> {
    using type = float;
};
template <> struct Natural<BFloat> {
    using type = float;
};
template <> struct Natural<double> {
    using type = double;
};
template <> struct Natural<uint64_t> {
    using type = uint64_t;
};
template <class S> using NaturalOf = typename Natural<S>::type;

template <class S> struct Codec {
    VOXELRT_MEMBER NaturalOf<S> read(S value) { return static_cast<NaturalOf<S>>(value); }
    VOXELRT_MEMBER S write(NaturalOf<S> value) { return static_cast<S>(value); }
};
template <> struct Codec<Half> {
    VOXELRT_MEMBER float read(Half value) { return half_to_float(value.bits); }
    VOXELRT_MEMBER Half write(float value) { return {float_to_half(value)}; }
};
template <> struct Codec<BFloat> {
    VOXELRT_MEMBER float read(BFloat value) { return bfloat_to_float(value.bits); }
    VOXELRT_MEMBER BFloat write(float value) { return {float_to_bfloat(value)}; }
};
template <> struct Codec<Bool> {
    VOXELRT_MEMBER int64_t read(Bool value) { return value.value != 0; }
    VOXELRT_MEMBER Bool write(int64_t value) { return {static_cast<uint8_t>(value != 0)}; }
};

enum class Compute { f32, f64, i64, u64 };

static inline Compute compute_of(int dtype) {
    switch (dtype) {
    case VOXELRT_F32:
    case VOXELRT_F16:
    case VOXELRT_BF16:
        return Compute::f32;
    case VOXELRT_F64:
        return Compute::f64;
    case VOXELRT_U64:
        return Compute::u64;
    default:
        return Compute::i64;
    }
}

static inline bool is_float(int dtype) {
    return dtype == VOXELRT_F32 || dtype == VOXELRT_F64 || dtype == VOXELRT_F16 || dtype == VOXELRT_BF16;
}

static inline int bytes_of(int dtype) {
    switch (dtype) {
    case VOXELRT_F64:
    case VOXELRT_I64:
    case VOXELRT_U64:
        return 8;
    case VOXELRT_F32:
    case VOXELRT_I32:
    case VOXELRT_U32:
        return 4;
    case VOXELRT_F16:
    case VOXELRT_BF16:
    case VOXELRT_I16:
    case VOXELRT_U16:
        return 2;
    default:
        return 1;
    }
}

static inline int bytes_of(Compute compute) {
    return compute == Compute::f32 ? 4 : 8;
}

// Calls body(S{}) with the storage type of a dtype.
template <class F> static inline void with_storage(int dtype, F &&body) {
    switch (dtype) {
    case VOXELRT_F32:
        return body(float{});
    case VOXELRT_F64:
        return body(double{});
    case VOXELRT_F16:
        return body(Half{});
    case VOXELRT_BF16:
        return body(BFloat{});
    case VOXELRT_I8:
        return body(int8_t{});
    case VOXELRT_U8:
        return body(uint8_t{});
    case VOXELRT_I16:
        return body(int16_t{});
    case VOXELRT_U16:
        return body(uint16_t{});
    case VOXELRT_I32:
        return body(int32_t{});
    case VOXELRT_U32:
        return body(uint32_t{});
    case VOXELRT_I64:
        return body(int64_t{});
    case VOXELRT_U64:
        return body(uint64_t{});
    default:
        return body(Bool{});
    }
}

// Calls body(T{}) with the compute type.
template <class F> static inline void with_compute(Compute compute, F &&body) {
    switch (compute) {
    case Compute::f32:
        return body(float{});
    case Compute::f64:
        return body(double{});
    case Compute::i64:
        return body(int64_t{});
    default:
        return body(uint64_t{});
    }
}

// ---- iteration over strided operands of equal dims ----
constexpr int kMaxOperands = 4;
constexpr int kMaxAxes = VOXELRT_MAX_RANK + 1;

// Axes of a common iteration space, outermost first; neighbours that every operand walks as one are merged.
struct Loop {
    int rank = 0, operands = 0;
    int64_t dims[kMaxAxes];
    int64_t strides[kMaxOperands][kMaxAxes];

    int64_t count() const {
        int64_t n = 1;
        for (int i = 0; i < rank; ++i)
            n *= dims[i];
        return n;
    }
    // Add an axis inside those there are, with a stride for each operand.
    void add(int64_t size, const int64_t *steps) {
        if (size == 1)
            return;
        bool merge = rank > 0;
        for (int k = 0; merge && k < operands; ++k)
            merge = strides[k][rank - 1] == steps[k] * size;
        if (!merge)
            dims[rank++] = size;
        else
            dims[rank - 1] *= size;
        for (int k = 0; k < operands; ++k)
            strides[k][rank - 1] = steps[k];
    }
    void finish() {
        if (rank > 0)
            return;
        dims[0] = 1;
        rank = 1;
        for (int k = 0; k < operands; ++k)
            strides[k][0] = 0;
    }
    bool dense(int k) const { return rank == 1 && (strides[k][0] == 1 || dims[0] == 1); }
};

// Calls body(offset, at, length) for the straight pieces of operand k in the loop's elements [start, start + count):
// `offset` in elements from its data, `at` from `start`; within a piece the stride is that of the last axis.
template <class F> static inline void for_pieces(const Loop &loop, int k, int64_t start, int64_t count, F &&body) {
    if (count <= 0)
        return;
    int64_t index[kMaxAxes], offset = 0, rest = start;
    const int last = loop.rank - 1;
    for (int i = last; i >= 0; --i) {
        index[i] = rest % loop.dims[i];
        rest /= loop.dims[i];
        offset += index[i] * loop.strides[k][i];
    }
    for (int64_t at = 0; at < count;) {
        const int64_t left = loop.dims[last] - index[last];
        const int64_t length = left < count - at ? left : count - at;
        body(offset, at, length);
        at += length;
        offset -= index[last] * loop.strides[k][last];
        index[last] = 0;
        for (int i = last - 1; i >= 0; --i) {
            offset += loop.strides[k][i];
            if (++index[i] < loop.dims[i])
                break;
            offset -= loop.dims[i] * loop.strides[k][i];
            index[i] = 0;
        }
    }
}

template <class S> static inline void read_run(const S *from, int64_t stride, int64_t length, NaturalOf<S> *to) {
    if (stride == 1) {
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < length; ++i)
            to[i] = Codec<S>::read(from[i]);
    } else if (stride == 0) {
        const NaturalOf<S> value = Codec<S>::read(*from);
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < length; ++i)
            to[i] = value;
    } else {
        for (int64_t i = 0; i < length; ++i)
            to[i] = Codec<S>::read(from[i * stride]);
    }
}

template <class S> static inline void write_run(const NaturalOf<S> *from, int64_t stride, int64_t length, S *to) {
    if (stride == 1) {
        VOXELRT_INDEPENDENT
        for (int64_t i = 0; i < length; ++i)
            to[i] = Codec<S>::write(from[i]);
    } else {
        for (int64_t i = 0; i < length; ++i)
            to[i * stride] = Codec<S>::write(from[i]);
    }
}

// An operand of a loop: where it starts and what it holds.
struct Elements {
    char *data;
    int dtype;
};

// Elements [start, start + count) of operand k in its natural compute type: in place where they lie so already,
// else converted into `buffer` (count elements of 8 bytes).
[[maybe_unused]] __attribute__((noinline)) static const void *load(const Elements &from, const Loop &loop, int k,
                                                                   int64_t start, int64_t count, void *buffer) {
    if (loop.dense(k) && bytes_of(from.dtype) == bytes_of(compute_of(from.dtype)))
        return from.data + start * bytes_of(from.dtype);
    with_storage(from.dtype, [&](auto tag) {
        using S = decltype(tag);
        const S *data = reinterpret_cast<const S *>(from.data);
        NaturalOf<S> *to = static_cast<NaturalOf<S> *>(buffer);
        const int64_t stride = loop.strides[k][loop.rank - 1];
        for_pieces(loop, k, start, count, [&](int64_t offset, int64_t at, int64_t length) {
            read_run<S>(data + offset, stride, length, to + at);
        });
    });
    return buffer;
}

// Where a kernel should put elements [start, start + count) of an output: straight into it, or into `buffer`.
static inline void *target(const Elements &to, const Loop &loop, int k, int64_t start, void *buffer) {
    return loop.dense(k) && bytes_of(to.dtype) == bytes_of(compute_of(to.dtype)) ? to.data + start * bytes_of(to.dtype)
                                                                                 : buffer;
}

// Stores what a kernel put at `target`.
[[maybe_unused]] __attribute__((noinline)) static void store(const void *from, const Elements &to, const Loop &loop,
                                                             int k, int64_t start, int64_t count) {
    if (loop.dense(k) && bytes_of(to.dtype) == bytes_of(compute_of(to.dtype)))
        return;
    with_storage(to.dtype, [&](auto tag) {
        using S = decltype(tag);
        S *data = reinterpret_cast<S *>(to.data);
        const NaturalOf<S> *values = static_cast<const NaturalOf<S> *>(from);
        const int64_t stride = loop.strides[k][loop.rank - 1];
        for_pieces(loop, k, start, count, [&](int64_t offset, int64_t at, int64_t length) {
            write_run<S>(values + at, stride, length, data + offset);
        });
    });
}

} // namespace voxelrt::VOXELRT_ISA
