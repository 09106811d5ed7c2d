"""Read what a model needs of a study, and refuse what is not that: one image for each channel, all on one grid."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from voxelrt.errors import GeometryError, UsageError
from voxelrt.io import read_image
from voxelrt.io.image import DicomSource, NiftiSource
from voxelrt.models.recipe_schema import Channel, Recipe
from voxelrt.preprocess.checks import check_image
from voxelrt.volume import Volume

Place = str | os.PathLike[str]
Study = Place | Volume | Mapping[str, Place | Volume]

# Two grids are one if no voxel of the one lies further than this from the same voxel of the other (mm).
SAME_GRID_MM = 1e-2


@dataclass(frozen=True, eq=False)
class Opened:
    """A study as it was read.

    Parameters
    ----------
    volume
        (C, Z, Y, X), one channel for each of the recipe's.
    source
        Where the first channel came from, None for a volume in memory.
    warnings
        What the readers and checks had to say.
    """

    volume: Volume
    source: NiftiSource | DicomSource | None
    warnings: tuple[str, ...]


def open_study(study: Study, recipe: Recipe, *, force: bool = False) -> Opened:
    """Read and check a study.

    Parameters
    ----------
    study
        A path (NIfTI file, folder of DICOM files), a Volume, or a mapping channel name -> one of these.
    recipe
        Says which channels there are and what they must be.
    force
        Warn where the study is not what the model was made for, instead of refusing it.

    Raises
    ------
    UsageError : channels that are missing or unknown.
    InputError : a file that cannot be read; another modality or body part.
    GeometryError : channels on different grids.
    """
    channels = recipe.input.channels
    given = _by_channel(study, channels)
    opened: list[Opened] = []
    warnings: list[str] = []
    for channel in channels:
        one = _read(given[channel.name])
        said = [*one.warnings, *check_image(one.volume, one.source, channel, recipe, force=force)]
        warnings += [f"{channel.name}: {line}" for line in said] if len(channels) > 1 else said
        opened.append(one)
    for channel, one in zip(channels[1:], opened[1:], strict=True):
        _refuse_other_grid(channels[0].name, opened[0].volume, channel.name, one.volume)
    volume = _finite(_stacked([one.volume for one in opened]), warnings)
    return Opened(volume, opened[0].source, tuple(warnings))


def _by_channel(study: Study, channels: tuple[Channel, ...]) -> dict[str, Place | Volume]:
    names = [channel.name for channel in channels]
    if not isinstance(study, Mapping):
        if len(names) > 1:
            example = ", ".join(f'"{name}": "{name}.nii.gz"' for name in names)
            raise UsageError(
                f"the model needs {len(names)} images, {', '.join(names)}: give them by name, {{{example}}}"
            )
        return {names[0]: study}
    unknown, missing = sorted(set(study) - set(names)), [name for name in names if name not in study]
    if unknown or missing:
        wrong = [f"unknown {', '.join(unknown)}"] * bool(unknown) + [f"missing {', '.join(missing)}"] * bool(missing)
        raise UsageError(f"the model takes the images {', '.join(names)}: {'; '.join(wrong)}")
    return dict(study)


def _read(given: Place | Volume) -> Opened:
    if isinstance(given, Volume):
        return Opened(given, None, ())
    image = read_image(given)
    return Opened(image.volume, image.source, image.warnings)


def _refuse_other_grid(first_name: str, first: Volume, name: str, other: Volume) -> None:
    if first.shape_zyx != other.shape_zyx:
        raise GeometryError(
            f"{first_name} has {first.shape_zyx} voxels (z, y, x) and {name} {other.shape_zyx}; bring both onto one "
            "grid first"
        )
    corners = np.array([[x, y, z, 1.0] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    corners[:, :3] *= np.array(first.shape_zyx[::-1]) - 1
    apart = float(np.abs(corners @ (first.affine - other.affine).T).max())
    if apart > SAME_GRID_MM:
        raise GeometryError(
            f"{first_name} and {name} lie on different grids: the same voxel is up to {apart:.3g} mm apart; bring "
            "both onto one grid first"
        )


def _stacked(volumes: list[Volume]) -> Volume:
    if len(volumes) == 1:
        return volumes[0]
    return replace(volumes[0], array=np.concatenate([volume.array for volume in volumes]))


def _finite(volume: Volume, warnings: list[str]) -> Volume:
    """NaN and infinity would spread through the whole answer of a network."""
    if volume.array.dtype.kind != "f" or bool(np.isfinite(volume.array).all()):
        return volume
    warnings.append("voxels that are NaN or infinite were taken as 0")
    return volume.with_array(np.nan_to_num(volume.array, nan=0.0, posinf=0.0, neginf=0.0))
