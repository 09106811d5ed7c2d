// Trilinear interpolation's eight corners, for kernels that look a volume up between its voxels.
//
// What lies outside is the volume going on: mirrored or clamped indices give the same value as a mirrored or clamped
// position, with no arithmetic on the position at all.
#pragma once

namespace voxelrt {

// The codes of warp3d/codes.py.
enum Padding : int { kZeros, kBorder, kReflect, kReflectEdges, kBorderEdges, kZerosEdges };

constexpr float kFar = 4194304.0f; // no axis is longer, and twice that is exact in float32

__device__ inline float within(float value, float limit) { // a NaN stays
    return value > limit ? limit : value < -limit ? -limit : value;
}

// The voxel of a tap; -1 for none.
__device__ inline int tap_index(int at, int size, int padding) {
    if (at >= 0 && at < size)
        return at;
    if (padding == kZeros)
        return -1;
    if (padding >= kBorderEdges || padding == kBorder)
        return at < 0 ? 0 : size - 1;
    const int edge = padding == kReflectEdges ? 1 : 0, period = 2 * (size - 1 + edge);
    if (period == 0)
        return 0;
    const int rest = at % period, along = rest < 0 ? rest + period : rest;
    return along < size ? along : period - edge - along;
}

// Where a voxel of the output looks, along one axis: a whole number and a rest from 0 to 1 behind it, never added.
struct Place {
    float index, rest; // both NaN, or neither
};

__device__ inline bool is_lost(const Place *place) {
    bool lost = false;
    for (int k = 0; k < 3; ++k)
        lost = lost || place[k].index != place[k].index || place[k].rest != place[k].rest;
    return lost;
}

// Whether a place lies beyond the faces of an axis, half a voxel beyond the outer centres; the upper face does too.
__device__ inline bool beyond_face(const Place &p, int size) {
    const float last = (float)(size - 1);
    return p.index < -1.0f || (p.index == -1.0f && p.rest < 0.5f) || p.index > last ||
           (p.index == last && p.rest >= 0.5f);
}

struct Corners {
    long long at[8];
    float weight[8];
    bool there[8];
};

// The corners around places that are not lost, in the order z, y, x; what has no voxel is not there.
__device__ inline Corners corners_at(const Place *place, const long long *size, const long long *stride, int padding) {
    long long along[3][2];
    float weight[3][2];
    bool there[3][2];
    for (int k = 0; k < 3; ++k) {
        const bool beyond = padding == kZerosEdges && beyond_face(place[k], (int)size[k]);
        for (int i = 0; i < 2; ++i) {
            const int tap = tap_index((int)place[k].index + i, (int)size[k], padding);
            there[k][i] = tap >= 0 && !beyond;
            along[k][i] = (tap < 0 ? 0 : tap) * stride[k];
            weight[k][i] = i ? place[k].rest : 1.0f - place[k].rest;
        }
    }
    Corners made;
    for (int c = 0; c < 8; ++c) {
        const int z = c >> 2, y = c >> 1 & 1, x = c & 1;
        made.at[c] = along[0][z] + along[1][y] + along[2][x];
        made.weight[c] = weight[0][z] * weight[1][y] * weight[2][x];
        made.there[c] = there[0][z] && there[1][y] && there[2][x];
    }
    return made;
}

} // namespace voxelrt
