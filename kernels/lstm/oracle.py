"""lstm, obviously: the equations of ONNX's LSTM, GRU and RNN, one step of one sequence at a time, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from voxelrt.kernels.common.kernel import Array

Function = Callable[[Array], Array]


def activation(name: str, alpha: float | None, beta: float | None) -> Function:
    def of(default: float, given: float | None) -> float:
        return default if given is None else given

    def exp(x: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(x))

    functions: dict[str, Function] = {
        "Sigmoid": lambda x: 1 / (1 + exp(-x)),
        "Tanh": lambda x: np.asarray(np.tanh(x)),
        "Relu": lambda x: np.maximum(x, 0),
        "Affine": lambda x: of(1.0, alpha) * x + of(0.0, beta),
        "LeakyRelu": lambda x: np.where(x < 0, of(0.01, alpha) * x, x),
        "ThresholdedRelu": lambda x: np.where(x > of(1.0, alpha), x, 0),
        "ScaledTanh": lambda x: of(1.0, alpha) * np.tanh(of(1.0, beta) * x),
        "HardSigmoid": lambda x: np.clip(of(0.2, alpha) * x + of(0.5, beta), 0, 1),
        "Elu": lambda x: np.where(x < 0, of(1.0, alpha) * (exp(x) - 1), x),
        "Softsign": lambda x: x / (1 + np.abs(x)),
        "Softplus": lambda x: np.log1p(exp(x)),
    }
    return functions[name]


def lstm(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Array | None = None,
    h: Array | None = None,
    c: Array | None = None,
    p: Array | None = None,
    *,
    cell: str = "lstm",
    direction: str = "forward",
    activations: Sequence[tuple[str, float | None, float | None]] | None = None,
    clip: float | None = None,
    input_forget: bool = False,
    linear_before_reset: bool = False,
) -> tuple[Array, ...]:
    steps, batch, _ = x.shape
    directions, hidden = w.shape[0], r.shape[2]
    usual = {"lstm": ("Sigmoid", "Tanh", "Tanh"), "gru": ("Sigmoid", "Tanh"), "rnn": ("Tanh",)}[cell]
    named = list(activations) if activations is not None else [(name, None, None) for name in usual * directions]

    def clipped(value: Array) -> Array:
        return value if clip is None else np.clip(value, -clip, clip)

    y = np.zeros((steps, directions, batch, hidden))
    last_h, last_c = (np.zeros((directions, batch, hidden)) for _ in range(2))
    for d in range(directions):
        backwards = direction == "reverse" or d == 1
        f, *others = (activation(*named[d * len(usual) + i]) for i in range(len(usual)))
        W, R = (
            np.split(w[d].astype(np.float64), len(w[d]) // hidden),
            np.split(r[d].astype(np.float64), len(w[d]) // hidden),
        )
        bias = np.zeros(2 * len(w[d])) if b is None else b[d].astype(np.float64)
        B = np.split(bias, 2 * len(W))
        peep = np.zeros((3, hidden)) if p is None else p[d].astype(np.float64).reshape(3, hidden)
        for n in range(batch):
            length = steps if lengths is None else int(lengths[n])
            state = np.zeros(hidden) if h is None else h[d, n].astype(np.float64)
            inner = np.zeros(hidden) if c is None else c[d, n].astype(np.float64)
            for t in range(length)[::-1] if backwards else range(length):
                X = x[t, n].astype(np.float64)
                G = len(W)
                if cell == "rnn":
                    state = f(clipped(W[0] @ X + R[0] @ state + B[0] + B[1]))
                elif cell == "gru":
                    z = f(clipped(W[0] @ X + R[0] @ state + B[0] + B[G]))
                    reset = f(clipped(W[1] @ X + R[1] @ state + B[1] + B[G + 1]))
                    if linear_before_reset:
                        made = W[2] @ X + reset * (R[2] @ state + B[G + 2]) + B[2]
                    else:
                        made = W[2] @ X + R[2] @ (reset * state) + B[G + 2] + B[2]
                    state = (1 - z) * others[0](clipped(made)) + z * state
                else:
                    i = f(clipped(W[0] @ X + R[0] @ state + peep[0] * inner + B[0] + B[G]))
                    forget = f(clipped(W[2] @ X + R[2] @ state + peep[2] * inner + B[2] + B[G + 2]))
                    new = others[0](clipped(W[3] @ X + R[3] @ state + B[3] + B[G + 3]))
                    inner = (1 - i if input_forget else forget) * inner + i * new
                    o = f(clipped(W[1] @ X + R[1] @ state + peep[1] * inner + B[1] + B[G + 1]))
                    state = o * others[1](inner)
                y[t, d, n] = state
            last_h[d, n], last_c[d, n] = state, inner
    return (y, last_h, last_c) if cell == "lstm" else (y, last_h)
