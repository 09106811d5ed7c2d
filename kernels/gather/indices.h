// Indices read from memory, checked at each use: they are run-time values, and a plan may let memory change under them.
#pragma once

#include "elements.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

constexpr int64_t kTaskBytes = 1 << 17;

inline bool plain(const Tensor &t) {
    return t.present() && !t.pending() && t.layout == VOXELRT_LINEAR && (t.count() == 0 || t.contiguous());
}

Message check_index_dtype(const Tensor &indices) {
    const bool whole = indices.dtype == VOXELRT_I32 || indices.dtype == VOXELRT_I64;
    return whole && plain(indices) ? nullptr : "indices are int32 or int64 without gaps";
}

struct Indices {
    const char *data;
    bool wide;
    explicit Indices(const Tensor &t) : data(t.data), wide(t.dtype == VOXELRT_I64) {}
    int64_t operator[](int64_t i) const {
        if (wide) {
            int64_t value;
            std::memcpy(&value, data + i * 8, 8);
            return value;
        }
        int32_t value;
        std::memcpy(&value, data + i * 4, 4);
        return value;
    }
};

// A negative index counts from the end; -1 for one that is out of range.
inline int64_t resolved(int64_t index, int64_t size) {
    const int64_t from_start = index < 0 ? index + size : index;
    return from_start >= 0 && from_start < size ? from_start : -1;
}

// Set by any thread that met an index out of range.
struct Fault {
    int32_t seen = 0;
    void set() { __atomic_store_n(&seen, 1, __ATOMIC_RELAXED); }
    Message message() const { return seen ? "an index is out of range" : nullptr; }
};

// Calls body(T{}) with an unsigned type as wide as the dtype's elements.
template <class F> void with_width(int dtype, F &&body) {
    switch (bytes_of(dtype)) {
    case 8:
        return body(uint64_t{});
    case 4:
        return body(uint32_t{});
    case 2:
        return body(uint16_t{});
    default:
        return body(uint8_t{});
    }
}

inline int64_t product(const int64_t *dims, int begin, int end) {
    int64_t n = 1;
    for (int i = begin; i < end; ++i)
        n *= dims[i];
    return n;
}

// The offset in a contiguous tensor of `dims` of a row of `last` other axes' indices: row `row` of `shape` without its
// last axis, leaving out the axis `skip`.
inline int64_t row_offset(const int64_t *dims, const int64_t *shape, int rank, int64_t row, int skip) {
    int64_t strides[VOXELRT_MAX_RANK], offset = 0;
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; --i) {
        strides[i] = stride;
        stride *= dims[i];
    }
    for (int i = rank - 2; i >= 0; --i) {
        const int64_t index = row % shape[i];
        row /= shape[i];
        if (i != skip)
            offset += index * strides[i];
    }
    return offset;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA
