// Where a voxel of the output looks in the volume: A·x + t + M·u(x), for sixteen voxels of a row at a time.
//
// A position is kept as a whole index and the rest behind it, which are never added: at voxel 200 a float32 position is
// off by 8e-6, and on a steep volume that is the answer's error. Nothing here depends on the number of threads.
#pragma once

#include "floats.h"
#include "vec.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

enum Mode : int { kNearest, kLinear, kBspline, kKeys, kVote, kModes };
enum Padding : int { kZeros, kBorder, kReflect, kReflectEdges, kBorderEdges, kZerosEdges, kPaddings };

// matrix: of the displacement's components to voxels of the volume, row-major, (z, y, x).
#define WARP_PARAMS(S, A)                                                                                              \
    S(i32, mode)                                                                                                       \
    S(i32, padding)                                                                                                    \
    A(f64, matrix, 9)
VOXELRT_PARAMS(WarpParams, WARP_PARAMS)

constexpr int kLanes = 16;
constexpr int64_t kLongest = 1 << 22; // of an axis: twice that is still exact in float32
constexpr double kFar = kLongest;

static inline double limited(double value, double limit) { // a NaN stays
    return value > limit ? limit : value < -limit ? -limit : value;
}

// The affine part of one batch element and the matrix, ready for rows of sixteen.
struct Mapping {
    double rows[3][4];           // (z, y, x, 1) of the output to (z, y, x) of the volume
    float step[3], part[3];      // along x: whole voxels and the rest
    float high[3][3], low[3][3]; // the matrix as sums of two floats
    bool plain = true;           // the matrix is 1

    void set_matrix(const WarpParams &p, int axes) {
        for (int k = 0; k < 3; ++k)
            for (int j = 0; j < 3; ++j) {
                const bool used = k >= 3 - axes && j >= 3 - axes;
                const double value = used ? p.matrix[k * 3 + j] : k == j;
                high[k][j] = static_cast<float>(value);
                low[k][j] = static_cast<float>(value - static_cast<double>(high[k][j]));
                plain = plain && value == (k == j ? 1.0 : 0.0);
            }
    }

    // affine: (axes, axes + 1) of float or double, or null for the identity.
    template <class T> void set_affine(const T *affine, int axes) {
        const int first = 3 - axes;
        for (int k = 0; k < 3; ++k)
            for (int j = 0; j < 4; ++j) {
                const bool given = affine && k >= first && (j >= first);
                rows[k][j] = given ? static_cast<double>(affine[(k - first) * (axes + 1) + (j - first)]) : k == j;
            }
        for (int k = 0; k < 3; ++k) {
            const double slope = limited(rows[k][2], kFar / kLanes);
            const double whole = __builtin_nearbyint(slope);
            step[k] = static_cast<float>(whole);
            part[k] = static_cast<float>(slope - whole);
        }
    }

    // What a row of the output adds along axis k of the volume.
    double start(int k, int64_t z, int64_t y) const {
        return rows[k][0] * static_cast<double>(z) + rows[k][1] * static_cast<double>(y) + rows[k][3];
    }
};

static inline vf16 operator*(vf16 a, float b) {
    return a * broadcast(b);
}

struct Places {
    vf16 index[3], rest[3]; // whole numbers, and from 0 to 1; NaN where there is no position
};

static inline vf16 lane_numbers() {
    alignas(64) static const float numbers[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return load(numbers);
}

static inline vf16 within(vf16 value, float limit) { // a NaN stays
    return min(broadcast(limit), max(broadcast(-limit), value));
}

// Add m·u to a position; the product's rounding error is not lost.
static inline void add_product(float high, float low, vf16 u, vf16 &index, vf16 &rest) {
    const float size = high < 0 ? -high : high;
    const vf16 v = within(u, size > 1.0f ? static_cast<float>(kFar) / size : static_cast<float>(kFar));
    const vf16 m = broadcast(high), product = v * m, whole = round(product);
    rest = rest + (product - whole) + fma(v, broadcast(low), fma(v, m, zero() - product));
    index = index + whole;
}

// The positions of a row's voxels x to x + 15, from the row's starts; `moved` their displacements, or null.
static inline Places places_of(const Mapping &map, const double *starts, int64_t x, const vf16 *moved) {
    Places made;
    const vf16 lane = lane_numbers();
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k) {
        const double start = limited(starts[k] + map.rows[k][2] * static_cast<double>(x), kFar);
        const double whole = __builtin_floor(start);
        vf16 index = fma(lane, broadcast(map.step[k]), broadcast(static_cast<float>(whole)));
        vf16 rest = fma(lane, broadcast(map.part[k]), broadcast(static_cast<float>(start - whole)));
        if (moved && map.plain) {
            const vf16 u = within(moved[k], static_cast<float>(kFar)), near = round(u);
            index = index + near;
            rest = rest + (u - near);
        } else if (moved) {
            for (int j = 0; j < 3; ++j)
                if (map.high[k][j] != 0.0f)
                    add_product(map.high[k][j], map.low[k][j], moved[j], index, rest);
        }
        const vf16 down = floor(rest);
        made.index[k] = index + down;
        made.rest[k] = rest - down;
    }
    return made;
}

