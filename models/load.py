"""load: a trained model from a file, folder, recipe or object, as an ONNX graph with what is known about it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import ModelError, UnsupportedError, UsageError
from voxelrt.models.composite import Crop, Member, class_values, is_composite_file, load_composite
from voxelrt.models.fetch import fetch
from voxelrt.models.formats.nnunet_folder import is_nnunet_folder, previous_training
from voxelrt.models.formats.state_dict import is_state_dict, load_state_dict
from voxelrt.models.formats.torch import SUFFIXES as TORCH_SUFFIXES
from voxelrt.models.formats.torch import is_torch, load_torch
from voxelrt.models.nnunet_settings import NnunetSettings
from voxelrt.models.recipe import SHIPPED, load_recipe, shipped_recipes
from voxelrt.models.recipe_schema import Recipe

Array = NDArray[Any]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A network as a graph.

    Parameters
    ----------
    graph : the ONNX graph; shapes may still be open.
    name : for people: the recipe's or the file's name.
    source : format, sha256 of the file, notes of the importer.
    recipe : what the bare network cannot say, where there is one.
    recipe_text : its TOML.
    reference : what the source framework itself answered, (inputs, outputs) by name, where it was there to be asked.
    framework : the source framework on other inputs, likewise.
    settings : of an nnU-Net model: how a case becomes its input and its answer labels.
    parts : further models that travel inside its plan: of a cascade the stage before.
    """

    graph: ir.Model
    name: str
    source: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    recipe_text: str = ""
    reference: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]] = ()
    framework: Callable[[Mapping[str, Array]], Mapping[str, Array]] | None = None
    settings: NnunetSettings | None = None
    parts: tuple[Model, ...] = ()

    @property
    def is_segmentation(self) -> bool:
        return self.settings is not None or (self.recipe is not None and self.recipe.task == "segmentation")

    @property
    def channel_axis(self) -> int:
        """Which axis of the output holds the channels."""
        return self.recipe.output.layout.index("C") if self.recipe is not None else 1

    @property
    def threshold(self) -> float | None:
        return self.recipe.output.threshold if self.recipe is not None else None


def load(
    source: Any,
    *,
    progress: Any = None,
    example_inputs: Any = None,
    shapes: Mapping[str, Sequence[int | tuple[int, int, int]]] | None = None,
    configuration: str | None = None,
    folds: Sequence[str] | None = None,
) -> Model:
    """Load a trained model.

    Parameters
    ----------
    source : a path (a file, an nnU-Net result folder, a recipe) or the name of a shipped recipe; a torch module or
        exported program; an ONNX model, as a protobuf, its bytes, or ``onnx_ir``.
    progress : called with (text) while a recipe's model is fetched.
    example_inputs : what a torch module or TorchScript is traced with: a tensor or array, a tuple, or a mapping.
    shapes : in place of example inputs, input name -> shape. Other formats need neither.
    configuration, folds : of an nnU-Net folder that holds several; default 3d_fullres, and all folds as an ensemble.

    Raises
    ------
    UsageError : no such file or recipe. ModelError : the file is damaged or of no known format.
    UnsupportedError : nodes that cannot be imported, all named. FetchError : the model could not be fetched.
    MissingExtraError : the format needs a package that is not installed.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, ir.Model):
        return Model(source, source.graph.name or "model", {"format": "onnx", "notes": []})
    if isinstance(source, onnx.ModelProto):
        return _from_onnx(source.SerializeToString(), source.graph.name or "model")
    if isinstance(source, bytes):
        return _from_onnx(source, "model")
    if is_torch(source):
        imported = load_torch(source, example_inputs=example_inputs, shapes=shapes)
        name = type(source).__name__
        return Model(
            imported.graph,
            name,
            {"format": "torch", "notes": _unsound(imported.graph)},
            reference=imported.reference,
            framework=imported.run,
        )
    text = str(source)
    path = Path(text)
    if path.suffix == ".toml" or text in shipped_recipes():
        return _from_recipe(SHIPPED / f"{text}.toml" if text in shipped_recipes() else path, progress)
    if not path.exists():
        raise UsageError(f"there is no file and no recipe named {path.name!r}; shipped: {', '.join(shipped_recipes())}")
    beside = path.with_suffix(".toml")
    if beside.exists():
        return _from_recipe(beside, progress)
    if path.is_dir():
        return _from_folder(path, configuration, folds)
    if is_state_dict(path):
        graph = load_state_dict(path)
        return Model(graph, path.stem, {"format": "state dict", "sha256": _sha256(path), "notes": _unsound(graph)})
    if path.suffix in TORCH_SUFFIXES:
        digest = _sha256(path)
        imported = load_torch(path, example_inputs=example_inputs, shapes=shapes)
        return Model(
            imported.graph,
            path.stem,
            {"format": "torch", "sha256": digest, "notes": _unsound(imported.graph)},
            reference=imported.reference,
            framework=imported.run,
        )
    return _from_file(path, None, path.stem)


def _from_composite(path: Path) -> Model:
    """The first model, the others and the crop's inside it."""
    composite, text = load_composite(path)
    asked: list[Member | Crop] = [*composite.models, *([composite.crop] if composite.crop is not None else [])]
    made = []
    for member in asked:
        folder = Path(composite.folder) / member.path
        if not is_nnunet_folder(folder):
            raise UsageError(f"composite {composite.name}: {member.path!r} is no result folder of nnU-Net beside it")
        one = _from_folder(folder, member.configuration or None, member.folds or None)
        if one.parts:
            raise UnsupportedError(f"composite {composite.name}: {member.path!r} is a cascade, which cannot be merged")
        labels = {label.name: 0 for label in one.settings.labels} if one.settings is not None else {}
        class_values(labels, member.classes, member.path)
        made.append(one)
    digest = hashlib.sha256(" ".join([text, *(str(one.source["sha256"]) for one in made)]).encode()).hexdigest()
    source = {**made[0].source, "sha256": digest, "models": [dict(one.source) for one in made]}
    return replace(made[0], name=composite.name, source=source, recipe_text=text, parts=tuple(made[1:]))


