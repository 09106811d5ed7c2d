"""lstm: recurrent layers, LSTM, GRU and plain RNN, in ONNX's form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Array, Case, Kernel
from voxelrt.kernels.lstm.codes import ACTIVATIONS, GATES
from voxelrt.kernels.lstm.oracle import lstm as oracle


def _case(
    cell: str,
    steps: int,
    batch: int,
    inputs: int,
    hidden: int,
    direction: str = "forward",
    *,
    extras: str = "b",
    activations: Sequence[tuple[str, float | None, float | None]] | None = None,
    tolerance: float = 1e-6,
    bench: bool = False,
    **options: Any,
) -> Case:
    """``extras``: b for a bias, l for lengths, h and c for first states, p for peepholes."""
    D, G = 2 if direction == "bidirectional" else 1, GATES[cell]
    extras = extras if cell == "lstm" else extras.replace("c", "")

    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        def normal(scale: float, *shape: int) -> Array:
            return rng.normal(0, scale, shape).astype(np.float32)

        scale = 1.5 / max(1, hidden) ** 0.5
        x = normal(1, steps, batch, inputs)
        weights = (normal(scale, D, G * hidden, inputs), normal(scale, D, G * hidden, hidden))
        optional: dict[str, Callable[[], Array]] = {
            "b": lambda: normal(0.5, D, 2 * G * hidden),
            "l": lambda: rng.integers(0, steps + 1, batch, dtype=np.int32),
            "h": lambda: normal(0.7, D, batch, hidden),
            "c": lambda: normal(0.7, D, batch, hidden),
            "p": lambda: normal(0.5, D, 3 * hidden),
        }
        chosen = {"cell": cell, "direction": direction, **options}
        if activations is not None:
            chosen["activations"] = tuple(activations)
        return (x, *weights, *(make_it() if key in extras else None for key, make_it in optional.items())), chosen

    flops = 2.0 * steps * batch * D * G * hidden * (inputs + hidden)
    moved = 4.0 * (D * G * hidden * (inputs + hidden) + steps * batch * (inputs + D * hidden))
    words = [cell, f"t{steps}n{batch}i{inputs}h{hidden}", direction, extras]
    words += [f"{name}-{value}" for name, value in options.items()]
    words += ["-".join(name for name, _, _ in activations)] if activations else []
    return Case("-".join(words), make, tolerance, flops, moved, bench)


_UNUSUAL = [(name, *defaults) for name, defaults in ACTIVATIONS.items()]

KERNEL = Kernel(
    name="lstm",
    oracle=oracle,
    cases=(
        *(_case(cell, 1, 1, 1, 1, extras="") for cell in GATES),
        *(_case(cell, 7, 3, 5, 13, "bidirectional", extras="blhc") for cell in GATES),
        *(_case(cell, 9, 11, 17, 37, "reverse", extras="blh") for cell in GATES),
        *(_case(cell, 5, 1, 6, 100, extras="bhc") for cell in GATES),
        *(_case(cell, 6, 9, 33, 50, clip=0.7) for cell in GATES),
        _case("lstm", 6, 4, 8, 33, "bidirectional", extras="bp"),
        _case("lstm", 6, 4, 8, 33, extras="bpc", input_forget=True),
        _case("gru", 7, 1, 5, 70, extras="bh", linear_before_reset=True),
        _case("gru", 7, 13, 5, 21, "bidirectional", extras="bl", linear_before_reset=True),
        _case("gru", 7, 2, 5, 21, extras="", linear_before_reset=True),
        _case("lstm", 0, 2, 3, 5, extras="bhc"),
        _case("lstm", 3, 0, 3, 5),
        _case("lstm", 3, 2, 0, 5),
        *(_case("rnn", 5, 3, 4, 19, activations=[function], tolerance=3e-6) for function in _UNUSUAL),
        _case("lstm", 5, 3, 4, 19, activations=[("HardSigmoid", 0.3, 0.4), ("Softsign", None, None), _UNUSUAL[6]]),
        _case("gru", 5, 3, 4, 19, "bidirectional", activations=[_UNUSUAL[7], _UNUSUAL[1], _UNUSUAL[0], _UNUSUAL[9]]),
        _case("lstm", 256, 1, 256, 256, "bidirectional", tolerance=2e-6, bench=True),
        _case("lstm", 256, 16, 256, 256, "bidirectional", tolerance=2e-6, bench=True),
        _case("gru", 256, 1, 256, 256, tolerance=2e-6, bench=True),
    ),
    backends=("cpu", "triton", "cuda"),
    gpu_cases=(
        _case("lstm", 3, 2, 3, 5, "bidirectional", extras="bp"),
        _case("lstm", 3, 2, 3, 5, "reverse", extras="bpcl", input_forget=True, clip=0.7),
        _case("lstm", 2, 9, 2, 17),
        _case("gru", 3, 3, 2, 5, "bidirectional", extras="bl", linear_before_reset=True),
    ),
)


def lstm(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    *,
    lengths: Array | None = None,
    h: Array | None = None,
    c: Array | None = None,
    p: Array | None = None,
    direction: str = "forward",
    activations: Sequence[tuple[str, float | None, float | None]] | None = None,
    clip: float | None = None,
    input_forget: bool = False,
    backend: str = "auto",
) -> tuple[Array, Array, Array]:
    """A layer of LSTM cells (Hochreiter and Schmidhuber 1997; the operator LSTM of ONNX).

    Parameters
    ----------
    x : (steps, batch, inputs) float32.
    w, r : (directions, 4 · hidden, inputs) and (directions, 4 · hidden, hidden): gates in the order i, o, f, c.
    b : (directions, 8 · hidden): the biases beside w, then those beside r.
    lengths : (batch,): how many steps of each sequence count; past them the result is zero.
    h, c : (directions, batch, hidden): the first states; zeros where not given.
    p : (directions, 3 · hidden): peepholes of i, o and f.
    direction : ``"forward"``, ``"reverse"`` or ``"bidirectional"``.
    activations : (name, alpha, beta) of f, g and h of each direction; sigmoid, tanh and tanh where not given.
    clip : bounds what the gates' functions get.
    input_forget : the forget gate is one less the input gate.
    backend : see ``Kernel``.

    Returns
    -------
    (steps, directions, batch, hidden), and the last h and c.

    Raises
    ------
    ShapeError, UsageError : shapes, dtypes or options that do not go together.
    """
    made: tuple[Array, Array, Array] = KERNEL(
        *(x, w, r, b, lengths, h, c, p),
        cell="lstm",
        direction=direction,
        activations=None if activations is None else tuple(activations),
        clip=clip,
        input_forget=input_forget,
        backend=backend,
    )
    return made


def gru(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    *,
    lengths: Array | None = None,
    h: Array | None = None,
    direction: str = "forward",
    activations: Sequence[tuple[str, float | None, float | None]] | None = None,
    clip: float | None = None,
    linear_before_reset: bool = False,
    backend: str = "auto",
) -> tuple[Array, Array]:
    """A layer of gated recurrent units (Cho et al. 2014; the operator GRU of ONNX): see ``lstm``.

    w and r have three gates in the order z, r, h. ``linear_before_reset`` puts the reset gate behind the product of the
    state, with that product's own bias, as cuDNN and torch do. Returns the states of all steps and the last.
    """
    made: tuple[Array, Array] = KERNEL(
        *(x, w, r, b, lengths, h, None, None),
        cell="gru",
        direction=direction,
        activations=None if activations is None else tuple(activations),
        clip=clip,
        linear_before_reset=linear_before_reset,
        backend=backend,
    )
    return made


def rnn(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    *,
    lengths: Array | None = None,
    h: Array | None = None,
    direction: str = "forward",
    activations: Sequence[tuple[str, float | None, float | None]] | None = None,
    clip: float | None = None,
    backend: str = "auto",
) -> tuple[Array, Array]:
    """A layer of plain recurrent cells, h = f(w·x + r·h + b) (the operator RNN of ONNX): see ``lstm``."""
    made: tuple[Array, Array] = KERNEL(
        *(x, w, r, b, lengths, h, None, None),
        cell="rnn",
        direction=direction,
        activations=None if activations is None else tuple(activations),
        clip=clip,
        backend=backend,
    )
    return made
