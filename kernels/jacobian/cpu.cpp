// jacobian: the determinant of 1 + ∂u/∂x from central differences, one pass over the field, and the count of voxels
// where it is not positive. Rows are the tasks.
#include "kernel.h"

#include <cstring>
#include <initializer_list>

namespace voxelrt::VOXELRT_ISA {
namespace {

#define JACOBIAN_PARAMS(S, A) S(i32, reserved)
VOXELRT_PARAMS(JacobianParams, JACOBIAN_PARAMS)

constexpr int64_t kTaskElements = 16384;

// The two neighbours that a difference along an axis takes, as offsets, and one over their distance.
struct Difference {
    int64_t before, behind;
    float scale;
};

Difference difference(int64_t at, int64_t size, int64_t stride) {
    const int64_t before = at > 0 ? 1 : 0, behind = at + 1 < size ? 1 : 0, distance = before + behind;
    return {-before * stride, behind * stride, distance ? 1.0f / static_cast<float>(distance) : 0.0f};
}

struct Field {
    int axes;
    int64_t size[3], voxels;

    // Voxels [begin, end) of a row: all have the same neighbours along each axis.
    int64_t piece(const float *const *u, float *to, int64_t begin, int64_t end, const Difference *d) const {
        int64_t folded = 0;
        for (int64_t x = begin; x < end; ++x) {
            float m[3][3];
            for (int i = 0; i < 3; ++i)
                for (int j = 0; j < 3; ++j)
                    m[i][j] = (u[i][x + d[j].behind] - u[i][x + d[j].before]) * d[j].scale + (i == j ? 1.0f : 0.0f);
            const float value = m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
                                m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
                                m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
            to[x] = value;
            folded += value <= 0.0f ? 1 : 0;
        }
        return folded;
    }

    int64_t row(const float *field, float *to, int64_t z, int64_t y) const {
        const int64_t start = (z * size[1] + y) * size[2], last = size[2] - 1;
        const float *u[3];
        for (int i = 0; i < 3; ++i)
            u[i] = i < 3 - axes ? nullptr : field + (i - (3 - axes)) * voxels + start;
        Difference d[3] = {difference(z, size[0], size[1] * size[2]), difference(y, size[1], size[2]), {}};
        int64_t folded = 0;
        const int64_t ends[4] = {0, 1, last > 1 ? last : 1, size[2]};
        for (int part = 0; part < 3; ++part)
            if (ends[part] < ends[part + 1]) {
                d[2] = difference(ends[part], size[2], 1);
                folded += axes == 2 ? flat(u, to + start, ends[part], ends[part + 1], d)
                                    : piece(u, to + start, ends[part], ends[part + 1], d);
            }
        return folded;
    }

    int64_t flat(const float *const *u, float *to, int64_t begin, int64_t end, const Difference *d) const {
        int64_t folded = 0;
        for (int64_t x = begin; x < end; ++x) {
            const auto slope = [&](int i, int j) {
                return (u[i][x + d[j].behind] - u[i][x + d[j].before]) * d[j].scale;
            };
            const float value = (1.0f + slope(1, 1)) * (1.0f + slope(2, 2)) - slope(1, 2) * slope(2, 1);
            to[x] = value;
            folded += value <= 0.0f ? 1 : 0;
        }
        return folded;
    }
};

Message check(const Step &step) {
    if (step.inputs != 1 || step.outputs != 2)
        return fail("takes one input and two outputs, not %d and %d", step.inputs, step.outputs);
    const Tensor &in = step.in[0], &out = step.out[0], &folded = step.out[1];
    for (const Tensor *t : {&in, &out, &folded})
        if (!t->present() || t->layout != VOXELRT_LINEAR || t->pending() || (t->count() > 0 && !t->contiguous()))
            return "takes linear tensors without gaps, nothing pending";
    if (in.dtype != VOXELRT_F32 || out.dtype != VOXELRT_F32 || folded.dtype != VOXELRT_I64)
        return "takes a float32 field and gives float32 and int64";
    if (in.rank < 4 || in.rank > 5 || in.dims[1] != in.rank - 2)
        return "a displacement field is (N, 3, Z, Y, X) or (N, 2, Y, X)";
    if (out.rank != in.rank || out.dims[1] != 1 || folded.rank != 1 || folded.dims[0] != in.dims[0])
        return "gives determinants (N, 1, Z, Y, X) and counts (N)";
    for (int i = 0; i < in.rank; ++i)
        if (i != 1 && in.dims[i] != out.dims[i])
            return fail("axis %d of the determinants is not the field's", i);
    return nullptr;
}

Message run(const Step &step, const Env &env) {
    const Tensor &in = step.in[0];
    const int axes = in.rank - 2;
    Field field{axes, {axes == 3 ? in.dims[2] : 1, in.dims[in.rank - 2], in.dims[in.rank - 1]}, 0};
    field.voxels = field.size[0] * field.size[1] * field.size[2];
    int64_t *folded = step.out[1].as<int64_t>();
    std::memset(folded, 0, static_cast<size_t>(in.dims[0]) * sizeof(int64_t));
    if (field.voxels == 0)
        return nullptr;
    const int64_t rows = field.size[0] * field.size[1];
    env.parallel_range(in.dims[0] * rows, 1 + kTaskElements / field.size[2], [&](int64_t begin, int64_t end, uint32_t) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t n = i / rows, z = i % rows / field.size[1], y = i % field.size[1];
            const int64_t found = field.row(in.as<const float>() + n * axes * field.voxels,
                                            step.out[0].as<float>() + n * field.voxels, z, y);
            __atomic_fetch_add(&folded[n], found, __ATOMIC_RELAXED); // whole numbers: any order gives the same sum
        }
    });
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(jacobian,
                {{"jacobian", 1, JacobianParamsText, sizeof(JacobianParams), check, run, nullptr, nullptr, nullptr}})
