"""From ONNX nodes to schedule steps, one file per family of operators.

A rule is ``@lowers("Conv") def conv(b: Builder, node: ir.Node) -> None``: it asks the builder for its inputs in the
layout it wants, makes memory for its outputs and adds steps. What a rule cannot do it refuses with ``Unsupported``,
saying why; a kernel's own ``check`` refuses the rest. Both are how the partition learns what runs natively.
"""

from __future__ import annotations

import importlib
import pkgutil

from voxelrt.plan.lowering.builder import Builder, Unsupported, lowers

__all__ = ["Builder", "Unsupported", "lowers"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
