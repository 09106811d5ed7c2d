// The volume's values at sixteen positions: one set of offsets and weights, then every channel by it.
#pragma once

#include "position.h"

#include <limits>
#include <type_traits>

namespace voxelrt::VOXELRT_ISA {
namespace {

// Which way a volume is walked; strides in elements, an axis of size one has 0.
struct Grid {
    int64_t size[3], stride[3];
    bool flat; // 2-D: the first axis is not there
};

struct Spots { // of sixteen voxels: the offset of the first voxel each needs, and the weights
    alignas(64) int32_t at[kLanes];
    vf16 low[3], high[3]; // of a voxel and the next one along each axis; 0 where there is none
};

// ---- loads ----

// Two neighbours at each of sixteen places: four 8-byte loads of a voxel are four calls.
template <class I> static inline void load_pairs(const float *from, const I *at, vf16 &left, vf16 &right) {
#if defined(VOXELRT_ISA_neon)
    for (int i = 0; i < 4; ++i) {
        const float32x4_t a = vcombine_f32(vld1_f32(from + at[4 * i]), vld1_f32(from + at[4 * i + 1]));
        const float32x4_t b = vcombine_f32(vld1_f32(from + at[4 * i + 2]), vld1_f32(from + at[4 * i + 3]));
        left.v[i] = vuzp1q_f32(a, b);
        right.v[i] = vuzp2q_f32(a, b);
    }
#else
    const auto two = [&](int i) {
        // Loads that say that they may be unaligned: a pair begins at any float.
        const __m128 low = _mm_castsi128_ps(_mm_loadu_si64(from + at[i]));
        return _mm_loadh_pi(low, reinterpret_cast<const __m64 *>(from + at[i + 1]));
    };
    // Voxels i, i + 1 beside i + 4, i + 5: shuffles within halves then put lanes in order.
    const auto four = [&](int i) { return _mm256_insertf128_ps(_mm256_castps128_ps256(two(i)), two(i + 4), 1); };
    const __m256 a = four(0), b = four(2), c = four(8), d = four(10);
    const __m256 left_low = _mm256_shuffle_ps(a, b, 0x88), left_high = _mm256_shuffle_ps(c, d, 0x88);
    const __m256 right_low = _mm256_shuffle_ps(a, b, 0xdd), right_high = _mm256_shuffle_ps(c, d, 0xdd);
#if defined(VOXELRT_ISA_avx512)
    left.v = _mm512_insertf32x8(_mm512_castps256_ps512(left_low), left_high, 1);
    right.v = _mm512_insertf32x8(_mm512_castps256_ps512(right_low), right_high, 1);
#else
    left = {left_low, left_high};
    right = {right_low, right_high};
#endif
#endif
}

template <class T, std::enable_if_t<!std::is_same_v<T, float>, int> = 0>
static inline void load_pairs(const T *from, const int32_t *at, vf16 &left, vf16 &right) {
    T raw[2][kLanes];
    alignas(64) float value[2][kLanes];
    for (int i = 0; i < kLanes; ++i) {
        T pair[2];
        std::memcpy(pair, from + at[i], sizeof pair);
        raw[0][i] = pair[0];
        raw[1][i] = pair[1];
    }
    for (int half = 0; half < 2; ++half)
        for (int i = 0; i < kLanes; ++i)
            value[half][i] = get<float>(raw[half][i]);
    left = load(value[0]);
    right = load(value[1]);
}

// ---- stores ----

static inline float nearest_whole(float value, float low, float high) { // a NaN is 0
    const float whole = __builtin_nearbyintf(value);
    return whole != whole ? 0.0f : whole < low ? low : whole > high ? high : whole;
}

// What a voxel without a position holds.
template <class T> static inline T stored_nan() {
    if constexpr (std::is_arithmetic_v<T>)
        return std::numeric_limits<T>::quiet_NaN(); // 0 for whole numbers
    else if constexpr (std::is_same_v<T, Bool>)
        return T{};
    else
        return put<T>(std::numeric_limits<float>::quiet_NaN());
}

// An interpolated value as it is stored: whole numbers rounded to nearest, halves to even, within their range.
template <class T> static inline T stored(float value) {
    if constexpr (std::is_integral_v<T>) {
        constexpr float low = static_cast<float>(std::numeric_limits<T>::min()),
                        high = static_cast<float>(std::numeric_limits<T>::max());
        return static_cast<T>(static_cast<int32_t>(nearest_whole(value, low, high)));
    } else
        return put<T>(value);
}

template <class T> static inline void store_values(T *to, vf16 value, int count) {
    if constexpr (std::is_same_v<T, float>)
        count == kLanes ? store(to, value) : store_first(to, value, count);
    else {
        alignas(64) float lanes[kLanes];
        T made[kLanes];
        store(lanes, value);
        for (int i = 0; i < kLanes; ++i)
            made[i] = stored<T>(lanes[i]);
        std::memcpy(to, made, static_cast<size_t>(count) * sizeof(T));
    }
}

// ---- trilinear ----

template <bool Deep, class T> static inline vf16 linear_values(const T *plane, const Grid &g, const Spots &s) {
    const auto row = [&](const T *from) {
        vf16 left, right;
        load_pairs(from, s.at, left, right);
        return fma(right, s.high[2], left * s.low[2]);
    };
    const auto rows = [&](const T *from) { return fma(row(from + g.stride[1]), s.high[1], row(from) * s.low[1]); };
    return Deep ? fma(rows(plane + g.stride[0]), s.high[0], rows(plane) * s.low[0]) : rows(plane);
}

#if !defined(VOXELRT_ISA_neon)
// Four voxels' pairs of neighbours along x, `on` from where each voxel's first one lies.
__attribute__((always_inline)) static inline __m256 four_pairs(const float *const *first, int64_t on) {
    const auto two = [&](int i) __attribute__((always_inline)) {
        // Loads that say that they may be unaligned: a pair begins at any float.
        const __m128 low = _mm_castsi128_ps(_mm_loadu_si64(first[i] + on));
        return _mm_loadh_pi(low, reinterpret_cast<const __m64 *>(first[i + 1] + on));
    };
    return _mm256_insertf128_ps(_mm256_castps128_ps256(two(0)), two(2), 1);
}

// Pairs stay pairs until the last axis: their weights along z and y are doubled instead.
template <bool Deep>
__attribute__((always_inline)) static inline __m128 linear_four(const float *plane, const Grid &g, const Spots &s,
                                                                int i) {
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    const auto four = [&](const vf16 &weights) __attribute__((always_inline)) {
        return _mm_loadu_ps(reinterpret_cast<const float *>(&weights) + i);
    };
    const auto doubled = [&](const vf16 &weights) __attribute__((always_inline)) {
        return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(four(weights)), twice);
    };
    const float *const first[4] = {plane + s.at[i], plane + s.at[i + 1], plane + s.at[i + 2], plane + s.at[i + 3]};
    __m256 low = four_pairs(first, 0), high = four_pairs(first, g.stride[1]);
    if constexpr (Deep) {
        const __m256 here = doubled(s.low[0]), next = doubled(s.high[0]);
        low = _mm256_fmadd_ps(four_pairs(first, g.stride[0]), next, _mm256_mul_ps(low, here));
        high = _mm256_fmadd_ps(four_pairs(first, g.stride[0] + g.stride[1]), next, _mm256_mul_ps(high, here));
    }
    const __m256 pairs = _mm256_fmadd_ps(high, doubled(s.high[1]), _mm256_mul_ps(low, doubled(s.low[1])));
    const __m128 a = _mm256_castps256_ps128(pairs), b = _mm256_extractf128_ps(pairs, 1);
    const __m128 left = _mm_shuffle_ps(a, b, 0x88), right = _mm_shuffle_ps(a, b, 0xdd);
    return _mm_fmadd_ps(right, four(s.high[2]), _mm_mul_ps(left, four(s.low[2])));
}

template <bool Deep> static inline vf16 linear_values(const float *plane, const Grid &g, const Spots &s) {
    const auto eight = [&](int i) __attribute__((always_inline)) {
        const __m256 half = _mm256_castps128_ps256(linear_four<Deep>(plane, g, s, i));
        return _mm256_insertf128_ps(half, linear_four<Deep>(plane, g, s, i + 4), 1);
    };
#if defined(VOXELRT_ISA_avx512)
    return {_mm512_insertf32x8(_mm512_castps256_ps512(eight(0)), eight(8), 1)};
#else
    return {eight(0), eight(8)};
#endif
}
#endif

// False where the answer may owe a NaN to a voxel that was loaded in place of one outside.
template <class T>
static inline bool linear(const T *plane, const Grid &g, const Spots &s, T *to, int count, bool inside) {
    const vf16 value = g.size[0] == 1 ? linear_values<false>(plane, g, s) : linear_values<true>(plane, g, s);
    if (!inside && any(is_nan(value)))
        return false;
    store_values(to, value, count);
    return true;
}

template <class T> static inline void nearest(const T *plane, const Spots &s, T *to, int count) {
    for (int i = 0; i < count; ++i)
        to[i] = s.at[i] < 0 ? T{} : plane[s.at[i]];
}

// The label with the most weight; of equal ones the smallest.
template <class T> static inline T elected(const T *label, const float *weight, int count) {
    float best = -1.0f;
    T chosen = 0;
    for (int i = 0; i < count; ++i) {
        float sum = 0.0f;
        for (int j = 0; j < count; ++j)
            sum += label[j] == label[i] ? weight[j] : 0.0f;
        if (sum > best || (sum == best && label[i] < chosen)) {
            best = sum;
            chosen = label[i];
        }
    }
    return chosen;
}

template <class T> static inline void vote(const T *plane, const Grid &g, const Spots &s, T *to, int count) {
    alignas(64) float rest[3][kLanes];
    for (int k = 0; k < 3; ++k)
        store(rest[k], s.high[k]);
    for (int i = 0; i < count; ++i) {
        const T *from = plane + s.at[i];
        T label[8];
        T differs = 0;
        for (int corner = 0; corner < 8; ++corner) {
            label[corner] = from[(corner >> 2) * g.stride[0] + (corner >> 1 & 1) * g.stride[1] + (corner & 1)];
            differs = static_cast<T>(differs | (label[corner] ^ label[0]));
        }
        if (differs == 0) {
            to[i] = label[0];
            continue;
        }
        float weight[8];
        for (int corner = 0; corner < 8; ++corner) {
            weight[corner] = 1.0f;
            for (int k = 0; k < 3; ++k)
                weight[corner] *= (corner >> (2 - k) & 1) ? rest[k][i] : 1.0f - rest[k][i];
        }
        to[i] = elected(label, weight, 8);
    }
}

// ---- inside, cubic: a voxel's sixteen rows of four, each one load ----

#if defined(VOXELRT_ISA_neon)
using Four = float32x4_t;
static inline Four load_four(const float *p) {
    return vld1q_f32(p);
}
static inline Four fma_four(Four a, float b, Four c) {
    return vfmaq_n_f32(c, a, b);
}
static inline float dot_four(Four a, Four b) {
    return vaddvq_f32(vmulq_f32(a, b));
}
#else
using Four = __m128;
static inline Four load_four(const float *p) {
    return _mm_loadu_ps(p);
}
static inline Four fma_four(Four a, float b, Four c) {
    return _mm_fmadd_ps(a, _mm_set1_ps(b), c);
}
static inline float dot_four(Four a, Four b) {
    const __m128 p = _mm_mul_ps(a, b), q = _mm_add_ps(p, _mm_movehl_ps(p, p));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
#endif

// The weights of sixteen voxels: along z and y by tap, along x by voxel.
struct CubicWeights {
    alignas(64) float z[4][kLanes], y[4][kLanes], x[kLanes][4];
};

template <int M> static inline CubicWeights cubic_weights(const vf16 *rest, bool flat) {
    CubicWeights made;
    alignas(64) float along[4][kLanes];
    float (*const to[3])[kLanes] = {made.z, made.y, along};
    for (int k = 0; k < 3; ++k) {
        vf16 weight[4];
        if constexpr (M == kBspline)
            bspline_weights(rest[k], weight, broadcast(1.0f));
        else
            keys_weights(rest[k], weight, broadcast(1.0f));
        for (int i = 0; i < 4; ++i)
            store(to[k][i], k == 0 && flat ? broadcast(i == 0 ? 1.0f : 0.0f) : weight[i]);
    }
    for (int i = 0; i < kLanes; ++i)
        for (int j = 0; j < 4; ++j)
            made.x[i][j] = along[j][i];
    return made;
}

// `from` is the first of the voxel's 4·4·4 (4·4 where flat).
static inline float cubic_one(const float *from, const Grid &g, const CubicWeights &w, int i) {
    Four sum{};
    for (int z = 0; z < (g.flat ? 1 : 4); ++z, from += g.stride[0]) {
        Four plane = {};
        for (int y = 0; y < 4; ++y)
            plane = fma_four(load_four(from + y * g.stride[1]), w.y[y][i], plane);
        sum = fma_four(plane, w.z[z][i], sum);
    }
    return dot_four(sum, load_four(w.x[i]));
}

// ---- anywhere ----

struct Taps {
    int count;
    int64_t at[4];
    float weight[4];
};

static inline Taps taps_at(Spot p, int64_t size, bool flat, int mode, int padding) {
    Taps made{1, {0}, {1.0f}};
    if (flat)
        return made;
    const bool wide = mode == kBspline || mode == kKeys;
    const float rest = static_cast<float>(p.rest);
    made.count = wide ? 4 : mode == kNearest ? 1 : 2;
    if (mode == kBspline)
        bspline_weights(rest, made.weight, 1.0f);
    else if (mode == kKeys)
        keys_weights(rest, made.weight, 1.0f);
    else if (mode != kNearest) {
        made.weight[0] = 1.0f - rest;
        made.weight[1] = rest;
    }
    for (int i = 0; i < made.count; ++i)
        made.at[i] = tap_index(p.index + i - (wide ? 1 : 0), size, mode, padding);
    return made;
}

// One voxel of every channel, wherever it lies. Where taps have no voxel they count as 0.
template <class T, int M>
static void sample_one(const T *volume, int64_t channel_stride, int64_t channels, const Grid &g, const Spot *spots,
                       int padding, T *to, int64_t to_stride) {
    Taps taps[3];
    const bool ends = padding == kZerosEdges || (M == kBspline && padding == kZeros); // at the faces
    bool lost = false, outside = false;
    for (int k = 0; k < 3; ++k) {
        lost = lost || spots[k].rest != spots[k].rest;
        if (lost)
            break;
        const bool flat = g.flat && k == 0;
        outside = outside || (ends && !flat && beyond_face(spots[k], g.size[k]));
        taps[k] = taps_at(resolve(spots[k], g.size[k], padding), g.size[k], flat, M, padding);
    }
    for (int64_t c = 0; c < channels; ++c, to += to_stride, volume += channel_stride) {
        T label[64];
        float weight[64], sum = 0.0f;
        int count = 0;
        if (lost || outside) {
            *to = lost ? stored_nan<T>() : T{};
            continue;
        }
        for (int i = 0; i < taps[0].count; ++i)
            for (int j = 0; j < taps[1].count; ++j)
                for (int k = 0; k < taps[2].count; ++k, ++count) {
                    const int64_t z = taps[0].at[i], y = taps[1].at[j], x = taps[2].at[k];
                    const bool there = z >= 0 && y >= 0 && x >= 0;
                    weight[count] = taps[0].weight[i] * taps[1].weight[j] * taps[2].weight[k];
                    label[count] = there ? volume[z * g.stride[0] + y * g.stride[1] + x] : T{};
                    if constexpr (M != kVote && M != kNearest)
                        sum += there ? weight[count] * get<float>(label[count]) : 0.0f;
                }
        if constexpr (M == kNearest)
            *to = label[0];
        else if constexpr (M == kVote)
            *to = elected(label, weight, count);
        else
            *to = stored<T>(sum);
    }
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA
