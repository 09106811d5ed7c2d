"""voxelrt convert: a study in; NIfTI, MetaImage, NRRD or a picture out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from voxelrt.commands.console import Screen
from voxelrt.commands.options import (
    DisplayedOption,
    JsonOption,
    QuietOption,
    RepairOption,
    SeriesOption,
    StraightenOption,
    VolumeOption,
)
from voxelrt.commands.study_info import in_words, spacing_in_words
from voxelrt.conversion import Converted, convert


def convert_command(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A folder or zip of DICOM, a DICOM file, NIfTI, PNG, JPEG or TIFF.")
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT", help="The image, .nii.gz, .nii, .mha or .nrrd; or .png, .gif."),
    ],
    series: SeriesOption = None,
    volume: VolumeOption = None,
    repair: RepairOption = False,
    displayed: DisplayedOption = False,
    straighten: StraightenOption = False,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write a study's image in another format, or a picture of it. Research software, not a medical device.

    Values are in modality units; what was found of the slices' geometry is said. voxelrt info lists what a study holds.

    [bold]Examples[/]

      voxelrt convert dicom-folder/ -o head.nii.gz

      voxelrt convert dicom-folder/ -o slices.png

      voxelrt convert study.zip -o t1.nii.gz --series 4 --json -

      voxelrt convert diffusion/ -o all.nii.gz --volume all

      voxelrt convert chest.dcm -o chest.nii.gz --displayed
    """
    screen = Screen(quiet=quiet, json_to=json)
    with screen.progress() as (tell, _):
        tell("read", 0, 1)
        done = convert(
            study, out, series=series, volume=volume, repair=repair, displayed=displayed, straighten=straighten
        )
    for warning in done.image.warnings:
        screen.warn(warning)
    data = _record(done)
    screen.line(f"image: {' × '.join(map(str, data['shape_zyx']))} voxels (z, y, x), {data['channels']} channel(s)")
    screen.line(f"spacing: {spacing_in_words(data['spacing_mm_zyx'])}")
    screen.line(f"orientation: {in_words(done.image.orientation_xyz)}")
    if done.geometry is not None:
        found = "; ".join(done.geometry.sentences) or "an even grid, nothing to mend"
        screen.line(f"geometry: {done.geometry.slices} {'slice' if done.geometry.slices == 1 else 'slices'}, {found}")
    screen.line(f"wrote {done.out}")
    screen.json(data)


def _record(done: Converted) -> dict[str, Any]:
    made = done.image.volume
    return {
        "out": str(done.out),
        "shape_zyx": list(made.shape_zyx),
        "channels": int(made.array.shape[0]),
        "spacing_mm_zyx": list(made.known_spacing_mm),
        "orientation_xyz": done.image.orientation_xyz,
        "dtype": str(made.array.dtype),
        "modality": made.modality or None,
        "warnings": list(done.image.warnings),
        "geometry": None if done.geometry is None else done.geometry.record(),
    }
