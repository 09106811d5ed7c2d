"""The kernel rows: every case marked ``bench`` of every op, on every backend; timed only behind its oracle."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxelrt.kernels.common.kernel import Case, Kernel, compare, entries


@dataclass(frozen=True)
class KernelRow:
    """One case on one backend."""

    kernel: Kernel
    backend: str
    case: Case

    @property
    def name(self) -> str:
        """The row's name, also its test's id."""
        return f"kernels/{self.kernel.name}-{self.backend}-{self.case.name}"

    def arguments(self, seed: int) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The case's inputs; every case draws its own numbers from the seed."""
        return self.case.make(np.random.default_rng([seed, zlib.crc32(self.case.name.encode())]))

    def checked(self, seed: int) -> tuple[Callable[[], Any], float]:
        """The call to time, and how far its answer is from the oracle's.

        Raises
        ------
        MissingExtraError
            The backend's package is not installed.
        AssertionError
            The answer is wrong: there is nothing to time.
        """
        function = self.kernel.backend(self.backend)
        arguments, options = self.arguments(seed)
        expected = self.kernel.oracle(*arguments, **options)
        answer = function(*arguments, **options)
        worst = 0.0
        for out, reference in zip(_all(answer), _all(expected), strict=True):
            difference = compare(out, reference)
            if not difference.relative <= self.case.tolerance:
                raise AssertionError(f"wrong answer: {difference}; allowed is {self.case.tolerance:g}")
            worst = max(worst, difference.relative)
        return (lambda: function(*arguments, **options)), worst


def kernel_rows() -> list[KernelRow]:
    """All rows, by op, backend and case."""
    return [
        KernelRow(kernel, backend, case)
        for kernel in entries().values()
        for backend in kernel.backends
        for case in kernel.cases
        if case.bench
    ]


def _all(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)