// The nearest voxel, of two equally near ones the even one or (as ITK has it) the upper one; the rest becomes 0.
static inline void round_places(Places &p, bool upper) {
    const vf16 half = broadcast(0.5f), one = broadcast(1.0f);
    for (int k = 0; k < 3; ++k) {
        const vf16 pairs = p.index[k] * half;
        const vm16 odd = upper ? first_lanes(kLanes) : zero() < (pairs - floor(pairs));
        const vm16 up = (half < p.rest[k]) | ((p.rest[k] >= half) & odd);
        p.index[k] = p.index[k] + select(up, one, zero());
        p.rest[k] = select(is_nan(p.rest[k]), p.rest[k], zero());
    }
}

// Which positions lie beyond the volume's faces, half a voxel beyond the outer centres; the upper face does too.
static inline vm16 beyond_faces(const Places &p, const int64_t *size) {
    const vf16 half = broadcast(0.5f), before = broadcast(-1.0f);
    vm16 beyond = first_lanes(0);
    for (int k = 0; k < 3; ++k) {
        const vf16 last = broadcast(static_cast<float>(size[k] - 1)), index = p.index[k], rest = p.rest[k];
        beyond = beyond | (index < before) | ((before >= index) & (rest < half)) | (last < index) |
                 ((index >= last) & (rest >= half));
    }
    return beyond;
}

// Whole positions outside to the border voxel.
static inline void clamp_whole(Places &p, const int64_t *size) {
    for (int k = 0; k < 3; ++k)
        p.index[k] = min(broadcast(static_cast<float>(size[k] - 1)), max(zero(), p.index[k]));
}

// Positions outside to the border voxel's centre, written as the last pair of voxels with the rest 1.
static inline void clamp_places(Places &p, const int64_t *size) {
    for (int k = 0; k < 3; ++k) {
        const float last = static_cast<float>(size[k] - 1);
        const vm16 below = p.index[k] < zero(), above = p.index[k] >= broadcast(last);
        const bool one = size[k] == 1;
        p.index[k] = select(below, zero(), select(above, broadcast(one ? 0.0f : last - 1.0f), p.index[k]));
        p.rest[k] = select(below, zero(), select(above, broadcast(one ? 0.0f : 1.0f), p.rest[k]));
    }
}

// Reflect positions once, about the outer voxels' centres or (edge = 1) the volume's faces; what then is still outside
// by up to half a voxel belongs to the border. False where one reflection is not enough.
static inline bool reflect_places(Places &p, const int64_t *size, float edge, bool whole, vm16 used) {
    const vf16 one = broadcast(1.0f);
    bool enough = true;
    for (int k = 0; k < 3; ++k) {
        const float last = static_cast<float>(size[k] - 1);
        const vm16 below = p.index[k] < zero(), above = p.index[k] >= broadcast(last);
        const vf16 turn = select(below, broadcast(-edge), broadcast(2.0f * last + edge)), back = turn - p.index[k];
        p.index[k] = select(below | above, whole ? back : back - one, p.index[k]);
        p.rest[k] = select(below | above, whole ? p.rest[k] : one - p.rest[k], p.rest[k]);
        const vm16 far = (p.index[k] < broadcast(-edge)) | (broadcast(last + edge) < p.index[k] + p.rest[k]);
        enough = enough && !any(used & far);
    }
    return enough;
}

// The two neighbours of a position along an axis beyond which all is 0: each one's weight, and whether it is there.
struct Pair {
    vf16 low, high;
    vm16 low_there, high_there;
};

