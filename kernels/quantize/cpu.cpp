// quantize.linear: y = saturate(round(x / scale) + zero). quantize.dequantize: y = (x - zero) · scale.
// Scale and zero have the shape of x, spread by strides of zero: one number, one a channel, or one a block.
#include "elements.h"

#include <cmath>

namespace voxelrt::VOXELRT_ISA {

#define QUANTIZE_PARAMS(S, A) S(i32, reserved)
VOXELRT_PARAMS(QuantizeParams, QUANTIZE_PARAMS)

constexpr int64_t kTile = 16 * kChunk; // elements of a task

// The range of a dtype that numbers are rounded to; false for another dtype.
static bool range_of(int dtype, float &low, float &high) {
    switch (dtype) {
    case VOXELRT_I8:
        low = -128.0f, high = 127.0f;
        return true;
    case VOXELRT_U8:
        low = 0.0f, high = 255.0f;
        return true;
    case VOXELRT_I16:
        low = -32768.0f, high = 32767.0f;
        return true;
    case VOXELRT_U16:
        low = 0.0f, high = 65535.0f;
        return true;
    default:
        return false;
    }
}

static bool narrow_float(int dtype) {
    return dtype == VOXELRT_F32 || dtype == VOXELRT_F16 || dtype == VOXELRT_BF16;
}

static bool same_shape(const Tensor &a, const Tensor &b) {
    if (a.rank != b.rank || b.layout != VOXELRT_LINEAR || b.pending())
        return false;
    for (int i = 0; i < a.rank; ++i)
        if (a.dims[i] != b.dims[i])
            return false;
    return true;
}

static Message check_operands(const Step &step) {
    if (step.inputs < 2 || step.inputs > 3 || step.outputs != 1)
        return "takes x, scale and perhaps zero, and gives y";
    const Tensor &x = step.in[0], &scale = step.in[1], &zero = step.input(2), &y = step.out[0];
    if (!x.present() || !scale.present() || !y.present() || x.layout != VOXELRT_LINEAR || x.pending() ||
        !same_shape(x, scale) || !same_shape(x, y) || (zero.present() && !same_shape(x, zero)))
        return "x, scale, zero (spread by strides of zero) and y are linear and of one shape";
    return narrow_float(scale.dtype) ? nullptr : "scale is float32, float16 or bfloat16";
}

static Message check_linear(const Step &step) {
    if (Message message = check_operands(step))
        return message;
    float low, high;
    if (!narrow_float(step.in[0].dtype) || !range_of(step.out[0].dtype, low, high) ||
        (step.input(2).present() && step.input(2).dtype != step.out[0].dtype))
        return "takes a float and gives int8, uint8, int16 or uint16, which zero is too";
    return nullptr;
}

static Message check_dequantize(const Step &step) {
    if (Message message = check_operands(step))
        return message;
    float low, high;
    const int dtype = step.in[0].dtype;
    if ((!range_of(dtype, low, high) && dtype != VOXELRT_I32) || !narrow_float(step.out[0].dtype) ||
        (step.input(2).present() && step.input(2).dtype != dtype))
        return "takes int8, uint8, int16, uint16 or int32, which zero is too, and gives a float";
    return nullptr;
}

// Runs body(x, scale, zero, y, count) over chunks in the computed types; zero is null where there is none.
template <class X, class Y, class F> static void chunks(const Step &step, const Env &env, F &&body) {
    const Tensor *tensors[4] = {&step.in[0], &step.in[1], &step.input(2), &step.out[0]};
    Loop loop;
    loop.operands = 4;
    for (int i = 0; i < step.in[0].rank; ++i) {
        int64_t strides[4];
        for (int k = 0; k < 4; ++k)
            strides[k] = tensors[k]->present() ? tensors[k]->strides[i] : 0;
        loop.add(step.in[0].dims[i], strides);
    }
    loop.finish();
    env.parallel_range(loop.count(), kTile, [&](int64_t begin, int64_t end, uint32_t) {
        double x[kChunk], scale[kChunk], zero[kChunk], y[kChunk];
        const auto part = [&](int k) { return Elements{tensors[k]->data, tensors[k]->dtype}; };
        for (int64_t at = begin; at < end; at += kChunk) {
            const int64_t count = end - at < kChunk ? end - at : kChunk;
            Y *to = static_cast<Y *>(target(part(3), loop, 3, at, y));
            body(static_cast<const X *>(load(part(0), loop, 0, at, count, x)),
                 static_cast<const float *>(load(part(1), loop, 1, at, count, scale)),
                 tensors[2]->present() ? static_cast<const int64_t *>(load(part(2), loop, 2, at, count, zero))
                                       : nullptr,
                 to, count);
            store(to, part(3), loop, 3, at, count);
        }
    });
}

static Message run_linear(const Step &step, const Env &env) {
    if (step.in[0].count() == 0)
        return nullptr;
    float low = 0.0f, high = 0.0f;
    range_of(step.out[0].dtype, low, high);
    chunks<float, int64_t>(step, env,
                           [&](const float *x, const float *scale, const int64_t *zero, int64_t *y, int64_t count) {
                               for (int64_t i = 0; i < count; ++i) {
                                   const float offset = zero ? static_cast<float>(zero[i]) : 0.0f;
                                   float v = std::nearbyint(x[i] / scale[i]);
                                   v = v > low - offset ? v : low - offset; // a NaN becomes the lowest number
                                   v = v < high - offset ? v : high - offset;
                                   y[i] = static_cast<int32_t>(v + offset);
                               }
                           });
    return nullptr;
}

static Message run_dequantize(const Step &step, const Env &env) {
    if (step.in[0].count() == 0)
        return nullptr;
    chunks<int64_t, float>(step, env,
                           [](const int64_t *x, const float *scale, const int64_t *zero, float *y, int64_t count) {
                               for (int64_t i = 0; i < count; ++i)
                                   y[i] = static_cast<float>(zero ? x[i] - zero[i] : x[i]) * scale[i];
                           });
    return nullptr;
}

} // namespace voxelrt::VOXELRT_ISA

VOXELRT_KERNELS(quantize, {{"quantize.linear", 1, QuantizeParamsText, sizeof(QuantizeParams), check_linear, run_linear,
                            nullptr, nullptr, nullptr},
                           {"quantize.dequantize", 1, QuantizeParamsText, sizeof(QuantizeParams), check_dequantize,
                            run_dequantize, nullptr, nullptr, nullptr}})
