"""What the two TensorRT libraries differ in. Everything else is the same code for both (``tensorrt.py``).

``tensorrt_rtx`` builds engines for GPUs that are not here and leaves the choice of kernels to the device; ``tensorrt``
times kernels on the GPU that it builds for, and knows more GPUs and plugins.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType

from voxelrt.errors import MissingExtraError, UsageError


@dataclass(frozen=True)
class Library:
    """One library's capabilities.

    Parameters
    ----------
    module : what is imported.
    extra : of voxelrt, that brings it.
    can_cross_target : builds engines on a machine without their GPU.
    targets : architecture -> its name in the library's ``ComputeCapability``; empty where it builds for its own only.
    plugins : whether engines may hold kernels of others.
    refit : whether engines take other weights of the same shapes.
    timing_cache : whether kernels are timed while an engine is built, and the times can be kept for the next one.
    runtime_cache : whether kernels are compiled while an engine runs first, and can be kept for the next process.
    refuses : (architecture, precision) -> why the library does not build that.
    """

    module: str
    extra: str
    can_cross_target: bool
    targets: Mapping[str, str] = field(default_factory=dict)
    plugins: bool = False
    refit: bool = False
    timing_cache: bool = False
    runtime_cache: bool = False
    refuses: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def is_here(self) -> bool:
        """Whether it is installed."""
        return importlib.util.find_spec(self.module) is not None

    def load(self, purpose: str) -> ModuleType:
        """The library. Raises MissingExtraError where it is not installed."""
        if not self.is_here:
            raise MissingExtraError(self.module, self.extra, purpose)
        return importlib.import_module(self.module)


RTX = Library(
    module="tensorrt_rtx",
    extra="gpu-aot",
    can_cross_target=True,
    runtime_cache=True,  # and no refit: an engine that takes other weights is built on a GPU only
    targets={f"sm_{number}": f"SM{number}" for number in (75, 80, 86, 89, 120, 121)},
    refuses={
        ("sm_75", precision): "it has no 3-D convolution and no matrix product in float32 there"
        for precision in ("fp32", "tf32")
    },
)
TENSORRT = Library(module="tensorrt", extra="gpu", can_cross_target=False, plugins=True, refit=True, timing_cache=True)
LIBRARIES = {library.module: library for library in (RTX, TENSORRT)}

# Architectures whose engines are built where they run: no library here builds for them ahead of time.
BUILT_ON_DEVICE = ("sm_87", "sm_90", "sm_100", "sm_110")
ARCHITECTURES = tuple(sorted((*RTX.targets, *BUILT_ON_DEVICE), key=lambda name: int(name[3:])))


def builder_for(architecture: str, *, refit: bool = False) -> Library | None:
    """The library of those installed that builds engines for a GPU on it, that take other weights where `refit` is
    asked; None where none does."""
    if architecture in RTX.targets and RTX.is_here and (RTX.refit or not refit):
        return RTX
    return TENSORRT if TENSORRT.is_here else None


def parser() -> Library:
    """The library that says which nodes engines take: whichever is installed."""
    return TENSORRT if TENSORRT.is_here and not RTX.is_here else RTX


def check_architecture(name: str, precision: str) -> None:
    """Raise UsageError for an architecture that is unknown, or has no such precision."""
    if name not in ARCHITECTURES:
        raise UsageError(f"architecture {name!r} is unknown; choose from {', '.join(ARCHITECTURES)}")
    if precision in ("bf16", "tf32") and int(name[3:]) < 80:
        raise UsageError(f"{name} has no {precision}: it came with sm_80; choose fp16")
    if precision == "fp8" and int(name[3:]) < 89:
        raise UsageError(f"{name} has no fp8: it came with sm_89; choose int8")
    why = RTX.refuses.get((name, precision))
    if why is not None:
        raise UsageError(f"TensorRT-RTX builds no {precision} engine for {name}: {why}; choose fp16")
