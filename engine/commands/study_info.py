"""What `voxelrt info` says of a study: an image, or the series of a DICOM folder or zip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxelrt.commands.console import Screen
from voxelrt.errors import InputError, UsageError
from voxelrt.io import kind_of, open_dicom, read_image
from voxelrt.io.dicom import DicomStudy, Series
from voxelrt.io.dicom.description import shown
from voxelrt.io.dicom.slide import open_dicom_slide
from voxelrt.io.slide import Slide
from voxelrt.io.tiff_slide import open_tiff_slide
from voxelrt.models.recipe import shipped_recipes


def study_info(
    what: str,
    screen: Screen,
    *,
    series: str | None = None,
    volume: str | None = None,
    repair: bool = False,
    with_identifiers: bool = False,
) -> dict[str, Any]:
    """Show an image with its values, or the list of what a DICOM study holds.

    Raises
    ------
    UsageError : nothing there, options that do not belong to this kind of study.
    InputError : a study that cannot be read.
    """
    place = Path(what)
    if not place.exists():
        raise UsageError(f"{place.name!r} is no file, folder or recipe; recipes are {', '.join(shipped_recipes())}")
    if kind_of(place) == "DICOM":
        study = open_dicom(place)
        alone = len(study.series) == 1 and not study.damaged and _volumes_of(study.series[0]) == 1
        if series is None and not alone:
            return _list(study, screen, repair, with_identifiers)
    slide = open_tiff_slide(place) if kind_of(place) == "picture" and volume is None else None
    if slide is not None:
        return _levels(slide, screen)
    return _image(place, screen, series, volume, repair)


def _levels(slide: Slide, screen: Screen) -> dict[str, Any]:
    screen.line(f"{slide.kind}: {len(slide.levels)} {'level' if len(slide.levels) == 1 else 'levels'}")
    rows = []
    for number, level in enumerate(slide.levels, start=1):
        screen.line(f"level {number}: {level.words}")
        spacing = None if level.spacing_mm is None else list(level.spacing_mm)
        rows.append(
            {"level": number, "size_yx": list(level.size), "tile_yx": list(level.tile), "spacing_mm_yx": spacing}
        )
    return {"kind": "slide", "levels": rows, "warnings": list(slide.warnings)}


def _volumes_of(series: Series) -> int:
    try:
        return len(series.volume_names)
    except InputError:
        return 0


def _image(place: Path, screen: Screen, series: str | None, volume: str | None, repair: bool) -> dict[str, Any]:
    image = read_image(place, series=series, volume=volume, repair=repair)
    made, values = image.volume, image.volume.array
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    data: dict[str, Any] = {
        "kind": "image",
        "shape_zyx": list(made.shape_zyx),
        "channels": int(values.shape[0]),
        "spacing_mm_zyx": list(made.known_spacing_mm),
        "orientation_xyz": image.orientation_xyz,
        "dtype": str(values.dtype),
        "range": [float(finite.min()), float(finite.max())] if finite.size else None,
        "modality": made.modality or None,
        "voxel_volume_mm3": made.voxel_volume_mm3 if made.voxel_ml is not None else None,
        "warnings": list(image.warnings),
    }
    screen.line(f"image: {' × '.join(map(str, made.shape_zyx))} voxels (z, y, x), {values.shape[0]} channel(s)")
    screen.line(f"spacing: {spacing_in_words(made.known_spacing_mm)}")
    screen.line(f"orientation: {in_words(image.orientation_xyz)}")
    span = "no finite values" if data["range"] is None else f"{data['range'][0]:g} to {data['range'][1]:g}"
    screen.line(f"values: {values.dtype}, {span}; modality {made.modality or 'not stated'}")
    for warning in image.warnings:
        screen.warn(warning)
    return data


def spacing_in_words(spacing: Sequence[float | None]) -> str:
    """Distances along z, y, x in mm; "?" for what nothing tells."""
    if all(mm is None for mm in spacing):
        return "not known, a picture in pixels"
    return f"{listed_mm(spacing)} mm (z, y, x)"


def listed_mm(spacing: Sequence[float | None]) -> str:
    """Distances with "?" for those that nothing tells."""
    return " × ".join("?" if mm is None else f"{mm:.4g}" for mm in spacing)


def in_words(codes: str) -> str:
    """Where the axes point to, as `Image.orientation_xyz` has it."""
    if codes == "---":
        return "not known"
    named = [letter for letter in codes if letter != "-"]
    return f"{', '.join('xyz'[: len(named)])} point to {', '.join(named)}"


def _list(study: DicomStudy, screen: Screen, repair: bool, with_identifiers: bool) -> dict[str, Any]:
    if not study.series and not study.damaged:
        study.choose()  # says why there is nothing
    rows = [row for series in study.series for row in _rows(series, repair, with_identifiers)]
    screen.line(f"DICOM study: {len(study.series)} series")
    columns = ("series", "modality", "description", "volume", ">slices", "size", "spacing (mm)", "to", "problems")
    screen.table(
        columns,
        [
            (
                f"{'-' if row['series'] is None else row['series']} (#{row['place']})",
                row["modality"] or "-",
                row["description"],
                row["volume"],
                row["slices"],
                " × ".join(map(str, row["size_yx"])),
                listed_mm(row["spacing_mm_zyx"] or ()),
                row["orientation_xyz"] or "",
                row["problem"] or "",
            )
            for row in rows
        ],
    )
    damaged = [one.sentence for one in study.damaged]
    for line in (*study.warnings, *damaged):
        screen.warn(line)
    return {"kind": "study", "series": rows, "warnings": study.warnings, "damaged": damaged}


def _rows(series: Series, repair: bool, with_identifiers: bool) -> list[dict[str, Any]]:
    """One row for each volume of a series."""
    common: dict[str, Any] = {
        "series": series.number,
        "place": series.index,
        "modality": series.modality,
        "description": series.description if with_identifiers else shown(series.description),
        "uid": series.uid if with_identifiers else None,
        "size_yx": [series.headers[0].integer("Rows"), series.headers[0].integer("Columns")],
    }
    try:
        if series.slide:
            return [{**common, **row} for row in _slide_rows(open_dicom_slide(series.headers))]
        groups = series.groups
    except InputError as error:
        return [{**common, "volume": "", "slices": len(series.headers), **_nowhere(str(error))}]
    rows = []
    for number, (name, frames) in enumerate(groups, start=1):
        row = {**common, "volume": f"{number}: {name}" if len(groups) > 1 else "", "slices": len(frames)}
        row["size_yx"] = list(frames[0].size)  # of a mosaic a tile's
        try:
            report = series.volume(number, repair=repair).report
        except InputError as error:
            rows.append({**row, **_nowhere(str(error))})
            continue
        rows.append(
            {
                **row,
                "slices": report.slices,
                "spacing_mm_zyx": list(report.known_spacing_mm_zyx),
                "orientation_xyz": report.orientation_xyz,
                "geometry": report.record(),
                "problem": "; ".join(report.sentences),
            }
        )
    return rows


def _slide_rows(slide: Slide) -> list[dict[str, Any]]:
    """One row for each level."""
    return [
        {
            "volume": f"level {number}",
            "slices": 1,
            "size_yx": list(level.size),
            "spacing_mm_zyx": None if level.spacing_mm is None else [None, *level.spacing_mm],
            "orientation_xyz": None,
            "geometry": None,
            "problem": "; ".join(slide.warnings),
        }
        for number, level in enumerate(slide.levels, start=1)
    ]


def _nowhere(problem: str) -> dict[str, Any]:
    return {"spacing_mm_zyx": None, "orientation_xyz": None, "geometry": None, "problem": problem}
