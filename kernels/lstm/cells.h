// What a cell does with its sums: gates, activations, the new state. Sixteen hidden units of one row at a time.
#pragma once

#include "approx.h"
#include "kernel.h"

namespace voxelrt::VOXELRT_ISA {

enum Cell : int { kLstm, kGru, kRnn, kCells };

// The functions of ONNX's recurrent operators, in the order of codes.py.
enum Function : int {
    kSigmoid,
    kTanh,
    kRelu,
    kAffine,
    kLeakyRelu,
    kThresholdedRelu,
    kScaledTanh,
    kHardSigmoid,
    kElu,
    kSoftsign,
    kSoftplus,
    kFunctions
};

static inline float apply_function(int function, float a, float b, float x) {
    switch (function) {
    case kSigmoid:
        return sigmoid_f32(x);
    case kTanh:
        return tanh_f32(x);
    case kRelu:
        return x < 0.0f ? 0.0f : x;
    case kAffine:
        return a * x + b;
    case kLeakyRelu:
        return x < 0.0f ? a * x : x;
    case kThresholdedRelu:
        return x <= a ? 0.0f : x;
    case kScaledTanh:
        return a * tanh_f32(b * x);
    case kHardSigmoid: {
        const float y = a * x + b;
        return y < 0.0f ? 0.0f : y > 1.0f ? 1.0f : y;
    }
    case kElu:
        return x < 0.0f ? a * expm1_negative_f32(x) : x;
    case kSoftsign:
        return x / (1.0f + absolute_f32(x));
    default:
        return softplus_f32(x);
    }
}

// f, g and h of the ONNX equations: the usual ones, which become vector code, or any. fg and fh: the products f(x) ·
// g(y) and f(x) · h(y) that an LSTM cell is made of.
struct UsualFunctions {
    float f(float x) const { return 1.0f / gate_divisor_f32(x); }
    float g(float x) const { return tanh_f32(x); }
    float fg(float x, float y) const { return gated_tanh_f32(x, y); }
    float fh(float x, float y) const { return gated_tanh_f32(x, y); }
};
struct UsualRnn {
    float f(float x) const { return tanh_f32(x); }
};
struct AnyFunctions {
    int code[3];
    float alpha[3], beta[3];
    float f(float x) const { return apply_function(code[0], alpha[0], beta[0], x); }
    float g(float x) const { return apply_function(code[1], alpha[1], beta[1], x); }
    float h(float x) const { return apply_function(code[2], alpha[2], beta[2], x); }
    float fg(float x, float y) const { return f(x) * g(y); }
    float fh(float x, float y) const { return f(x) * h(y); }
};

// What holds for every unit of a direction.
struct CellOptions {
    float clip;          // of what the functions get; infinity for none
    int64_t peep_stride; // between the peepholes of i, o and f
    float bound(float x) const {
        x = x < -clip ? -clip : x;
        return x > clip ? clip : x;
    }
};

// x, s: the parts of the gates that come from the input and from the state, (i, o, f, c) × 16; peep: those units'
// weights of the peephole of i, or null. coupled: the forget gate is one less the input gate; asked of the compiler,
// since a branch on it keeps the whole loop scalar.
template <bool peepholes, bool coupled, class F>
static void lstm_cell(const F &functions, const CellOptions &o, const float *x, const float *s, const float *peep,
                      const float *c_old, float *c, float *h) {
    VOXELRT_INDEPENDENT
    for (int l = 0; l < kBlock; ++l) {
        const float before = c_old[l];
        float in = x[l] + s[l], out = x[16 + l] + s[16 + l], forget = x[32 + l] + s[32 + l];
        if constexpr (peepholes) {
            in += peep[l] * before;
            forget += peep[2 * o.peep_stride + l] * before;
        }
        float f;
        if constexpr (coupled)
            f = 1.0f - functions.f(o.bound(in));
        else
            f = functions.f(o.bound(forget));
        const float now = f * before + functions.fg(o.bound(in), o.bound(x[48 + l] + s[48 + l]));
        if constexpr (peepholes)
            out += peep[o.peep_stride + l] * now;
        c[l] = now;
        h[l] = functions.fh(o.bound(out), now);
    }
}

// The gates (z, r, h) × 16 with the reset gate behind the product: s holds all three, bias that of the product of h.
template <class F>
static void gru_cell(const F &functions, const CellOptions &o, const float *x, const float *s, const float *bias,
                     const float *h_old, float *h) {
    VOXELRT_INDEPENDENT
    for (int l = 0; l < kBlock; ++l) {
        const float z = functions.f(o.bound(x[l] + s[l])), r = functions.f(o.bound(x[16 + l] + s[16 + l]));
        const float made = functions.g(o.bound(x[32 + l] + r * (s[32 + l] + bias[l])));
        h[l] = (1.0f - z) * made + z * h_old[l];
    }
}

// The reset gate in front of the product: first z and r · h of before, from s (z, r) × 16 ...
template <class F>
static void gru_gates(const F &functions, const CellOptions &o, const float *x, const float *s, const float *h_old,
                      float *z, float *reset) {
    VOXELRT_INDEPENDENT
    for (int l = 0; l < kBlock; ++l) {
        z[l] = functions.f(o.bound(x[l] + s[l]));
        reset[l] = functions.f(o.bound(x[16 + l] + s[16 + l])) * h_old[l];
    }
}
// ... then the new state, from the product of r · h with the weights of h.
template <class F>
static void gru_state(const F &functions, const CellOptions &o, const float *x, const float *s, const float *z,
                      const float *h_old, float *h) {
    VOXELRT_INDEPENDENT
    for (int l = 0; l < kBlock; ++l) {
        const float made = functions.g(o.bound(x[32 + l] + s[l]));
        h[l] = (1.0f - z[l]) * made + z[l] * h_old[l];
    }
}

template <class F>
static void rnn_cell(const F &functions, const CellOptions &o, const float *x, const float *s, float *h) {
    VOXELRT_INDEPENDENT
    for (int l = 0; l < kBlock; ++l)
        h[l] = functions.f(o.bound(x[l] + s[l]));
}

} // namespace voxelrt::VOXELRT_ISA
