"""Composites: a recipe that merges several nnU-Net models by a class map, on one grid, inside a crop if it names one.

name = "organs"
[grid]
orientation = "RAS"
spacing_mm_xyz = [1.5, 1.5, 1.5]
[[models]]
path = "Dataset291_organs"
classes = { liver = 5, spleen = 1 }      # the model's label -> the composite's value; what is not named is left out
[crop]
path = "Dataset298_body_6mm"
classes = ["body"]
margin_mm = 20
[[labels]]
value = 5
name = "liver"
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from voxelrt.errors import ModelError, UsageError
from voxelrt.models.recipe import read_table
from voxelrt.models.recipe_schema import Grid, Label, check_inside
from voxelrt.models.recipe_tables import Invalid

MAX_BYTES = 1 << 20
MAX_MODELS = 64


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise Invalid(text)


@dataclass(frozen=True)
class Member:
    """A model of the composite; of two that mark the same voxel the later wins."""

    path: str
    classes: dict[str, int]
    configuration: str = ""
    folds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_inside(self.path)
        _require(len(self.classes) > 0, "classes must name at least one label")


@dataclass(frozen=True)
class Crop:
    """A model that runs first; the others see the box of these of its classes, and a margin."""

    path: str
    classes: tuple[str, ...]
    margin_mm: float = 0.0
    configuration: str = ""
    folds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_inside(self.path)
        _require(len(self.classes) > 0 and 0 <= self.margin_mm < 1000, "classes, and a margin of 0 to 1000 mm")


@dataclass(frozen=True)
class Composite:
    """A whole composite. ``folder`` is where its file stands; the reader sets it, it is no key."""

    name: str
    models: tuple[Member, ...]
    labels: tuple[Label, ...]
    grid: Grid = field(default_factory=Grid)
    crop: Crop | None = None
    title: str = ""
    licence: str = ""
    citation: str = ""
    folder: str = field(default="", metadata={"key": False})

    def __post_init__(self) -> None:
        _require(0 < len(self.models) <= MAX_MODELS, f"1 to {MAX_MODELS} models")
        free = not self.grid.shape_xyz and len(self.grid.spacing_mm_xyz) in (0, 3)
        _require(free, "the grid has a spacing, no shape")
        values = [label.value for label in self.labels]
        _require(len(set(values)) == len(values) and 0 not in values, "labels must have values of their own, not 0")
        unknown = sorted({value for model in self.models for value in model.classes.values()} - set(values))
        _require(not unknown, f"classes write the values {unknown}, which are no labels of the composite")


def is_composite_file(path: Path) -> bool:
    """Whether a path is a recipe that merges several models. Raises ModelError: it cannot be read, or is no TOML."""
    return path.suffix == ".toml" and path.is_file() and "models" in _toml(_text(path), path.name)


def load_composite(path: Path) -> tuple[Composite, str]:
    """Read and check a composite; its text too. Raises UsageError, ModelError."""
    text = _text(path)
    return parse_composite(text, folder=path.parent, where=path.name), text


def parse_composite(text: str, *, folder: str | Path = "", where: str = "the composite") -> Composite:
    """Check the text of a composite.

    Raises
    ------
    UsageError : a key or value is wrong, and is named. ModelError : the text is not TOML.
    """
    made: Composite = read_table(Composite, _toml(text, where), where)
    return dataclasses.replace(made, folder=str(folder))


def class_values(labels: dict[str, int], wanted: dict[str, int] | tuple[str, ...], where: str) -> dict[int, int]:
    """A model's value -> the composite's, for the classes wanted (1 where only names are given).

    Raises
    ------
    UsageError : the model has no such class.
    """
    missing = sorted(set(wanted) - set(labels))
    if missing:
        raise UsageError(f"{where} has no class {', '.join(missing)}; it has {', '.join(labels)}")
    return {labels[name]: wanted[name] if isinstance(wanted, dict) else 1 for name in wanted}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path.name}: larger than a recipe can be")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path.name} cannot be read as a recipe: {type(error).__name__}") from error


def _toml(text: str, where: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ModelError(f"{where}: not a TOML file: {error}") from error
