"""Which cases each proof runs: every small case of every op with a GPU backend, found from the entries alone."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from voxelrt.errors import MissingExtraError, UnsupportedError
from voxelrt.kernels.common.gpu.program import Launch, Program
from voxelrt.kernels.common.gpu.targets import TARGETS
from voxelrt.kernels.common.gpu.triton_compiler import specialisation
from voxelrt.kernels.common.kernel import Case, Kernel, compare, entries

# Elements of all array arguments together: about what an interpreter goes through in a second.
MOST_ELEMENTS = 20_000
# The same for ops that go through a window, or through many launches, for each element.
MOST_OF = {
    ("median", "triton"): 110,
    ("bilateral", "triton"): 400,
    ("non_local_means", "triton"): 50,
    ("total_variation", "triton"): 120,
    ("anisotropic_diffusion", "triton"): 400,
    ("curvature_flow", "triton"): 800,
    ("gaussian", "triton"): 3000,
    ("lstm", "triton"): 3000,
    ("mdlstm", "triton"): 2100,
    ("conv3d", "cuda"): 4300,
    ("lstm", "cuda"): 2000,
    ("mdlstm", "cuda"): 2100,
}
_LONG_BLOCKS = ("2x1x17", "6x7x8", "3x4x5-search9", "5x6x70", "9x8x17", "2x2x3x5x21", "19x23", "11x12x13", "5x20x6")
# op -> parts of the names of cases that only the long run takes: each run has others of their kind, in smaller volumes.
LONG = {
    "warp3d": ("2x1x6x5x40-6x9x37-affine",),
    "non_local_means": ("search(1,20,1)",),
    "non_local_means_blocks": _LONG_BLOCKS,
}
# What is compiled for in each run; the rest in the long one. nvcc: the oldest, where most is missing, the one whose PTX
# is interpreted, and the newest; Triton: that one, and the two generations with tensor cores of their own after it.
QUICK = {"cuda": (75, 80, 120), "triton": (80, 90, 120)}


def targets(backend: str) -> list[Any]:
    """All targets; those that are not for each run are marked as slow."""
    return [t if t in QUICK[backend] else pytest.param(t, marks=pytest.mark.slow) for t in TARGETS]


def arguments(case: Case) -> tuple[Any, Any]:
    """The case's inputs, the same in every proof."""
    return case.make(np.random.default_rng(zlib.crc32(case.name.encode())))


@cache
def _elements(case: Case) -> int:
    if case.bench:
        return MOST_ELEMENTS + 1
    given, options = arguments(case)
    return sum(a.size for a in (*given, *options.values()) if isinstance(a, np.ndarray))


def kernels(backend: str) -> list[Kernel]:
    """The ops that have a backend."""
    return [kernel for kernel in entries().values() if backend in kernel.backends]


def rows(backend: str, most: int = MOST_ELEMENTS, quick: Mapping[str, int] = MappingProxyType({})) -> list[Any]:
    """(kernel, case) for each small case of each op with this backend.

    ``quick`` : op -> elements past which a case is marked as slow.
    """
    return [
        pytest.param(
            kernel,
            case,
            id=f"{kernel.name}-{case.name}",
            marks=[pytest.mark.slow] if _is_long(kernel, case, quick.get(kernel.name, most)) else [],
        )
        for kernel in kernels(backend)
        for case in (*kernel.cases, *kernel.gpu_cases)
        if _elements(case) <= min(most, MOST_OF.get((kernel.name, backend), most))
    ]


def _is_long(kernel: Kernel, case: Case, most: int) -> bool:
    return _elements(case) > most or any(part in case.name for part in LONG.get(kernel.name, ()))


def program(kernel: Kernel, backend: str, case: Case) -> Program:
    """The program of a case; skips the test where the backend refuses the case or its package is missing."""
    given, options = arguments(case)
    try:
        return kernel.program(backend)(*given, **options)
    except (MissingExtraError, UnsupportedError) as error:
        pytest.skip(str(error))


def check(kernel: Kernel, case: Case, answer: Any, *, times: float = 2.0) -> None:
    """Fail unless an answer is within the case's tolerance of the float64 oracle.

    One of a half type must also be within `times` the error of the oracle's own rounded to it: that of a plain
    implementation that rounds once, at the end. An oracle that rounds leaves nothing to compare it with.
    """
    given, options = arguments(case)
    expected = kernel.oracle(*given, **options)
    for out, reference in zip(_all(answer), _all(expected), strict=True):
        difference = compare(out, reference)
        assert difference.relative <= case.tolerance, str(difference)
        if out.dtype.itemsize == 2 and out.dtype.kind in "fV":
            plain = compare(np.asarray(reference).astype(out.dtype), reference)
            assert plain.relative == 0 or difference.relative <= times * plain.relative, f"{difference}, plain {plain}"


def programs(kernel: Kernel, backend: str) -> Iterator[tuple[Case, Program]]:
    """The programs of all small cases that the backend takes."""
    for case in (*kernel.cases, *kernel.gpu_cases):
        if _elements(case) > MOST_OF.get((kernel.name, backend), MOST_ELEMENTS):
            continue
        given, options = arguments(case)
        try:
            yield case, kernel.program(backend)(*given, **options)
        except UnsupportedError:
            continue


def distinct_launches(kernel: Kernel) -> list[Launch]:
    """Triton launches that need a compilation each: other types, constants or alignment."""
    found: dict[Any, Launch] = {}
    for _, made in programs(kernel, "triton"):
        for launch in made.launches:
            constants = tuple(sorted(launch.constants.items()))
            key = (launch.name, launch.types(), constants, tuple(specialisation(launch)), launch.block, launch.stages)
            found.setdefault(key, launch)
    return list(found.values())


def _all(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)
