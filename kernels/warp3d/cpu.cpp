// warp3d: a volume at A·x + t + M·u(x). The output is walked in tiles, so that what a tile looks at stays in the cache.
// A tile's row has two passes: the positions of all its voxels, sixteen at a time; then every channel by them. What a
// vector cannot do is done voxel by voxel.
#include "row.h"

#include <initializer_list>

namespace voxelrt::VOXELRT_ISA {
namespace {

template <class T, int M> struct Warp {
    const Job &job;
    const Row &row;

    const T *volume() const { return job.volume->as<const T>() + row.n * job.volume->strides[0]; }

    struct Lanes {
        alignas(64) float index[3][kLanes], rest[3][kLanes];
        explicit Lanes(const Places &p) {
            for (int k = 0; k < 3; ++k) {
                store(index[k], p.index[k]);
                store(rest[k], p.rest[k]);
            }
        }
    };

    void one(const Lanes &p, int i, T *to) const {
        Spot spots[3];
        for (int k = 0; k < 3; ++k)
            spots[k] = {static_cast<double>(p.index[k][i]), static_cast<double>(p.rest[k][i])};
        sample_one<T, M>(volume(), job.volume->strides[1], job.channels, job.grid, spots, job.params.padding, to + i,
                         job.out->strides[1]);
    }

    void one_by_one(const Places &p, T *to, int count) const {
        const Lanes lanes(p);
        for (int i = 0; i < count; ++i)
            one(lanes, i, to);
    }

    // Cubic voxels are a vector each: those inside by their sixteen rows, the others by their taps.
    void cubic(const Places &p, T *to, int count) const {
        const Grid &g = job.grid;
        vm16 inside = ~(is_nan(p.rest[0] + p.rest[1] + p.rest[2]));
        for (int k = g.flat ? 1 : 0; k < 3; ++k)
            inside =
                inside & (p.index[k] >= broadcast(1.0f)) & (p.index[k] < broadcast(static_cast<float>(g.size[k] - 2)));
        alignas(64) float near[kLanes];
        store(near, select(inside, broadcast(1.0f), zero()));
        const CubicWeights weights = cubic_weights<M>(p.rest, g.flat);
        const Lanes lanes(p);
        for (int i = 0; i < count; ++i) {
            if (near[i] == 0.0f) {
                one(lanes, i, to);
                continue;
            }
            const auto first = [&](int k) { return (static_cast<int64_t>(lanes.index[k][i]) - 1) * g.stride[k]; };
            const T *from = volume() + (g.flat ? 0 : first(0)) + first(1) + first(2);
            for (int64_t c = 0; c < job.channels; ++c)
                to[c * job.out->strides[1] + i] = cubic_one(from + c * job.volume->strides[1], g, weights, i);
        }
    }

    // One channel of sixteen voxels; `all` is where the first channel's go.
    void sample(const T *plane, int64_t i, T *to, T *all, int count) const {
        const Spots &s = row.spots[i];
        if constexpr (M == kNearest)
            nearest(plane, s, to, count);
        else if constexpr (M == kVote)
            vote(plane, job.grid, s, to, count);
        else if constexpr (M == kLinear)
            if (!linear(plane, job.grid, s, to, count, row.reached[i] == kInside))
                one_by_one(row.places[i], all, count);
    }

    // The second pass: every channel of the voxels of a row, by what the first one found.
    void fill(int64_t z, int64_t y, int64_t begin, int64_t end) const {
        const Tensor &out = *job.out;
        T *to = out.as<T>() + row.n * out.strides[0] + z * job.stride(out, 0) + y * job.stride(out, 1);
        const auto lanes = [&](int64_t x) { return static_cast<int>(end - x < kLanes ? end - x : kLanes); };
        for (int64_t x = begin, i = 0; x < end; x += kLanes, ++i)
            if (row.reached[i] == kAlone) {
                if constexpr (M == kBspline || M == kKeys)
                    cubic(row.places[i], to + x, lanes(x));
                else
                    one_by_one(row.places[i], to + x, lanes(x));
            }
        if constexpr (M == kBspline || M == kKeys)
            return;
        const T *plane = volume();
        T *const all = to;
        for (int64_t c = 0; c < job.channels; ++c, plane += job.volume->strides[1], to += out.strides[1])
            for (int64_t x = begin, i = 0; x < end; x += kLanes, ++i)
                if (row.reached[i] != kAlone)
                    sample(plane, i, to + x, all + x, lanes(x));
    }
};

template <class T, int M> void warp(const Job &job, const Env &env) {
    const int64_t tiles[3] = {(job.size[0] + kTileZ - 1) / kTileZ, (job.size[1] + kTileY - 1) / kTileY,
                              (job.size[2] + kTileX - 1) / kTileX};
    env.parallel(job.batch * tiles[0] * tiles[1] * tiles[2], [&](int64_t number, uint32_t) {
        Row row(job, number / (tiles[0] * tiles[1] * tiles[2]));
        const Warp<T, M> work{job, row};
        const int64_t x = number % tiles[2] * kTileX, y = number / tiles[2] % tiles[1] * kTileY,
                      z = number / tiles[2] / tiles[1] % tiles[0] * kTileZ;
        const auto end = [](int64_t start, int64_t tile, int64_t size) {
            return start + tile < size ? start + tile : size;
        };
        for (int64_t i = z; i < end(z, kTileZ, job.size[0]); ++i)
            for (int64_t j = y; j < end(y, kTileY, job.size[1]); ++j) {
                row.find(i, j, x, end(x, kTileX, job.size[2]));
                work.fill(i, j, x, end(x, kTileX, job.size[2]));
            }
    });
}

bool interpolated(int dtype) {
    return dtype == VOXELRT_F32 || dtype == VOXELRT_F16 || dtype == VOXELRT_BF16 || dtype == VOXELRT_I16 ||
           dtype == VOXELRT_U16 || dtype == VOXELRT_I8 || dtype == VOXELRT_U8;
}

bool elects(int dtype) {
    return dtype == VOXELRT_I8 || dtype == VOXELRT_U8 || dtype == VOXELRT_I16 || dtype == VOXELRT_U16 ||
           dtype == VOXELRT_I32 || dtype == VOXELRT_U32;
}

// ---- the kernel ----

Message check_field(const Tensor &field, const Tensor &volume, const Tensor &out) {
    const int axes = volume.rank - 2;
    if (field.dtype != VOXELRT_F32 && field.dtype != VOXELRT_F16 && field.dtype != VOXELRT_BF16)
        return "a displacement field is float32, float16 or bfloat16";
    if (field.rank != volume.rank || field.dims[1] != axes)
        return fail("a displacement field of this volume has %d axes and %d components", volume.rank, axes);
    if (field.dims[0] != 1 && field.dims[0] != out.dims[0])
        return fail("%lld fields for %lld volumes", static_cast<long long>(field.dims[0]),
                    static_cast<long long>(out.dims[0]));
    for (int i = 2; i < out.rank; ++i)
        if (field.dims[i] != out.dims[i])
            return fail("axis %d of the displacement field is not the output's", i);
    return nullptr;
}

Message check_affine(const Tensor &affine, const Tensor &volume, const Tensor &out) {
    const int axes = volume.rank - 2;
    if ((affine.dtype != VOXELRT_F32 && affine.dtype != VOXELRT_F64) || affine.rank != 3 || !affine.contiguous() ||
        (affine.dims[0] != 1 && affine.dims[0] != out.dims[0]) || affine.dims[1] != axes || affine.dims[2] != axes + 1)
        return fail("an affine is (N or 1, %d, %d) of float32 or float64, without gaps", axes, axes + 1);
    return nullptr;
}

Message check(const Step &step) {
    if (step.inputs < 1 || step.inputs > 3 || step.outputs != 1)
        return fail("takes one to three inputs and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &field = step.input(1), &affine = step.input(2), &out = step.out[0];
    for (const Tensor *t : {&in, &field, &affine, &out})
        if (t->present() && (t->layout != VOXELRT_LINEAR || t->pending()))
            return "takes linear tensors, nothing pending";
    if (!in.present() || !out.present() || in.dtype != out.dtype || in.rank != out.rank || in.rank < 4 || in.rank > 5)
        return "takes a volume (N, C, Z, Y, X) or (N, C, Y, X) and gives one like it";
    const WarpParams p = step.as<WarpParams>();
    if (p.mode < 0 || p.mode >= kModes || p.padding < 0 || p.padding >= kPaddings)
        return "there is no such mode or padding";
    if (p.mode == kLinear && !interpolated(in.dtype))
        return "interpolates float32, half and 8- or 16-bit volumes";
    if ((p.mode == kBspline || p.mode == kKeys) && in.dtype != VOXELRT_F32)
        return "interpolates cubically in float32";
    if (p.mode == kVote && !elects(in.dtype))
        return "takes a vote of whole numbers of up to 32 bits";
    for (int i = 0; i < 9; ++i)
        if (!(p.matrix[i] > -1e6 && p.matrix[i] < 1e6))
            return fail("the displacement's matrix holds %g", p.matrix[i]);
    for (int i = 0; i < in.rank; ++i) {
        if (i < 2 && in.dims[i] != out.dims[i])
            return "the output has another batch or other channels than the volume";
        if (i >= 2 && out.count() > 0 && in.dims[i] < 1)
            return "the volume is empty";
        if (in.dims[i] > kLongest || out.dims[i] > kLongest)
            return fail("axis %d is too long", i);
        if (i < in.rank - 1 && (in.strides[i] < 0 || out.strides[i] < 0))
            return "strides go forward";
    }
    const int last = in.rank - 1;
    if (out.count() > 0 &&
        ((in.dims[last] > 1 && in.strides[last] != 1) || (out.dims[last] > 1 && out.strides[last] != 1)))
        return "takes rows without gaps";
    if (field.present())
        if (Message message = check_field(field, in, out))
            return message;
    return affine.present() ? check_affine(affine, in, out) : nullptr;
}

Message run(const Step &step, const Env &env) {
    const Job job = job_of(step);
    if (job.out->count() == 0)
        return nullptr;
    with_storage(job.volume->dtype, [&](auto tag) {
        using T = decltype(tag);
        if (job.params.mode == kNearest)
            warp<T, kNearest>(job, env);
        if constexpr (std::is_integral_v<T> && sizeof(T) <= 4)
            if (job.params.mode == kVote)
                warp<T, kVote>(job, env);
        if constexpr (std::is_same_v<T, float>) {
            if (job.params.mode == kBspline)
                warp<T, kBspline>(job, env);
            if (job.params.mode == kKeys)
                warp<T, kKeys>(job, env);
        }
        if constexpr (std::is_same_v<T, float> || (sizeof(T) <= 2 && !std::is_same_v<T, Bool>))
            if (job.params.mode == kLinear)
                warp<T, kLinear>(job, env);
    });
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(warp3d, {{"warp3d", 1, WarpParamsText, sizeof(WarpParams), check, run, nullptr, nullptr, nullptr}})
