"""A result folder of nnU-Net v2 as a graph and settings, without torch and nnU-Net.

    Dataset001_Name/TRAINER__PLANS__CONFIGURATION/
        dataset.json  plans.json  fold_0/checkpoint_final.pth  fold_1/ ...  postprocessing.json

The folds' logits are averaged inside the graph.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import ModelError, UnsupportedError
from voxelrt.models.formats import nnunet_plans as read
from voxelrt.models.formats.nnunet_folder import fold_checkpoints, training_folder
from voxelrt.models.formats.nnunet_network import network
from voxelrt.models.formats.torch_checkpoint import Checkpoint, Opaque, TensorPlace, read_pickle
from voxelrt.models.nnunet_settings import KeepLargest, NnunetSettings

Array = NDArray[Any]

WRAPPERS = ("module.", "_orig_mod.")  # what data-parallel training and torch.compile put before a name
# What a network's inference does not take: the same weights by other names, deep supervision, counters of batch norms.
UNREAD = re.compile(r"\.all_modules\.|^decoder\.encoder\.|^decoder\.seg_layers\.|\.num_batches_tracked$")


def load_nnunet(
    folder: Path, configuration: str | None = None, folds: Sequence[str] | None = None
) -> tuple[ir.Model, NnunetSettings, dict[str, Any]]:
    """Read a result folder.

    Parameters
    ----------
    folder : of one training (``TRAINER__PLANS__CONFIGURATION``), or of a dataset that holds one or several.
    configuration : such as ``3d_fullres``, where the folder holds several; default the first there is of 3d_fullres,
        3d_cascade_fullres, 3d_lowres, 2d.
    folds : their names ("0", "all"); default all that are there with a checkpoint.

    Returns
    -------
    graph : input "image" (1, C, *patch), output "logits"; the mean over the folds.
    settings : the rest.
    source : what was read, with its sha256, for the plan's provenance.

    Raises
    ------
    UsageError : no such configuration or fold. ModelError : files missing, damaged, or contradictory.
    UnsupportedError : another network than nnU-Net's own; nnU-Net v1.
    """
    training = training_folder(folder, configuration)
    plans, dataset = read.read_json(training / "plans.json"), read.read_json(training / "dataset.json")
    chosen = fold_checkpoints(training, folds)
    with ExitStack() as stack:
        checkpoints = [stack.enter_context(Checkpoint(path)) for path in chosen.values()]
        weights = [_Weights(checkpoint) for checkpoint in checkpoints]
        first = weights[0].fields
        name = _configuration_of(training, first)
        config = read.configuration(plans, name)
        settings = _settings(plans, dataset, config, first, name, tuple(chosen))
        settings = _with_postprocessing(settings, training)
        graph = network(
            read.trained(read.architecture(config, settings.dimensions), settings.trainer),
            [one.get for one in weights],
            len(settings.channels) + len(settings.cascade_labels),
            settings.outputs,
            settings.patch_size,
        )
        for one in weights:
            one.check_all_read(settings.trainer)
        notes = [note for one in weights for note in one.notes]
    graph.metadata_props["voxelrt.notes"] = "\n".join(notes)
    return graph, settings, {"format": "nnunet", "sha256": _digest(training, chosen), "notes": notes}


class _Weights:
    """The weights of one fold by name."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.notes = checkpoint, list[str]()
        content = checkpoint.content
        if not isinstance(content, dict) or not isinstance(content.get("network_weights"), dict):
            raise ModelError(f"{checkpoint.name} is no checkpoint of nnU-Net: it has no network_weights")
        self.fields = content
        self.places: dict[str, TensorPlace] = {}
        for key, value in content["network_weights"].items():
            if isinstance(value, Opaque):
                raise ModelError(f"{checkpoint.name}: network_weights hold {value.global_name}, which is not read")
            if not isinstance(key, str) or not isinstance(value, TensorPlace):
                raise ModelError(f"{checkpoint.name}: network_weights hold {type(value).__name__}, not a tensor")
            for wrapper in WRAPPERS:
                key = key.removeprefix(wrapper)
            self.places[key] = value
        self.read: set[str] = set()

    def check_all_read(self, trainer: str) -> None:
        """Raise ModelError where weights are left over: another network than the plans' was trained."""
        left = [name for name in self.places if name not in self.read and not UNREAD.search(name)]
        if left:
            raise ModelError(
                f"{self.checkpoint.name} holds {left[0]!r} and {len(left) - 1} more weights that the plans' network "
                f"has not: its trainer, {trainer}, built another one"
            )

    def get(self, name: str, shape: tuple[int, ...]) -> Array | None:
        del shape  # is checked by who asks
        self.read.add(name)
        place = self.places.get(name)
        if place is None:
            return None
        array = self.checkpoint.tensor(place, name).astype(np.float32)
        if not np.isfinite(array).all():
            self.notes.append(f"{self.checkpoint.name}: {name} holds NaN or infinity")
        return array


def _configuration_of(training: Path, checkpoint: dict[str, Any]) -> str:
    arguments = checkpoint.get("init_args")
    said = arguments.get("configuration") if isinstance(arguments, dict) else None
    if isinstance(said, str):
        return said
    if training.name.count("__") == 2:
        return training.name.split("__")[2]
    raise ModelError(f"neither the checkpoint nor the name of {training.name} says which configuration it is")


