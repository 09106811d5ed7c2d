"""VoxelRT: an inference engine for medical volumes. Research software, not a medical device.

>>> import voxelrt as vx
>>> model = vx.load("brain-extraction")
>>> plan = vx.compile(model, shapes={"img": (1, 128, 128, 128, 1)})
>>> result = vx.predict(plan, "head.nii.gz", out="mask.nii.gz")

The public names are loaded when they are first used: importing the package is quick and brings no framework.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

from voxelrt.lazy import found_at

if TYPE_CHECKING:
    from voxelrt.compile import compile as compile
    from voxelrt.models.load import load as load
    from voxelrt.pipeline import predict as predict
    from voxelrt.plan.plan import Plan as Plan
    from voxelrt.result import Result as Result
    from voxelrt.runtime.session import Session as Session
    from voxelrt.torch_module import torch_module as torch_module
    from voxelrt.volume import Volume as Volume

    __version__: str

_HOMES = {
    "Plan": "voxelrt.plan.plan",
    "Result": "voxelrt.result",
    "Session": "voxelrt.runtime.session",
    "Volume": "voxelrt.volume",
    "compile": "voxelrt.compile",
    "load": "voxelrt.models.load",
    "predict": "voxelrt.pipeline",
    "torch_module": "voxelrt.torch_module",
}

__all__ = ["Plan", "Result", "Session", "Volume", "__version__", "compile", "load", "predict", "torch_module"]


class _Package(types.ModuleType):
    """Keeps ``voxelrt.compile`` a function: importing the submodule of that name would otherwise replace it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, types.ModuleType):
            # Python sets a submodule on its package when it has run it, so the function is there.
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


if not TYPE_CHECKING:  # else every name would pass for one of this package

    def __getattr__(name: str) -> Any:
        if name != "__version__":
            return found_at(__name__, _HOMES, name)
        from importlib.metadata import version

        value = version("voxelrt")
        setattr(sys.modules[__name__], name, value)
        return value


sys.modules[__name__].__class__ = _Package
