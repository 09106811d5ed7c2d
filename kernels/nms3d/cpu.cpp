// nms3d: greedy non-maximum suppression of boxes that come best first. Faces lie one array each, so that a kept box is
// put against all behind it in one vectorised pass.
#include "kernel.h"

namespace voxelrt::VOXELRT_ISA {
namespace {

#define NMS3D_PARAMS(S, A) S(f32, overlap)
VOXELRT_PARAMS(Nms3dParams, NMS3D_PARAMS)

inline float larger(float a, float b) {
    return a > b ? a : b;
}

inline float smaller(float a, float b) {
    return a < b ? a : b;
}

Message check(const Step &step) {
    if (step.inputs != 2 || step.outputs != 1)
        return fail("takes two inputs and one output, not %d and %d", step.inputs, step.outputs);
    const Tensor &faces = step.in[0], &classes = step.in[1], &kept = step.out[0];
    if (faces.dtype != VOXELRT_F32 || classes.dtype != VOXELRT_I64 || kept.dtype != VOXELRT_U8 || faces.pending())
        return "takes float32 faces and int64 classes, gives uint8, nothing pending";
    if (faces.rank != 2 || classes.rank != 1 || kept.rank != 1 || faces.dims[0] != 6)
        return "takes faces (6, K) and classes (K)";
    if (classes.dims[0] != faces.dims[1] || kept.dims[0] != faces.dims[1])
        return "faces, classes and answer are not of one length";
    return faces.contiguous() && classes.contiguous() && kept.contiguous() ? nullptr : "takes arrays without gaps";
}

Message run(const Step &step, const Env &) {
    const int64_t count = step.in[0].dims[1];
    const float overlap = step.as<Nms3dParams>().overlap;
    const float *const f = step.in[0].as<float>();
    const float *const z0 = f, *const y0 = f + count, *const x0 = f + 2 * count, *const z1 = f + 3 * count,
                       *const y1 = f + 4 * count, *const x1 = f + 5 * count;
    const int64_t *const classes = step.in[1].as<int64_t>();
    uint8_t *const kept = step.out[0].as<uint8_t>();
    for (int64_t i = 0; i < count; ++i)
        kept[i] = 1;
    for (int64_t i = 0; i < count; ++i) {
        if (!kept[i])
            continue;
        const float dz = larger(z1[i] - z0[i], 0), dy = larger(y1[i] - y0[i], 0), dx = larger(x1[i] - x0[i], 0);
        const float mine = dz * dy * dx;
        for (int64_t j = i + 1; j < count; ++j) {
            const float ez = larger(z1[j] - z0[j], 0), ey = larger(y1[j] - y0[j], 0), ex = larger(x1[j] - x0[j], 0);
            const float cz = larger(smaller(z1[i], z1[j]) - larger(z0[i], z0[j]), 0);
            const float cy = larger(smaller(y1[i], y1[j]) - larger(y0[i], y0[j]), 0);
            const float cx = larger(smaller(x1[i], x1[j]) - larger(x0[i], x0[j]), 0);
            const float common = cz * cy * cx;
            const bool over = common > overlap * (mine + ez * ey * ex - common);
            kept[j] = static_cast<uint8_t>(kept[j] & !(over & (classes[j] == classes[i])));
        }
    }
    return nullptr;
}

} // namespace
} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(nms3d, {{"nms3d", 1, Nms3dParamsText, sizeof(Nms3dParams), check, run, nullptr, nullptr, nullptr}})
