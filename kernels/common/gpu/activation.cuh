// The activations of kernels/common/activation.py by their numbers in plans, in float.
#pragma once

namespace voxelrt {

__device__ inline float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

__device__ inline float activate(int number, float x, float alpha, float beta) {
    switch (number) {
    case 1:
        return fmaxf(x, 0.0f);
    case 2:
        return x < 0.0f ? alpha * x : x;
    case 3:
        return sigmoid(x);
    case 4:
        return tanhf(x);
    case 5:
        return x < 0.0f ? alpha * expm1f(x) : x;
    case 6:
        return fminf(fmaxf(x, alpha), beta);
    case 7:
        return x * sigmoid(x);
    case 8:
        return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case 9:
        return fminf(fmaxf(fmaf(alpha, x, beta), 0.0f), 1.0f);
    case 10:
        return x * fminf(fmaxf(x / 6.0f + 0.5f, 0.0f), 1.0f);
    case 11:
        return 0.5f * x * (1.0f + tanhf(0.79788456f * fmaf(0.044715f * x * x, x, x)));
    case 12:
        return x * tanhf(x > 20.0f ? x : log1pf(expf(x)));
    default:
        return x;
    }
}

} // namespace voxelrt
