// Numbers that the convolutions share: axes, ranges, and bounds that keep sums of products within 63 bits.
#pragma once

#include "kernel.h"

namespace voxelrt::VOXELRT_ISA {

struct Axes {
    int64_t z, y, x;
    int64_t &operator[](int i) { return i == 0 ? z : i == 1 ? y : x; }
    int64_t operator[](int i) const { return i == 0 ? z : i == 1 ? y : x; }
};

constexpr int64_t kMostElements = int64_t(1) << 40; // of one axis
constexpr int32_t kMostParameter = 1 << 20;
constexpr int kMostTaps = 128; // of one axis, where taps are kept in tables

static inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static inline int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static inline bool empty(const Tensor &t) {
    for (int i = 0; i < t.rank; ++i)
        if (t.dims[i] == 0)
            return true;
    return false;
}

static inline bool same_dims(const Tensor &a, const Tensor &b) {
    if (a.rank != b.rank)
        return false;
    for (int i = 0; i < a.rank; ++i)
        if (a.dims[i] != b.dims[i])
            return false;
    return true;
}

static inline bool row_major(const Tensor &t) {
    return t.layout == VOXELRT_LINEAR && (empty(t) || t.contiguous()); // strides of an empty tensor mean nothing
}

// A blocked volume whose rows have no gaps along x.
static inline bool blocked_rows(const Tensor &t) {
    return t.layout == VOXELRT_BLOCKED16 && (t.dims[4] <= 1 || t.strides[4] == kBlock || empty(t));
}

// Of positions x0 .. x0 + count - 1, those whose input x * stride + offset lies in [0, size): [begin, end), from x0.
struct Span {
    int64_t begin, end;
};
static inline Span inside(int64_t x0, int64_t count, int64_t stride, int64_t offset, int64_t size) {
    const int64_t first = x0 * stride + offset;
    const int64_t begin = first < 0 ? ceil_div(-first, stride) : 0;
    const int64_t end = size > first ? ceil_div(size - first, stride) : 0;
    return {least(begin, count), most(least(begin, count), least(end, count))};
}

} // namespace voxelrt::VOXELRT_ISA
