// The first pass over a row of the output: where its voxels look, sixteen at a time. Nothing here depends on what the
// voxels hold, so that one piece of code serves all types.
#pragma once

#include "sample.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

constexpr int64_t kTileZ = 8, kTileY = 8, kTileX = 256;

struct Job {
    WarpParams params;
    const Tensor *volume, *moved, *affine, *out;
    int axes;
    Grid grid;
    int64_t batch, channels, size[3]; // of the output
    bool near = false;                // offsets fit in 32 bits
    bool upper = false;               // halves between voxels go to the upper one

    // A stride of one of the spatial axes (z, y, x), or of batch and channel.
    int64_t stride(const Tensor &t, int axis) const {
        return t.present() && (axes == 3 || axis > 0) ? t.strides[t.rank - 3 + axis] : 0;
    }
};

// Offsets of sixteen voxels are 32 bits; longer volumes go one by one, with 64.
inline bool short_offsets(const Grid &g) {
    int64_t last = 0;
    for (int k = 0; k < 3; ++k)
        last += (g.size[k] - 1) * g.stride[k];
    return last < INT32_MAX && g.size[2] > 1 && g.stride[0] < INT32_MAX && g.stride[1] < INT32_MAX;
}

inline Job job_of(const Step &step) {
    Job job{step.as<WarpParams>(), &step.input(0), &step.input(1), &step.input(2), &step.out[0], 0, {}, 0, 0, {}};
    const Tensor &in = *job.volume, &out = *job.out;
    job.axes = in.rank - 2;
    job.batch = out.dims[0];
    job.channels = out.dims[1];
    job.grid.flat = job.axes == 2;
    for (int k = 0; k < 3; ++k) {
        const bool there = job.axes == 3 || k > 0;
        const int axis = in.rank - 3 + k;
        job.size[k] = there ? out.dims[axis] : 1;
        job.grid.size[k] = there ? in.dims[axis] : 1;
        job.grid.stride[k] = there && in.dims[axis] > 1 ? in.strides[axis] : 0;
    }
    job.near = short_offsets(job.grid);
    // Voxels and splines have nothing beyond the faces anyway; of two equally near voxels ITK takes the upper one.
    job.upper = job.params.padding == kZerosEdges;
    if (job.upper && (job.params.mode == kNearest || job.params.mode == kBspline))
        job.params.padding = kZeros;
    return job;
}

// Displacements of one component along a row, `stride` elements apart.
template <class D> static vf16 strided(const Tensor &field, int64_t offset, int64_t stride, int count) {
    alignas(64) float lanes[kLanes] = {};
    for (int i = 0; i < count; ++i)
        lanes[i] = get<float>(field.as<const D>()[offset + i * stride]);
    return load(lanes);
}

__attribute__((always_inline)) static inline vf16 displacements(const Tensor &field, int64_t offset, int64_t stride,
                                                                int count) {
    if (field.dtype == VOXELRT_F16)
        return strided<Half>(field, offset, stride, count);
    if (field.dtype == VOXELRT_BF16)
        return strided<BFloat>(field, offset, stride, count);
    if (stride != 1)
        return strided<float>(field, offset, stride, count);
    const float *from = field.as<const float>() + offset;
    return count == kLanes ? load(from) : load_first(from, count);
}

// Sixteen voxels find all they need inside; or some of it is missing; or each is a case of its own.
enum Reach : uint8_t { kInside, kEdge, kAlone };

struct Row {
    static constexpr int64_t kChunks = kTileX / kLanes;

    const Job &job;
    Mapping map;
    int64_t n; // of the batch
    Spots spots[kChunks];
    Places places[kChunks]; // where they are not inside
    Reach reached[kChunks];

    Row(const Job &of, int64_t number) : job(of), n(number) {
        map.set_matrix(job.params, job.axes);
        const Tensor &affine = *job.affine;
        const int64_t skip = affine.present() && affine.dims[0] > 1 ? n * job.axes * (job.axes + 1) : 0;
        if (affine.present() && affine.dtype == VOXELRT_F64)
            map.set_affine(affine.as<const double>() + skip, job.axes);
        else
            map.set_affine(affine.present() ? affine.as<const float>() + skip : nullptr, job.axes);
    }