// After it, index is that of the first neighbour to load.
static inline Pair pair_of(vf16 &index, vf16 rest, int64_t size) {
    const vf16 one = broadcast(1.0f), last = broadcast(static_cast<float>(size - 1)), other = one - rest;
    const vm16 below = index < broadcast(-1.0f), before = (index < zero()) & (index >= broadcast(-1.0f)),
               at_last = (index >= last) & (last >= index), beyond = last < index;
    Pair made;
    const vf16 off = zero(), on = one;
    const vf16 low_on = select(below | beyond, off, select(at_last, broadcast(size == 1 ? 1.0f : 0.0f), on));
    const vf16 high_on = select(below | beyond | before, off, select(at_last, broadcast(size == 1 ? 0.0f : 1.0f), on));
    made.low_there = zero() < low_on;
    made.high_there = zero() < high_on;
    made.low = select(before, rest, other);
    made.high = select(at_last, other, rest);
    index = min(broadcast(static_cast<float>(size > 1 ? size - 2 : 0)), max(zero(), index));
    return made;
}

// ---- one voxel at a time: what lies at the edges ----

struct Spot {
    double index, rest;
};

static inline double mirrored(double at, double low, double high) {
    const double period = 2.0 * (high - low);
    if (period == 0.0)
        return low;
    const double along = at - low - period * __builtin_floor((at - low) / period);
    return low + (along < period - along ? along : period - along);
}

static inline Spot spot_of(double at) {
    const double whole = __builtin_floor(at);
    return {whole, at - whole};
}

// Whether a position lies beyond the faces of an axis; the upper face does too.
static inline bool beyond_face(Spot p, int64_t size) {
    const double at = p.index + p.rest;
    return at < -0.5 || at >= static_cast<double>(size) - 0.5;
}

// Where a position is looked up that may lie outside an axis of that size.
static inline Spot resolve(Spot p, int64_t size, int padding) {
    const double last = static_cast<double>(size - 1), at = p.index + p.rest;
    const bool half_outside = at < -0.5 || at > last + 0.5, outside = at < 0.0 || at > last;
    if ((padding == kBorder || padding == kZerosEdges) && outside)
        return {at < 0.0 ? 0.0 : last, 0.0};
    if (padding == kBorderEdges && half_outside)
        return {at < 0.0 ? 0.0 : last, 0.0};
    if (padding == kReflect && outside)
        return spot_of(mirrored(at, 0.0, last));
    if (padding == kReflectEdges && half_outside)
        return spot_of(mirrored(at, -0.5, last + 0.5));
    return p;
}

// The voxel of a tap, or -1 for none. Spline coefficients go on as a mirror image, whatever is outside.
static inline int64_t tap_index(double at, int64_t size, int mode, int padding) {
    const double last = static_cast<double>(size - 1);
    if (at >= 0.0 && at <= last)
        return static_cast<int64_t>(at);
    if (mode == kBspline || padding == kReflect)
        return static_cast<int64_t>(mirrored(at, 0.0, last));
    if (padding == kReflectEdges) {
        const double inside = mirrored(at, -0.5, last + 0.5);
        return static_cast<int64_t>(inside < 0.0 ? 0.0 : inside > last ? last : inside);
    }
    if (padding == kZeros)
        return -1;
    return at < 0.0 ? 0 : size - 1;
}

// The cubic B-spline's four weights at a rest.
template <class F> static inline void bspline_weights(F rest, F *weight, F one) {
    const F other = one - rest, sixth = one * (1.0f / 6.0f), square = rest * rest, back = other * other;
    weight[0] = sixth * back * other;
    weight[1] = one * (2.0f / 3.0f) - square * (one - rest * 0.5f);
    weight[2] = one * (2.0f / 3.0f) - back * (one - other * 0.5f);
    weight[3] = sixth * square * rest;
}

// Keys (1981), equation 4, with a = -3/4 as ONNX GridSample has it.
template <class F> static inline void keys_weights(F rest, F *weight, F one) {
    constexpr float a = -0.75f;
    const F other = one - rest;
    weight[0] = (rest * other * other) * a;
    weight[1] = ((rest * (a + 2.0f)) - one * (a + 3.0f)) * rest * rest + one;
    weight[2] = ((other * (a + 2.0f)) - one * (a + 3.0f)) * other * other + one;
    weight[3] = (other * rest * rest) * a;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA
