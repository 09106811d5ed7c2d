"""voxelrt warp: an image brought onto another's grid by a displacement field, an affine, or both."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from voxelrt.commands.console import Screen
from voxelrt.commands.options import JsonOption, QuietOption, RepairOption, SeriesOption, Uids, UidsOption
from voxelrt.errors import UsageError
from voxelrt.finding import method, write_derived_image
from voxelrt.io import DicomSource, Image, kind_of, read_image
from voxelrt.io.dicom.derived_series import DEFORMED, RESAMPLED, refuse_derived
from voxelrt.io.fields import read_field
from voxelrt.io.tfm import read_tfm
from voxelrt.kernels import jacobian
from voxelrt.outputs import format_of, refuse_image
from voxelrt.postprocess.comparison import comparison_picture
from voxelrt.warping import warp_volume


def warp_command(
    moving: Annotated[Path, typer.Argument(metavar="MOVING", help="A NIfTI file, or a folder or zip of DICOM.")],
    reference: Annotated[
        Path, typer.Option("--reference", metavar="FIXED", help="The image whose grid the result has.")
    ],
    field: Annotated[
        Path | None,
        typer.Option("--field", metavar="FILE", help="Displacements in mm: NIfTI of five dimensions, intent 1007."),
    ] = None,
    affine: Annotated[
        Path | None, typer.Option("--affine", metavar="FILE", help="ITK's .tfm, applied behind the field.")
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="The image holds labels: no value that was not there.")
    ] = False,
    order: Annotated[int, typer.Option("--order", help="0 nearest, 1 trilinear, 3 cubic B-spline.")] = 1,
    padding: Annotated[
        str,
        typer.Option(
            "--padding",
            help="What lies outside: zeros_edges (0 beyond the outer voxels' faces, as in ITK), zeros (fading to 0 "
            "from their centres on, as in torch), border or reflect.",
        ),
    ] = "zeros_edges",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT", help="The result, .nii or .nii.gz; of DICOM a new folder."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="A PNG: before, after and their difference.")
    ] = None,
    series: SeriesOption = None,
    reference_series: Annotated[
        str | None,
        typer.Option(
            "--reference-series", metavar="NUMBER|#PLACE|UID", help="The same of the reference, where it is DICOM."
        ),
    ] = None,
    repair: RepairOption = False,
    uids: UidsOption = Uids.FRESH,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Warp an image onto another's grid. Research software, not a medical device.

    At a point p of the reference the result shows what the moving image has at affine(p + field(p)), in mm of LPS:
    what ITK, ANTs and Slicer do with the same files.

    [bold]Examples[/]

      voxelrt warp moving.nii.gz --field field.nii.gz --reference fixed.nii.gz -o warped.nii.gz

      voxelrt warp prior-dicom/ --affine a.tfm --reference current-dicom/ -o aligned-series/

      voxelrt warp study/ --series 3 --affine a.tfm --reference study/ --reference-series 5 -o aligned-series/

      voxelrt warp labels.nii.gz --field field.nii.gz --affine a.tfm --reference fixed.nii.gz --labels -o out.nii.gz
    """
    if out is None and picture is None and json is None:
        raise UsageError("nothing would be kept: give -o OUT, --picture FILE or --json -")
    if field is None and affine is None:
        raise UsageError("nothing says how to warp: give --field FILE, --affine FILE or both")
    if out is not None:
        refuse_image(out, reference, moving)
    screen = Screen(quiet=quiet, json_to=json)
    with screen.progress() as (tell, _):
        tell("read", 0, 1)
        source, fixed = _read(moving, series, repair), _read(reference, reference_series, repair)
        as_series = out is not None and format_of(out) == "folder"
        if as_series and isinstance(source.source, DicomSource) and isinstance(fixed.source, DicomSource):
            refuse_derived(source.volume, fixed.source, source.source)
        vectors = read_field(field) if field is not None else None
        matrix = read_tfm(affine) if affine is not None else None
        begin = time.perf_counter()
        tell("warp", 0, 1)
        warped = warp_volume(
            source.volume, fixed.volume, field=vectors, affine=matrix, order=order, labels=labels, padding=padding
        )
        seconds = time.perf_counter() - begin
        if out is not None:
            tell("write", 0, 1)
            shift = (None, None) if vectors is None else (vectors.vectors_mm, vectors.affine)
            what = RESAMPLED if vectors is None else DEFORMED
            made_by = method("warp", order, labels, padding, matrix, *shift)
            write_derived_image(warped, out, fixed.source, made_by, what, moving=source.source, uids=uids.value)
        if picture is not None:
            tell("draw", 0, 1)
            before = warp_volume(source.volume, fixed.volume, labels=labels, order=order, padding=padding)
            comparison_picture(before, warped, picture, title="Warped onto the reference")
    for text in (*source.warnings, *fixed.warnings):
        screen.warn(text)
    folded = 0
    if vectors is not None:
        rows = np.linalg.inv(vectors.affine)[:3, :3]
        voxels = np.einsum("ij,jzyx->izyx", rows, vectors.vectors_mm)[::-1]
        folded = int(jacobian(np.ascontiguousarray(voxels[None], np.float32))[1][0])
        if folded:
            screen.warn(f"the field folds space in {folded} of {voxels[0].size} voxels")
    screen.line(f"warped {warped.array[0].size} voxels in {seconds * 1e3:.0f} ms" + (f" to {out}" if out else ""))
    screen.json({"shape": list(warped.array.shape), "seconds": seconds, "folded_voxels": folded})


def _read(path: Path, series: str | None, repair: bool) -> Image:
    """An image; `repair` concerns those of DICOM alone."""
    return read_image(path, series=series, repair=repair and kind_of(path) == "DICOM")