    // Where output voxels (z, y, begin) to (z, y, end - 1) look.
    void find(int64_t z, int64_t y, int64_t begin, int64_t end) {
        const Tensor &field = *job.moved;
        const bool moves = field.present();
        const int64_t along = job.stride(field, 2);
        const int64_t from = (moves && field.dims[0] > 1 ? n * field.strides[0] : 0) + z * job.stride(field, 0) +
                             y * job.stride(field, 1);
        const bool by_itself = !job.near || job.params.mode == kBspline || job.params.mode == kKeys;
        const double starts[3] = {map.start(0, z, y), map.start(1, z, y), map.start(2, z, y)};
        for (int64_t x = begin, i = 0; x < end; x += kLanes, ++i) {
            const int count = static_cast<int>(end - x < kLanes ? end - x : kLanes);
            vf16 moved[3] = {zero(), zero(), zero()};
            for (int k = 3 - job.axes; moves && k < 3; ++k)
                moved[k] = displacements(field, from + (k + job.axes - 3) * field.strides[1] + x * along, along, count);
            Places p = places_of(map, starts, x, moves ? moved : nullptr);
            if (job.params.mode == kNearest)
                round_places(p, job.upper);
            reached[i] = by_itself ? kAlone : reach(p, spots[i], count);
            if (reached[i] != kInside) { // once more: reach has changed them
                places[i] = places_of(map, starts, x, moves ? moved : nullptr);
                if (job.params.mode == kNearest)
                    round_places(places[i], job.upper);
            }
        }
    }

  private:
    // Offsets and weights of sixteen voxels where a whole vector can work on them, else kAlone.
    Reach reach(Places &p, Spots &s, int count) const {
        const int64_t *size = job.grid.size;
        const vm16 used = first_lanes(count);
        const int padding = job.params.padding, mode = job.params.mode;
        if (any(is_nan(p.rest[0] + p.rest[1] + p.rest[2])))
            return kAlone;
        if (padding == kReflect || padding == kReflectEdges)
            if (!reflect_places(p, size, padding == kReflectEdges ? 1.0f : 0.0f, mode == kNearest, used))
                return kAlone;
        const vm16 beyond = padding == kZerosEdges ? beyond_faces(p, size) & used : first_lanes(0);
        const bool lost = any(beyond);
        if (lost && mode == kVote)
            return kAlone;
        if (padding != kZeros)
            mode == kNearest ? clamp_whole(p, size) : clamp_places(p, size);
        vm16 outside = first_lanes(0);
        for (int k = 0; k < 3; ++k) {
            const int64_t past = size[k] - (mode == kNearest ? 0 : 1);
            if (size[k] == 1 && k < 2) // the second row is the first one again, with no weight
                outside = outside | (p.index[k] < zero()) | (zero() < (p.index[k] + p.rest[k]));
            else
                outside = outside | (p.index[k] < zero()) | (p.index[k] >= broadcast(static_cast<float>(past)));
        }
        const bool edge = any(outside & used);
        if (edge && mode == kVote)
            return kAlone;
        for (int k = 0; k < 3; ++k) {
            s.low[k] = broadcast(1.0f) - p.rest[k];
            s.high[k] = p.rest[k];
            if (edge && mode == kLinear) {
                const Pair pair = pair_of(p.index[k], p.rest[k], size[k]);
                s.low[k] = select(pair.low_there, pair.low, zero());
                s.high[k] = select(pair.high_there, pair.high, zero());
            }
            p.index[k] = select(used, p.index[k], zero());
        }
        if (lost) { // no weight along x is no weight at all
            s.low[2] = select(beyond, zero(), s.low[2]);
            s.high[2] = select(beyond, zero(), s.high[2]);
        }
        if (edge && mode == kNearest)
            clamp_whole(p, size);
        const vi16 z = to_whole(p.index[0]), y = to_whole(p.index[1]), x = to_whole(p.index[2]);
        const auto step = [&](int k) { return broadcast_whole(static_cast<int32_t>(job.grid.stride[k])); };
        store_whole(s.at, z * step(0) + y * step(1) + x);
        if (edge && mode == kNearest) {
            alignas(64) float lost[kLanes];
            store(lost, select(outside, broadcast(1.0f), zero()));
            for (int i = 0; i < kLanes; ++i)
                s.at[i] = lost[i] > 0.0f ? -1 : s.at[i];
        }
        return edge || lost ? kEdge : kInside;
    }
};

} // namespace
} // namespace voxelrt::VOXELRT_ISA
