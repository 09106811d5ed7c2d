"""The Kernel entry: one op's contract, its backends, its cases. One case makes a test and a bench row.

An op folder's ``__init__.py`` holds ``KERNEL = Kernel(...)`` and the op's public function. ``entries()`` finds all
folders, so no kernel escapes the tests and the benches.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import MissingExtraError, UsageError

Array = NDArray[Any]
BACKENDS = ("cpu", "numba", "triton", "cuda")
GPU_BACKENDS = ("triton", "cuda")
_EXTRAS = {"numba": ("numba", "numba"), "triton": ("triton", "gpu-aot")}


@dataclass(frozen=True)
class Case:
    """One set of inputs for an op.

    Parameters
    ----------
    name : part of the test's and the bench row's id.
    make : seeded generator -> (positional arguments, keyword arguments) of the op's function.
    tolerance : the largest ‖out − oracle‖ / ‖oracle‖ allowed; 0 means equal.
    flops, bytes : what the op must do and move at least, for GFLOP/s and GB/s.
    bench : whether it is worth a bench row (too small ones are not).
    """

    name: str
    make: Callable[[np.random.Generator], tuple[Sequence[Any], Mapping[str, Any]]]
    tolerance: float = 1e-5
    flops: float = 0.0
    bytes: float = 0.0
    bench: bool = False


@dataclass(frozen=True)
class Kernel:
    """One op: its name (= folder = test id = bench id), oracle, backends and cases.

    ``oracle`` and every backend take the same arguments and return an array or a tuple of arrays. A backend is the
    module in the op's folder with its name (``cpu`` -> ``cpu.py``), loaded on first use, with a function ``run``; a
    GPU backend's has ``program``, which says as data what to launch (``kernels.common.gpu.program``).
    ``gpu_cases`` are of forms that only GPU backends have as a call, such as fused norms.
    """

    name: str
    oracle: Callable[..., Any]
    cases: tuple[Case, ...]
    backends: tuple[str, ...] = ("cpu",)
    notes: Mapping[str, str] = field(default_factory=dict)
    gpu_cases: tuple[Case, ...] = ()

    def backend(self, name: str) -> Callable[..., Any]:
        """The function of a backend.

        Raises
        ------
        UsageError : the op has no such backend.
        MissingExtraError : the backend's package is not installed.
        DeviceError : a GPU backend, and there is no GPU that it can use.
        """
        module = self._module(name)
        function: Callable[..., Any]
        if name in GPU_BACKENDS:
            device = importlib.import_module("voxelrt.kernels.common.gpu.device").open_device(f"{name} of {self.name}")
            function = functools.partial(device.call, module.program)
        else:
            function = module.run
        return function

    def program(self, name: str) -> Callable[..., Any]:
        """A GPU backend's function from arguments to the program (``kernels.common.gpu.program``); needs no GPU.

        Raises
        ------
        UsageError : the op has no such GPU backend.
        MissingExtraError : the backend's package is not installed.
        """
        if name not in GPU_BACKENDS:
            raise UsageError(f"{name!r} is no GPU backend; those are {', '.join(GPU_BACKENDS)}")
        function: Callable[..., Any] = self._module(name).program
        return function

    def _module(self, name: str) -> Any:
        if name not in self.backends:
            raise UsageError(f"{self.name} has no backend {name!r}; it has {', '.join(self.backends)}")
        if name in _EXTRAS and importlib.util.find_spec(_EXTRAS[name][0]) is None:
            package, extra = _EXTRAS[name]
            raise MissingExtraError(package, extra, f"the {name} backend of {self.name}")
        return importlib.import_module(f"voxelrt.kernels.{self.name}.{name}")

    def __call__(self, *arguments: Any, backend: str = "auto", **options: Any) -> Any:
        """Run the op on arrays; ``auto`` is the native CPU kernel."""
        return self.backend("cpu" if backend == "auto" else backend)(*arguments, **options)


def entries() -> dict[str, Kernel]:
    """Every op folder's entry, by name."""
    root = Path(__file__).resolve().parents[1]
    names = sorted(p.parent.name for p in root.glob("*/__init__.py") if p.parent.name != "common")
    return {name: importlib.import_module(f"voxelrt.kernels.{name}").KERNEL for name in names}


@dataclass(frozen=True)
class Difference:
    """How far an answer is from its reference."""

    relative: float  # ‖out − ref‖ / ‖ref‖, or ‖out‖ where the reference is zero
    maximum: float
    where: tuple[int, ...]  # of the maximum

    def __str__(self) -> str:
        return f"relative {self.relative:.3g}, maximum {self.maximum:.3g} at {self.where}"


def compare(out: Array, reference: Array) -> Difference:
    """Compare an answer with its reference in float64. Equal infinities and NaNs at equal places agree.

    Raises
    ------
    AssertionError : shapes differ.
    """
    out, reference = np.asarray(out), np.asarray(reference)
    if out.shape != reference.shape:
        raise AssertionError(f"shape {out.shape} is not the reference's {reference.shape}")
    if out.size == 0:
        return Difference(0.0, 0.0, ())
    a, b = out.astype(np.float64), reference.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(a - b))
    error = np.where(np.isnan(error), np.inf, error)
    where = np.unravel_index(int(np.argmax(error)), error.shape)
    scale = float(np.linalg.norm(np.where(np.isfinite(b), b, 0.0).ravel()))
    norm = float(np.linalg.norm(error.ravel()))
    return Difference(norm / scale if scale > 0 else norm, float(error[where]), tuple(int(i) for i in where))
