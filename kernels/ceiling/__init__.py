"""ceiling: what the machine can do at most, as work whose answer is known: repeated multiply-adds, and a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxelrt.kernels.ceiling.oracle import ceiling as oracle
from voxelrt.kernels.common.kernel import Array, Case, Kernel


def _case(count: int, rounds: int, streaming: bool = False, bench: bool = False) -> Case:
    def make(rng: np.random.Generator) -> tuple[Sequence[Any], Mapping[str, Any]]:
        x = rng.uniform(-2, 2, count).astype(np.float32)
        return (x,), {"rounds": rounds, "factor": 0.9990234, "addend": 0.25, "streaming": streaming}

    name = f"{'fma' if rounds else 'streaming-copy' if streaming else 'copy'}-{count}-{rounds}"
    tolerance = 1e-5 if rounds else 0.0
    return Case(name, make, tolerance, 2.0 * rounds * count, 0.0 if rounds else 8.0 * count, bench)


KERNEL = Kernel(
    name="ceiling",
    oracle=oracle,
    cases=(
        _case(1, 1),
        _case(1, 0),
        _case(997, 7),
        _case(997, 0, streaming=True),
        _case(300_007, 3),
        _case(600_011, 0, streaming=True),
        _case(600_011, 0),
        _case(768 * 8, 4000, bench=True),
        _case(1 << 25, 0, streaming=True, bench=True),
    ),
)


def ceiling(
    x: Array,
    *,
    rounds: int = 0,
    factor: float = 1.0,
    addend: float = 0.0,
    streaming: bool = False,
    backend: str = "auto",
) -> Array:
    """``x · factor + addend``, applied ``rounds`` times to each element; a plain copy for no rounds.

    Parameters
    ----------
    x : float32 vector without gaps.
    rounds : how often; each is one multiply-add, rounded once.
    streaming : write a copy past the caches.
    backend : see ``Kernel``.

    Raises
    ------
    ShapeError : not a float32 vector without gaps, or rounds is negative.
    """
    result: Array = KERNEL(x, rounds=rounds, factor=factor, addend=addend, streaming=streaming, backend=backend)
    return result
