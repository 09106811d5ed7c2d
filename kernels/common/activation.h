// Activations as epilogues of a step: one list of kinds, shared by every kernel that has one.
// kernels/common/activation.py names the same kinds for the compiler.
#pragma once

#include "approx.h"
#include "kernel.h"

namespace voxelrt::VOXELRT_ISA {

enum ActivationKind : int32_t {
    kNoActivation = 0,
    kRelu = 1,
    kLeakyRelu = 2, // alpha: slope
    kSigmoid = 3,
    kTanh = 4,
    kElu = 5,  // alpha
    kClip = 6, // alpha: low, beta: high
    kActivationCount = 7
};

struct Activation {
    int32_t kind;
    float alpha, beta;
};

// Apply to `count` numbers in place. The kind is chosen outside the loop, so that each loop is vector code.
static inline void activate(const Activation &a, float *x, int64_t count) {
    switch (a.kind) {
    case kRelu:
        for (int64_t i = 0; i < count; ++i)
            x[i] = x[i] < 0.0f ? 0.0f : x[i];
        break;
    case kLeakyRelu:
        for (int64_t i = 0; i < count; ++i)
            x[i] = x[i] < 0.0f ? x[i] * a.alpha : x[i];
        break;
    case kSigmoid:
        for (int64_t i = 0; i < count; ++i)
            x[i] = sigmoid_f32(x[i]);
        break;
    case kTanh:
        for (int64_t i = 0; i < count; ++i)
            x[i] = tanh_f32(x[i]);
        break;
    case kElu:
        for (int64_t i = 0; i < count; ++i)
            x[i] = x[i] < 0.0f ? a.alpha * expm1_negative_f32(x[i]) : x[i];
        break;
    case kClip:
        for (int64_t i = 0; i < count; ++i)
            x[i] = x[i] < a.alpha ? a.alpha : x[i] > a.beta ? a.beta : x[i];
        break;
    default:
        break;
    }
}

// Whether the activation leaves zeros as zeros: the channels past the last stay zero by themselves.
static inline bool keeps_zero(const Activation &a) {
    return a.kind != kSigmoid && !(a.kind == kClip && (a.alpha > 0.0f || a.beta < 0.0f));
}

} // namespace voxelrt::VOXELRT_ISA
