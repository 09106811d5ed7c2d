// What norm3d's kernels share: shapes, loops over the inner axes, and sums in double over tiles of a fixed size.
#pragma once

#include "block.h"
#include "floats.h"

#include <cmath>

namespace voxelrt::VOXELRT_ISA {

constexpr int64_t kTileVoxels = 4096; // of a blocked volume
constexpr int64_t kTileElements = 16384;
constexpr int64_t kLongestAxis = int64_t(1) << 31;

static inline int64_t blocks_of(int64_t channels) {
    return (channels + kBlock - 1) / kBlock;
}

static bool same_shape(const Tensor &a, const Tensor &b) {
    if (a.rank != b.rank)
        return false;
    for (int i = 0; i < a.rank; ++i)
        if (a.dims[i] != b.dims[i])
            return false;
    return true;
}

// A volume (N, C, ...) in either layout.
static Message check_volume(const Tensor &x) {
    if (!x.present() || x.rank < 2 || !is_float(x.dtype))
        return "takes a float tensor with the axes N, C, ...";
    for (int i = 0; i < x.rank; ++i)
        if (x.dims[i] >= kLongestAxis)
            return "an axis is longer than 2^31";
    if (x.layout == VOXELRT_BLOCKED16 && x.dtype != VOXELRT_F32)
        return "blocked tensors are float32";
    return nullptr;
}

// The axes behind the first `axes` as one loop, for one or more tensors of the shape of the first.
static Loop inner_loop(const Tensor *const *tensors, int count, int axes) {
    Loop loop;
    loop.operands = count;
    for (int i = axes; i < tensors[0]->rank; ++i) {
        int64_t strides[kMaxOperands];
        for (int k = 0; k < count; ++k)
            strides[k] = tensors[k]->present() ? tensors[k]->strides[i] : 0;
        loop.add(tensors[0]->dims[i], strides);
    }
    loop.finish();
    return loop;
}

static int64_t count_from(const Tensor &t, int axis) {
    int64_t n = 1;
    for (int i = axis; i < t.rank; ++i)
        n *= t.dims[i];
    return n;
}

// Sums of x - shift and of its square over `count` numbers, sixteen lanes and then their sum in order.
struct Sums {
    double sum = 0.0, squares = 0.0;
};
template <class A> static Sums sums_of(const A *x, int64_t count, double shift) {
    Doubles sum = Doubles::fill(0.0), squares = sum;
    const Doubles middle = Doubles::fill(shift);
    Sums result;
    int64_t i = 0;
    for (; i + kBlock <= count; i += kBlock) {
        const Doubles v = Doubles::load(x + i) - middle;
        sum = sum + v;
        squares = squares + v * v;
    }
    for (; i < count; ++i) {
        const double v = static_cast<double>(x[i]) - shift;
        result.sum += v;
        result.squares += v * v;
    }
    double all[2 * kBlock];
    sum.store(all);
    squares.store(all + kBlock);
    for (int lane = 0; lane < kBlock; ++lane) {
        result.sum += all[lane];
        result.squares += all[lane + kBlock];
    }
    return result;
}

} // namespace voxelrt::VOXELRT_ISA
