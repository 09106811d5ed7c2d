"""Read what a model needs of a study, and refuse what is not that: one image for each channel, all on one grid."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from voxelrt.errors import GeometryError, UsageError
from voxelrt.io import kind_of, open_dicom, read_image
from voxelrt.io.dicom import DicomStudy, GeometryReport, read_series
from voxelrt.io.image import DicomSource, Image, Source
from voxelrt.models.recipe_schema import Channel, Recipe
from voxelrt.preprocess.checks import check_image
from voxelrt.volume import Volume

Place = str | os.PathLike[str]
Study = Place | Volume | Mapping[str, Place | Volume]

# Two grids are one if no voxel of the one lies further than this from the same voxel of the other (mm).
SAME_GRID_MM = 1e-2


@dataclass(frozen=True)
class Pick:
    """Which part of a DICOM study is meant, and whether its slices may be mended; nothing of it concerns NIfTI.

    Parameters
    ----------
    series
        SeriesNumber or SeriesInstanceUID; by default the recipe's modality and patterns choose.
    volume
        Of a series with several volumes: name, or number from 1.
    repair
        Leave out repeated slices and interpolate missing and uneven ones, instead of refusing them.
    """

    series: int | str | None = None
    volume: int | str | None = None
    repair: bool = False


ANY = Pick()


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
    source: Source | None
    warnings: tuple[str, ...]

    @property
    def geometry(self) -> GeometryReport | None:
        """What was found of a DICOM study's geometry and done about it."""
        return self.source.report if isinstance(self.source, DicomSource) else None


def open_study(study: Study, recipe: Recipe, *, force: bool = False, pick: Pick = ANY) -> Opened:
    """Read and check a study.

    Of a DICOM study with several series each channel takes the one that its recipe describes: modality, then patterns
    of the series description. One DICOM study may so give all the channels.

    Parameters
    ----------
    study
        A path (NIfTI file, folder or zip of DICOM files), a Volume, or a mapping channel name -> one of these.
    recipe
        Says which channels there are and what they must be.
    force
        Warn where the study is not what the model was made for, instead of refusing it.
    pick
        Which series and volume of a DICOM study.

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
    reader = _Reader(recipe, pick)
    for channel in channels:
        one = reader.read(given[channel.name], channel)
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
        if len(names) > 1 and _is_dicom(study):
            return dict.fromkeys(names, study)
        if len(names) > 1 and isinstance(study, Volume) and len(study.array) == len(names):
            return {name: study.with_array(study.array[index : index + 1]) for index, name in enumerate(names)}
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


def _is_dicom(given: Place | Volume) -> bool:
    return not isinstance(given, Volume) and Path(given).exists() and kind_of(Path(given)) == "DICOM"


class _Reader:
    """Reads the channels of one study; a DICOM folder that gives several is looked through once."""

    def __init__(self, recipe: Recipe, pick: Pick) -> None:
        self._recipe, self._pick = recipe, pick
        self._studies: dict[str, DicomStudy] = {}

    def read(self, given: Place | Volume, channel: Channel) -> Opened:
        """One channel."""
        if isinstance(given, Volume):
            return Opened(given, None, ())
        image = self._dicom(given, channel) if _is_dicom(given) else self._other(given)
        return Opened(image.volume, image.source, image.warnings)

    def _other(self, given: Place) -> Image:
        if self._pick != ANY:
            raise UsageError(f"{Path(given).name!r} is not DICOM; series, volume and repair are for DICOM")
        return read_image(given)

    def _dicom(self, given: Place, channel: Channel) -> Image:
        key = str(given)
        if key not in self._studies:
            self._studies[key] = open_dicom(given)
        study, pick = self._studies[key], self._pick
        series = study.choose(pick.series, patterns=channel.series, modality=self._recipe.modality)
        said = [f"took {series.title} of {len(study.series)}"] if len(study.series) > 1 else []
        return read_series(series, volume=pick.volume, repair=pick.repair, warnings=[*study.warnings, *said])


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
