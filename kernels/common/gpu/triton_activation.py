"""The activations of ``kernels.common.activation`` by their numbers in plans, for Triton kernels, in float32."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    # Through exp of what is not positive, so that nothing overflows.
    e = tl.exp(-2.0 * tl.abs(x))
    return tl.where(x < 0, e - 1.0, 1.0 - e) / (1.0 + e)


@triton.jit
def activate(x, alpha, beta, NUMBER: tl.constexpr):
    y = x
    if NUMBER == 1:
        y = tl.maximum(x, 0.0)
    elif NUMBER == 2:
        y = tl.where(x < 0, alpha * x, x)
    elif NUMBER == 3:
        y = 1.0 / (1.0 + tl.exp(-x))
    elif NUMBER == 4:
        y = tanh(x)
    elif NUMBER == 5:
        y = tl.where(x < 0, alpha * (tl.exp(tl.minimum(x, 0.0)) - 1.0), x)
    elif NUMBER == 6:
        y = tl.minimum(tl.maximum(x, alpha), beta)
    elif NUMBER == 7:
        y = x / (1.0 + tl.exp(-x))
    elif NUMBER == 8:
        y = 0.5 * x * (1.0 + tl.erf(x * 0.70710678))
    elif NUMBER == 9:
        y = tl.minimum(tl.maximum(alpha * x + beta, 0.0), 1.0)
    elif NUMBER == 10:
        y = x * tl.minimum(tl.maximum(x / 6.0 + 0.5, 0.0), 1.0)
    elif NUMBER == 11:
        y = 0.5 * x * (1.0 + tanh(0.79788456 * (x + 0.044715 * x * x * x)))
    elif NUMBER == 12:
        y = x * tanh(tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x))))
    return y