def _from_recipe(path: Path, progress: Any) -> Model:
    if is_composite_file(path):
        return _from_composite(path)
    recipe = load_recipe(path)
    if recipe.source.architecture:
        return _from_architecture(recipe, path.read_text(encoding="utf-8"))
    return _from_file(fetch(recipe, progress=progress), recipe, recipe.name, path.read_text(encoding="utf-8"))


def _from_architecture(recipe: Recipe, text: str) -> Model:
    """A network with drawn weights, built here."""
    from voxelrt.models.architectures.named import build_seeded

    graph = build_seeded(recipe.source.architecture, recipe.source.arguments)
    notes = ["weights: demonstration: they are drawn, nobody trained them"]
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Model(graph, recipe.name, {"format": "architecture", "sha256": digest, "notes": notes}, recipe, text)


def _from_file(path: Path, recipe: Recipe | None, name: str, recipe_text: str = "") -> Model:
    source = {"sha256": _sha256(path)}
    kind = recipe.source.format if recipe is not None and recipe.source.format != "auto" else _format_of(path)
    if kind == "tensorflow":
        from voxelrt.models.formats.tensorflow import load_tensorflow  # a format is loaded when it is met

        graph = load_tensorflow(
            path,
            inputs=recipe.source.inputs or None if recipe else None,
            outputs=recipe.source.outputs or None if recipe else None,
            constants=recipe.source.constants or None if recipe else None,
        )
    elif kind == "safetensors":
        from voxelrt.models.formats.safetensors import load_safetensors

        graph = load_safetensors(path)
    else:
        from voxelrt.models.formats.onnx import load_onnx

        graph = load_onnx(path)
    notes = [line for line in graph.metadata_props.get("voxelrt.notes", "").split("\n") if line]
    notes += _unsound(graph)
    return Model(graph, name, {"format": kind, **source, "notes": notes}, recipe, recipe_text)


def _from_folder(path: Path, configuration: str | None, folds: Sequence[str] | None) -> Model:
    from voxelrt.models.formats.nnunet import load_nnunet

    if not is_nnunet_folder(path):
        raise ModelError(f"{path.name} is a folder without plans.json: it is no result folder of nnU-Net v2")
    graph, settings, source = load_nnunet(path, configuration, folds)
    _warned(source["notes"])
    parts: tuple[Model, ...] = ()
    if settings.previous_stage:
        before = _from_folder(previous_training(path, configuration, settings.previous_stage), None, folds)
        # What decides the answer is this stage and all before it.
        both = f"{source['sha256']} {before.source['sha256']}"
        source = {**source, "sha256": hashlib.sha256(both.encode()).hexdigest(), "previous": dict(before.source)}
        parts = (before,)
    return Model(graph, f"{settings.dataset} {settings.configuration}", source, settings=settings, parts=parts)


def _from_onnx(data: bytes, name: str) -> Model:
    from voxelrt.models.formats.onnx import load_onnx

    graph = load_onnx(data)
    digest = hashlib.sha256(data).hexdigest()
    return Model(graph, name, {"format": "onnx", "sha256": digest, "notes": _unsound(graph)})


def _unsound(graph: ir.Model) -> list[str]:
    """A note of weights that are not finite: they make every answer NaN, which nobody wants to look for."""
    found = []
    for name, value in graph.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
            flat = np.asarray(tensor.numpy()).ravel()
            with np.errstate(all="ignore"):
                # A sum is quick to make and is finite only if all are; one that overflows is looked at closely.
                if not np.isfinite(flat.sum()) and not np.isfinite(flat).all():
                    found.append(f"the weight {name!r} holds {int((~np.isfinite(flat)).sum())} NaN or infinite values")
    return _warned(found)


def _warned(notes: list[str]) -> list[str]:
    """The notes, those about weights that are not numbers in the log as well."""
    for note in notes:
        if "NaN" in note:
            logger.warning("%s", note)
    return notes


def _format_of(path: Path) -> str:
    """The format by the file's name; the readers check the content."""
    formats = {".onnx": "onnx", ".pb": "tensorflow", ".safetensors": "safetensors"}
    if path.suffix not in formats:
        known = ", ".join((*formats, *TORCH_SUFFIXES[:2]))
        raise ModelError(f"{path.name}: no known model format; known are {known} and recipes (.toml)")
    return formats[path.suffix]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
