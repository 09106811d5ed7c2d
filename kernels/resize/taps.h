// Where an output element of an axis looks in the input, and with which weights: ONNX Resize, one axis at a time.
#pragma once

#include "elements.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

enum Mode : int { kNearest, kLinear, kCubic, kModes };
enum Coordinate : int {
    kHalfPixel,
    kHalfPixelSymmetric,
    kPytorchHalfPixel,
    kAlignCorners,
    kAsymmetric,
    kCropAndResize,
    kCoordinates
};
enum Rounding : int { kPreferFloor, kPreferCeil, kFloor, kCeil, kRoundings };

// roi: the starts of all eight axes, then their ends; kCropAndResize only.
#define RESIZE_PARAMS(S, A)                                                                                            \
    S(i32, mode)                                                                                                       \
    S(i32, coordinate)                                                                                                 \
    S(i32, rounding)                                                                                                   \
    S(i32, antialias)                                                                                                  \
    S(i32, exclude_outside)                                                                                            \
    S(f64, cubic) S(f64, extrapolation) A(f64, scale, 8) A(f64, roi, 16)
VOXELRT_PARAMS(ResizeParams, RESIZE_PARAMS)
static_assert(VOXELRT_MAX_RANK == 8, "the lengths of scale and roi");

constexpr int64_t kMostTaps = 1 << 20;
constexpr int64_t kLongestAxis = INT32_MAX;

// The position in the input, in elements, that output element `j` shows.
double position_of(const ResizeParams &p, int axis, int64_t in, int64_t out, int64_t j) {
    const double scale = p.scale[axis], n = static_cast<double>(in), x = static_cast<double>(j);
    const double length = scale * n;
    switch (p.coordinate) {
    case kAlignCorners:
        return length == 1.0 ? 0.0 : x * (n - 1.0) / (length - 1.0);
    case kAsymmetric:
        return x / scale;
    case kCropAndResize: {
        const double start = p.roi[axis], end = p.roi[8 + axis];
        const double along = length == 1.0 ? 0.5 * (end - start) * (n - 1.0) //
                                           : x * (end - start) * (n - 1.0) / (length - 1.0);
        return along + start * (n - 1.0);
    }
    case kPytorchHalfPixel:
        return out == 1 ? 0.0 : (x + 0.5) / scale - 0.5;
    case kHalfPixelSymmetric:
        return 0.5 * n * (1.0 - static_cast<double>(out) / length) + (x + 0.5) / scale - 0.5;
    default:
        return (x + 0.5) / scale - 0.5;
    }
}

double cubic_weight(double distance, double a) {
    const double x = distance < 0 ? -distance : distance;
    if (x <= 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    return x < 2.0 ? ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a : 0.0;
}

// The first tap's distance from the element left of the position; there are 2 - 2 * first taps.
double first_tap(const ResizeParams &p, int axis) {
    const double reach = p.mode == kCubic ? 2.0 : 1.0;
    const double scale = p.antialias && p.scale[axis] < 1.0 ? p.scale[axis] : 1.0;
    return __builtin_floor(-reach / scale) + 1.0;
}

int64_t taps_of(const ResizeParams &p, int axis) {
    return p.mode == kNearest ? 1 : 2 - 2 * static_cast<int64_t>(first_tap(p, axis));
}

int32_t clamped(double index, int64_t size) {
    if (!(index > 0.0)) // a NaN too
        return 0;
    return index < static_cast<double>(size) ? static_cast<int32_t>(index) : static_cast<int32_t>(size - 1);
}

int32_t nearest_index(const ResizeParams &p, double x, int64_t in) {
    const double low = __builtin_floor(x), rest = x - low;
    bool up = rest > 0.5;
    if (p.rounding == kPreferCeil)
        up = rest >= 0.5;
    else if (p.rounding == kFloor)
        up = false;
    else if (p.rounding == kCeil)
        up = rest > 0.0;
    return clamped(low + (up ? 1.0 : 0.0), in);
}

// The taps of one output element, into index[t * stride] and weight[t * stride].
template <class T>
void fill_taps(const ResizeParams &p, int axis, int64_t in, double x, int64_t stride, int32_t *index, T *weight) {
    const double floor = __builtin_floor(x), left = floor == x ? x - 1.0 : floor; // so that 0 < rest <= 1
    const double rest = x - left, first = first_tap(p, axis);
    const int64_t taps = taps_of(p, axis);
    const double scale = p.antialias && p.scale[axis] < 1.0 ? p.scale[axis] : 1.0;
    double sum = 0;
    auto value = [&](int64_t t) {
        const double at = left + first + static_cast<double>(t);
        if (p.exclude_outside && (at < 0.0 || at >= static_cast<double>(in)))
            return 0.0;
        const double distance = (first + static_cast<double>(t) - rest) * scale;
        if (p.mode == kCubic)
            return cubic_weight(distance, p.cubic);
        const double far = distance < 0 ? -distance : distance;
        return far < 1.0 ? 1.0 - far : 0.0;
    };
    for (int64_t t = 0; t < taps; ++t)
        sum += value(t);
    for (int64_t t = 0; t < taps; ++t) {
        index[t * stride] = clamped(left + first + static_cast<double>(t), in);
        weight[t * stride] = static_cast<T>(value(t) / sum);
    }
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA
