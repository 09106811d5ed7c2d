"""Read what a model needs of a study, and refuse what is not that: one image for each channel, all on one grid."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from voxelrt.errors import GeometryError, InputError, UsageError
from voxelrt.io import kind_of, open_dicom, read_image
from voxelrt.io.dicom import DicomStudy, GeometryReport, read_series
from voxelrt.io.image import DicomSource, Image, PictureSource, Source
from voxelrt.models.recipe_schema import Channel, Recipe
from voxelrt.preprocess.checks import check_image
from voxelrt.volume import Volume

Place = str | os.PathLike[str]
Study = Place | Volume | Mapping[str, Place | Volume]

# Two grids are one if no voxel of the one lies further than this from the same voxel of the other (mm).
SAME_GRID_MM = 1e-2
# Red, green and blue of ITU-R BT.601, by which pictures are made grey everywhere.
LUMINANCE = (0.299, 0.587, 0.114)


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
    displayed
        Grey values as a viewer shows them, 0 to 255 (VOI LUT or window, MONOCHROME1 inverted), also where the recipe
        does not ask for it.
    straighten
        Resample a tilted series onto an upright grid, on which the result then lies.
    """

    series: int | str | None = None
    volume: int | str | None = None
    repair: bool = False
    displayed: bool = False
    straighten: bool = False


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
    colours
        Of a picture in colour that is seen as grey, or channel by channel: the picture.
    """

    volume: Volume
    source: Source | None
    warnings: tuple[str, ...]
    colours: Volume | None = None

    @property
    def shown(self) -> Volume:
        """What pictures show below the result."""
        return self.volume if self.colours is None else self.colours

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
        A path (NIfTI file, folder or zip of DICOM files, PNG, JPEG, TIFF), a Volume, or a mapping channel name -> one
        of these.
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
        alone = isinstance(study, Mapping) and len(study) > 1
        one = reader.read(given[channel.name], channel, alone=alone or len(channels) == 1)
        said = [*one.warnings, *check_image(one.volume, one.source, channel, recipe, force=force)]
        warnings += [f"{channel.name}: {line}" for line in said] if len(channels) > 1 else said
        opened.append(one)
    for channel, one in zip(channels[1:], opened[1:], strict=True):
        _refuse_other_grid(channels[0].name, opened[0].volume, channel.name, one.volume)
    volume = _finite(_stacked([one.volume for one in opened]), warnings)
    return Opened(volume, opened[0].source, tuple(warnings), opened[0].colours)


def _by_channel(study: Study, channels: tuple[Channel, ...]) -> dict[str, Place | Volume]:
    names = [channel.name for channel in channels]
    if isinstance(study, Mapping) and list(study) == names[:1] and _kind(study[names[0]]) == "picture":
        study = study[names[0]]  # nnU-Net's cases of colour pictures: one file, numbered 0000
    if not isinstance(study, Mapping):
        if len(names) > 1 and _kind(study) in ("DICOM", "picture"):
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


def _kind(given: Place | Volume) -> str:
    """ "NIfTI", "DICOM" or "picture"; "" for a volume and for what is not there."""
    return "" if isinstance(given, Volume) or not Path(given).exists() else kind_of(Path(given))


class _Reader:
    """Reads the channels of one study; what gives several is looked through once."""

    def __init__(self, recipe: Recipe, pick: Pick) -> None:
        self._recipe, self._pick = recipe, pick
        self._studies: dict[str, DicomStudy] = {}
        self._colours: dict[str, Image] = {}

    def read(self, given: Place | Volume, channel: Channel, *, alone: bool) -> Opened:
        """One channel; `alone` where `given` gives no other."""
        if isinstance(given, Volume):
            return Opened(given, None, ())
        image = self._dicom(given, channel) if _kind(given) == "DICOM" else self._other(given)
        names = [one.name for one in self._recipe.input.channels]
        wanted = 0 if alone else names.index(channel.name)
        volume, notes = fit_channels(image.volume, wanted, [channel.name] if alone else names)
        colours = image.volume if image.volume.colour else None
        return Opened(volume, image.source, (*image.warnings, *notes), colours)

    def _other(self, given: Place) -> Image:
        if self._pick != ANY:
            raise UsageError(
                f"{Path(given).name!r} is not DICOM; series, volume, repair, displayed and straighten are for DICOM"
            )
        key = str(given)
        if key not in self._colours:
            image = read_image(given)
            if not isinstance(image.source, PictureSource):
                return image
            self._colours[key] = image
        return self._colours[key]

    def _dicom(self, given: Place, channel: Channel) -> Image:
        key = str(given)
        if key not in self._studies:
            self._studies[key] = open_dicom(given)
        study, pick = self._studies[key], self._pick
        series = study.choose(pick.series, patterns=channel.series, modality=self._recipe.modality)
        if (key := f"{key}\0{series.index}") in self._colours:
            return self._colours[key]
        said = [f"took {series.title} of {len(study.series)}"] if len(study.series) > 1 else []
        shown = pick.displayed or self._recipe.input.values == "displayed"
        warnings = [*study.warnings_of(series), *said]
        options = {"displayed": shown, "straighten": pick.straighten, "repair": pick.repair}
        image = read_series(series, volume=pick.volume, **options, warnings=warnings)
        if len(image.volume.array) > 1:
            self._colours[key] = image
        return image


def fit_channels(volume: Volume, wanted: int, names: Sequence[str]) -> tuple[Volume, list[str]]:
    """One of the channels that a model sees, of an image that may be grey or in colour.

    Parameters
    ----------
    volume
        (C, Z, Y, X).
    wanted
        Which of `names`.
    names
        Of the model's channels that this image gives.

    Raises
    ------
    InputError : the image has other channels than the model sees.
    """
    count, array = len(volume.array), volume.array
    if count == len(names):
        return (volume if count == 1 else volume.with_array(array[wanted : wanted + 1])), []
    if count == 1 and [name.lower()[:1] for name in names] == ["r", "g", "b"]:
        return volume, ["a grey picture is seen as red, green and blue"]
    if count == 3 and len(names) == 1:
        grey = np.tensordot(np.array(LUMINANCE, np.float32), array.astype(np.float32), axes=1)
        return volume.with_array(grey[None]), ["colours are seen as grey (their luminance)"]
    if len(names) > 1 and count == 1:  # a DICOM series, or a file, for each
        return volume, []
    raise InputError(f"the image has {count} channels and the model sees {len(names)}: {', '.join(names)}")


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
    if volume.array.dtype.kind != "f":
        return volume
    finite = np.isfinite(volume.array)
    if finite.all():
        return volume
    some = finite.any(axis=tuple(range(1, finite.ndim)))
    if not some.all():
        which = "the image" if some.size == 1 else f"channel {np.argmin(some) + 1} of {some.size}"
        raise InputError(f"{which} has no voxel that is a finite number: it is empty or damaged")
    warnings.append("voxels that are NaN or infinite were taken as 0")
    return volume.with_array(np.nan_to_num(volume.array, nan=0.0, posinf=0.0, neginf=0.0))
