"""The MODEL argument of a command as a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voxelrt.commands.console import Say
from voxelrt.commands.options import Shapes
from voxelrt.errors import UsageError
from voxelrt.models.composite import is_composite_file
from voxelrt.models.formats.nnunet_folder import is_nnunet_folder
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.contract import recipe_shapes
from voxelrt.runtime.plan_cache import cached_plan, identify


def is_plan(model: str) -> bool:
    """Whether the argument names a compiled plan."""
    return Path(model).suffix == ".vxp"


def open_plan(model: str, *, threads: int | None, shapes: Shapes | None = None) -> Plan:
    """A .vxp file. Raises UsageError for options that only compiling understands."""
    if shapes:
        raise UsageError("--shape is for compiling; a .vxp plan has its shapes")
    return Plan.open(model, threads=threads)


def nnunet_model(model: str, configuration: str | None, folds: tuple[str, ...] | None, say: Say) -> Any:
    """What to load: an nnU-Net folder with its choices made, or the argument as it is.

    Raises
    ------
    UsageError : choices for a model that has none.
    """
    is_nnunet = is_nnunet_folder(Path(model))
    if not is_nnunet and (configuration is not None or folds is not None):
        raise UsageError("--configuration and --folds are for a result folder of nnU-Net")
    if not is_nnunet and not is_composite_file(Path(model)):
        return model
    from voxelrt.models.load import load  # it brings the importers, which a plan from the cache does not need

    return load(model, progress=say, configuration=configuration, folds=folds)


def plan_of(
    model: str,
    *,
    shapes: Shapes | None,
    precision: str,
    fallback: str,
    threads: int | None,
    say: Say,
) -> Plan:
    """The plan of any MODEL argument; compiled and kept in the cache folder where it is not one already."""
    if is_plan(model):
        return open_plan(model, threads=threads, shapes=shapes)
    identity = identify(model)
    if shapes is None and identity is not None and identity.recipe is not None:
        shapes = dict(recipe_shapes(identity.recipe) or {}) or None
    return cached_plan(model, shapes=shapes, precision=precision, fallback=fallback, threads=threads, progress=say)
