"""Compiled plans kept in the cache folder, so that a model is compiled once on a machine.

The key is made of the model's and the recipe's content, the options, the versions and the instruction set; nothing of
a study goes in. An entry that is damaged or of another version is built anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from voxelrt.environment import cache_folder
from voxelrt.errors import OutputError, PlanError
from voxelrt.kernels.common import capi, native
from voxelrt.models.composite import is_composite_file
from voxelrt.models.recipe import SHIPPED, load_recipe, parse_recipe, shipped_recipes, source_path
from voxelrt.models.recipe_schema import Recipe
from voxelrt.plan.plan import Plan

LOG = logging.getLogger("voxelrt")
DOUBTFUL = (
    "the kept plan was compiled while others used this machine, so it may not be the fastest; 'voxelrt cache prune "
    "--kind plans --days 0' has it compiled again"
)
Shapes = Mapping[str, Sequence[int | tuple[int, int, int]]]


@dataclass(frozen=True)
class Identity:
    """What a model is, known without importing it.

    Parameters
    ----------
    digest
        SHA-256 of the network's file and of the recipe.
    recipe
        Where there is one.
    """

    digest: str
    recipe: Recipe | None


def identify(source: Any) -> Identity | None:
    """A model's identity from its files alone; None for other objects in memory and for what does not exist."""
    if not isinstance(source, (str, Path)):
        from voxelrt.models.load import Model

        whole = isinstance(source, Model) and source.settings is not None
        return Identity(str(source.source["sha256"]), None) if whole else None
    path = Path(source)
    if str(source) in shipped_recipes():
        path = SHIPPED / f"{source}.toml"
    elif path.suffix != ".toml" and path.with_suffix(".toml").is_file():
        path = path.with_suffix(".toml")
    if not path.is_file():
        return None
    if path.suffix != ".toml":
        return Identity(file_digest(path), None)
    if is_composite_file(path):
        from voxelrt.models.load import load

        return identify(load(path))
    recipe = load_recipe(path)
    if recipe.source.architecture:
        network = "".join(file_digest(one) for one in sorted((SHIPPED.parent / "architectures").glob("*.py")))
    else:
        network = recipe.source.sha256 if recipe.source.package else file_digest(source_path(recipe))
    return Identity(hashlib.sha256(f"{network} {file_digest(path)}".encode()).hexdigest(), recipe)


def cached_plan(
    source: Any,
    *,
    shapes: Shapes | None = None,
    precision: str = "fp32",
    fallback: str = "onnxruntime",
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """The compiled plan of a model: from the cache folder, or compiled, verified and put there.

    Parameters
    ----------
    source
        What ``voxelrt.load`` takes. Objects in memory are compiled every time.
    shapes, precision, fallback, threads
        As for ``voxelrt.compile``.
    progress
        Called with a line of text before each long step.

    Raises
    ------
    VoxelRTError : as ``voxelrt.load`` and ``voxelrt.compile``.
    """
    tell = progress or (lambda line: None)
    identity = identify(source)
    place = None
    if identity is not None:
        place = plans_folder() / f"{_key(identity, shapes, precision, fallback)}.vxp"
        if place.is_file():
            try:
                kept = Plan.open(place, threads=threads)
            except PlanError as error:
                tell(f"the kept plan cannot be used ({error}); compiling anew")
            else:
                if kept.info.settings.get("tuning_doubts"):
                    LOG.warning("%s: %s", kept.info.name, DOUBTFUL)
                return kept
    # Only now: a plan from the cache needs no importer and no compiler.
    from voxelrt.compile import compile as compile_model
    from voxelrt.models.load import load

    tell("loading the model")
    model = load(source, progress=tell, shapes=shapes)
    tell(f"compiling {model.name}")
    plan = compile_model(model, precision=precision, shapes=shapes, fallback=fallback, threads=threads, progress=tell)
    if place is not None:
        # A cache that cannot be written to costs time, not results.
        with suppress(OSError, OutputError):
            place.parent.mkdir(parents=True, exist_ok=True)
            plan.save(place)
    return plan


def plans_folder() -> Path:
    """Where compiled plans are kept; it need not exist yet."""
    return cache_folder() / "plans"


def recipe_in(plan: Plan) -> Recipe | None:
    """The recipe that a plan carries."""
    if plan.info.model_settings is not None or not plan.info.recipe:
        return None
    return parse_recipe(plan.info.recipe, where=f"the recipe of {plan.info.name}")


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _compiler_digest() -> str:
    """SHA-256 of the sources that make plans."""
    digest = hashlib.sha256()
    engine, models, kernels = Path(__file__).parent.parent, SHIPPED.parent, Path(native.__file__).parents[1]
    for folder in (engine / "graph", engine / "plan", models / "formats", kernels):
        for source in sorted(folder.rglob("*.py")):
            digest.update(source.read_bytes())
    digest.update((engine / "compile.py").read_bytes())
    return digest.hexdigest()


def _key(identity: Identity, shapes: Shapes | None, precision: str, fallback: str) -> str:
    asked = {name: [list(d) if isinstance(d, tuple) else d for d in dims] for name, dims in (shapes or {}).items()}
    parts = [identity.digest, asked, precision, fallback, version("voxelrt"), version("onnx"), capi.target()]
    # Their own bytes stand for the versions of library and compiler: a checkout changes without a new number.
    parts += [file_digest(Path(capi.library()._name)), _compiler_digest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]
