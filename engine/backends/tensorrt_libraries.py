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
    plugins, refit : whether engines may hold our kernels, and take other weights.
    refuses : (architecture, precision) -> why the library does not build that.
    """

    module: str
    extra: str
    can_cross_target: bool
    targets: Mapping[str, str] = field(default_factory=dict)
    plugins: bool = False
    refit: bool = False
    refuses: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def load(self, purpose: str) -> ModuleType:
        """The library. Raises MissingExtraError where it is not installed."""
        if importlib.util.find_spec(self.module) is None:
            raise MissingExtraError(self.module, self.extra, purpose)
        return importlib.import_module(self.module)


RTX = Library(
    module="tensorrt_rtx",
    extra="gpu-aot",
    can_cross_target=True,
    targets={f"sm_{number}": f"SM{number}" for number in (75, 80, 86, 89, 120, 121)},
    refuses={("sm_75", precision): "it has no 3-D convolution in float32 there" for precision in ("fp32", "tf32")},
)
TENSORRT = Library(module="tensorrt", extra="gpu", can_cross_target=False, plugins=True, refit=True)
LIBRARIES = {library.module: library for library in (RTX, TENSORRT)}

# Architectures whose engines are built where they run: no library here builds for them ahead of time.
BUILT_ON_DEVICE = ("sm_87", "sm_90", "sm_100", "sm_110")
ARCHITECTURES = tuple(sorted((*RTX.targets, *BUILT_ON_DEVICE), key=lambda name: int(name[3:])))


def check_architecture(name: str, precision: str) -> None:
    """Raise UsageError for an architecture that is unknown, or has no such precision."""
    if name not in ARCHITECTURES:
        raise UsageError(f"architecture {name!r} is unknown; choose from {', '.join(ARCHITECTURES)}")
    if precision in ("bf16", "tf32") and int(name[3:]) < 80:
        raise UsageError(f"{name} has no {precision}: it came with sm_80; choose fp16")
    why = RTX.refuses.get((name, precision))
    if why is not None:
        raise UsageError(f"TensorRT-RTX builds no {precision} engine for {name}: {why}; choose fp16")