def _settings(
    plans: read.Fields,
    dataset: read.Fields,
    config: read.Fields,
    checkpoint: dict[str, Any],
    name: str,
    folds: tuple[str, ...],
) -> NnunetSettings:
    patch = config.numbers("patch_size")
    spacing = tuple(float(v) for v in config.get("spacing", list) if isinstance(v, int | float))
    dimensions = len(patch)
    if dimensions not in (2, 3) or len(spacing) != dimensions or not all(0 < v < 1e6 for v in spacing):
        raise ModelError(f"{config.where}: a patch of {patch} voxels at {spacing} mm")
    named, order = read.labels(dataset)
    previous = config.get("previous_stage", str, "")
    mirror = checkpoint.get("inference_allowed_mirroring_axes")
    axes = tuple(mirror) if isinstance(mirror, list | tuple) else ()
    if any(isinstance(axis, bool) or axis not in range(dimensions) for axis in axes):
        raise ModelError(f"the checkpoint allows mirroring along {axes!r:.60}; there are {dimensions} axes")
    forward, backward = (plans.numbers(f"transpose_{way}", low=0, high=2) for way in ("forward", "backward"))
    if sorted(forward) != [0, 1, 2] or [forward.index(i) for i in range(3)] != list(backward):
        raise ModelError(f"{plans.where}: transpose_forward {forward} and transpose_backward {backward} do not fit")
    reader = dataset.table.get("overwrite_image_reader_writer") or plans.table.get("image_reader_writer")
    return NnunetSettings(
        dataset=str(plans.get("dataset_name", str, "unnamed")),
        plans=str(plans.get("plans_name", str, "nnUNetPlans")),
        configuration=name,
        trainer=str(checkpoint.get("trainer_name") or "nnUNetTrainer"),
        dimensions=2 if dimensions == 2 else 3,
        patch_size=patch,
        spacing_mm=spacing,
        transpose_forward=(forward[0], forward[1], forward[2]),
        transpose_backward=(backward[0], backward[1], backward[2]),
        channels=read.channels(plans, config, dataset),
        reader=str(reader or "SimpleITKIO"),
        file_ending=str(dataset.get("file_ending", str, ".nii.gz")),
        resample_data=read.resampling(config, "data", 3),
        resample_logits=read.resampling(config, "probabilities", 1),
        labels=named,
        regions=bool(order),
        region_order=order,
        mirror_axes=axes,
        folds=folds,
        previous_stage=previous,
        cascade_labels=tuple(sorted({v for label in named for v in label.values if v})) if previous else (),
        resample_previous=read.resampling(config, "seg", 1),
    )


def _postprocessing_file(training: Path) -> Path | None:
    found = (
        path
        for kind in ("pkl", "json")
        for path in (
            training / f"postprocessing.{kind}",
            *sorted(training.glob(f"crossval_results_folds_*/postprocessing.{kind}")),
        )
    )
    return next((path for path in found if path.is_file()), None)


def _with_postprocessing(settings: NnunetSettings, training: Path) -> NnunetSettings:
    """What nnU-Net found to help in cross-validation, where the folder holds it: as a pickle, or the JSON beside it."""
    path = _postprocessing_file(training)
    if path is None:
        return settings
    if path.suffix == ".json":
        said = read.read_json(path)
        content: Any = (said.get("postprocessing_fns", list), said.get("postprocessing_kwargs", list))
    else:
        content = read_pickle(path)
    if not isinstance(content, tuple | list) or len(content) != 2 or not all(isinstance(c, list) for c in content):
        raise ModelError(f"{path.name} does not hold functions and their arguments")
    steps = tuple(_keep_largest(*pair) for pair in zip(*content, strict=False))
    return replace(settings, postprocessing=steps)


def _keep_largest(function: Any, arguments: Any) -> KeepLargest:
    name = str(getattr(function, "global_name", function))
    if name.rsplit(".", 1)[-1] != "remove_all_but_largest_component_from_segmentation":
        raise UnsupportedError(f"the postprocessing {name:.80} is not read; keeping the largest component is")
    table = read.Fields(arguments, "the arguments of the postprocessing")
    values: list[Any] = []
    given = table.get("labels_or_regions", (list, tuple, int))
    for value in given if isinstance(given, list | tuple) else [given]:
        values.extend(value if isinstance(value, list | tuple) else [value])
    if not values or any(isinstance(v, bool) or not isinstance(v, int) or not 0 <= v < 1 << 16 for v in values):
        raise ModelError(f"the postprocessing keeps the labels {values!r:.60}")
    return KeepLargest(tuple(values), table.get("background_label", int, 0) if "background_label" in arguments else 0)


def _digest(training: Path, chosen: dict[str, Path]) -> str:
    """One hash of all that decides the answer."""
    total = hashlib.sha256(json.dumps(sorted(chosen)).encode())
    fixes = _postprocessing_file(training)
    files = [training / "plans.json", training / "dataset.json", *(chosen[fold] for fold in sorted(chosen))]
    for path in [*files, *([fixes] if fixes is not None else [])]:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
