"""What a run writes: a mask as NIfTI or, of a DICOM study, as DICOM, told by the suffix; and a table of volumes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from voxelrt.errors import OutputError, UsageError
from voxelrt.io import DicomSource, NiftiSource, kind_of, write_image
from voxelrt.io.atomic import atomic_path
from voxelrt.io.dicom.segmentation import (
    Algorithm,
    SegKind,
    Segment,
    refuse_source,
    require_highdicom,
    write_segmentation,
)
from voxelrt.models.recipe_schema import Recipe
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.study import Place, Study
from voxelrt.volume import Volume

NIFTI = (".nii", ".nii.gz")
DICOM = (".dcm",)
PICTURE = (".png",)
TABLE = (".json", ".csv")
COLUMNS = ("value", "name", "voxels", "volume_ml")


def is_dicom(out: Path | None) -> bool:
    """Whether the name asks for DICOM."""
    return out is not None and out.name.endswith(DICOM)


def refuse_place(path: Path, suffixes: tuple[str, ...], study: Study) -> None:
    """Say at once what would otherwise fail after minutes of work: a wrong name, the study itself, no folder."""
    if not path.name.endswith(suffixes):
        raise UsageError(f"{path.name!r}: the name must end in {' or '.join(suffixes)}")
    if any(_same_file(path, place) for place in _places(study)):
        raise UsageError(f"{path.name!r} is the study itself; it is never overwritten")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path.name!r}: there is no folder {str(path.parent)!r}; make it first")


def refuse_format(out: Path | None, seg: SegKind | None, study: Study) -> None:
    """Refuse DICOM of a study that is none, and a kind of segmentation without a DICOM name."""
    if not is_dicom(out):
        if seg is not None:
            raise UsageError("a DICOM segmentation needs an output whose name ends in .dcm")
        return
    require_highdicom()
    if any(isinstance(place, Volume) or kind_of(Path(place)) != "DICOM" for place in _places(study)):
        raise UsageError(
            "a DICOM segmentation refers to the slices of a DICOM series, and this study is none; write .nii.gz"
        )


def refuse_unreferable(out: Path | None, recipe: Recipe, source: NiftiSource | DicomSource | None) -> None:
    """Once the study is read and before the model runs: refuse what cannot be written as a DICOM segmentation."""
    if not is_dicom(out):
        return
    if recipe.output.kind in ("image", "classes"):
        raise UsageError(f"{recipe.name} gives no labels ({recipe.output.kind}), so there is no segmentation to write")
    if isinstance(source, DicomSource):
        refuse_source(source)


def write_result(
    volume: Volume,
    out: Path,
    *,
    source: NiftiSource | DicomSource | None,
    recipe: Recipe,
    algorithm: Algorithm | None,
    seg: SegKind | None,
) -> None:
    """Write a mask or image in the format of its name.

    Raises
    ------
    UsageError : DICOM without a DICOM source.
    OutputError, GeometryError, InputError : as the writers.
    """
    if not is_dicom(out):
        write_image(volume, out, source=source)
        return
    if not isinstance(source, DicomSource) or algorithm is None:
        raise UsageError("a DICOM segmentation is written of a DICOM study, one at a time")
    write_segmentation(volume, out, source, segments_of(volume, recipe), algorithm, kind=seg or "binary")


def segments_of(volume: Volume, recipe: Recipe) -> list[Segment]:
    """The volume's labels with the recipe's colours and codes, where it has them."""
    said = {label.value: label for label in recipe.output.labels}
    segments = []
    for value, name in volume.labels.items():
        label = said.get(value)
        code = label.code if label is not None else None
        coded = None if code is None else (code.scheme, code.value, code.meaning)
        segments.append(Segment(value, name, label.colour if label is not None else (), coded))
    return segments


def algorithm_of(plan: Plan) -> Algorithm:
    """What is said of a plan in what it makes: its description holds the hashes of its graph and weights."""
    digest = hashlib.sha256(plan.info.to_json()).hexdigest()
    return Algorithm(plan.info.name, version("voxelrt"), digest, plan.info.precision)


def volume_rows(labels: Volume) -> list[dict[str, Any]]:
    """One row for each label but 0: value, name, voxels, volume in mL; values without a name are "label 7"."""
    counts = np.bincount(labels.array.reshape(-1))
    values = {int(value) for value in np.flatnonzero(counts)} | set(labels.labels)
    millilitres = labels.voxel_volume_mm3 / 1000
    rows = []
    for value in sorted(values - {0}):
        voxels = int(counts[value]) if value < counts.size else 0
        name = labels.labels.get(value, f"label {value}")
        rows.append(dict(zip(COLUMNS, (value, name, voxels, voxels * millilitres), strict=True)))
    return rows


def write_table(labels: Volume, path: Path, algorithm: Algorithm) -> None:
    """Write the volumes per label as .csv, or as .json with the maker. Raises OutputError if it cannot be written."""
    rows = volume_rows(labels)
    if path.name.endswith(".csv"):
        written = io.StringIO(newline="")
        table = csv.DictWriter(written, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        text = written.getvalue()
    else:
        made_by = {"algorithm": algorithm.name, "voxelrt": algorithm.version, "plan_sha256": algorithm.plan_sha256}
        text = json.dumps({"labels": rows, "voxel_mm3": labels.voxel_volume_mm3, **made_by}, indent=1) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")


def _places(study: Study) -> list[Place | Volume]:
    return list(study.values()) if isinstance(study, Mapping) else [study]


def _same_file(path: Path, place: Place | Volume) -> bool:
    return not isinstance(place, Volume) and path.exists() and Path(place).exists() and path.samefile(place)
