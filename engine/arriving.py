"""A case of nnU-Net whose slices come one after the other, as from a scanner: brought to the network's grid at once.

What a slice needs of the others decides what can be run like this. Cropping to what is not zero is known only at the
end, so nothing is cropped; a z-score needs the mean and deviation of the whole image, so they must be given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.case import PICTURE_SPACING, READERS, Case, full_spacing
from voxelrt.errors import InputError, UnsupportedError, UsageError
from voxelrt.kernels.resample_argmax.taps import Taps
from voxelrt.models.nnunet_settings import NnunetSettings, Normalisation
from voxelrt.preprocess.resampling import resampling_ways
from voxelrt.preprocess.scaling import scaling
from voxelrt.runtime.window_job import Job, Window
from voxelrt.volume import Volume

Floats = NDArray[np.float32]
Triple = tuple[int, int, int]
Statistics = Sequence[tuple[float, float]]


class ArrivingCase:
    """A case that grows.

    Parameters
    ----------
    settings : of the model.
    grid : where the whole volume will lie; its values are not looked at.
    descending : the last slice of the grid comes first.
    statistics : mean and deviation of each channel, for those that are scaled by a z-score.

    Raises
    ------
    UnsupportedError : the model's preprocessing needs the whole volume.
    UsageError : `statistics` that do not fit. InputError : a volume of less than a voxel of the network's.
    """

    def __init__(
        self,
        settings: NnunetSettings,
        grid: Volume,
        *,
        descending: bool = False,
        statistics: Statistics | None = None,
    ) -> None:
        _refuse(settings)
        self._channels = _scalings(settings, statistics)
        self._inner = tuple(axis - 1 for axis in settings.transpose_forward[1:])
        order = settings.transpose_forward
        size = tuple(grid.shape_zyx[axis] for axis in order)
        read = PICTURE_SPACING if settings.reader == "NaturalImage2DIO" else grid.spacing_mm
        spacing = tuple(read[axis] for axis in order)
        target = full_spacing(settings, spacing)
        shape = [round(a / b * n) for a, b, n in zip(spacing, target, size, strict=True)]
        if min(shape) < 1:
            raise InputError(f"the scan has {size} voxels of {spacing} mm: less than one of the network's")
        self._ways = resampling_ways(settings.resample_data, size, (shape[0], shape[1], shape[2]), spacing, target)
        if self._ways.apart in (1, 2):
            raise UnsupportedError("the model takes slices that lie across those that arrive; run the whole volume")
        self.descending = descending
        pads = [max(0, wanted - found) for wanted, found in zip(settings.patch_size, shape, strict=True)]
        self.padded = np.zeros((len(settings.channels), *(n + pad for n, pad in zip(shape, pads, strict=True))), "f4")
        inside = tuple(slice(pad // 2, pad // 2 + n) for n, pad in zip(shape, pads, strict=True))
        self.inside = (inside[0], inside[1], inside[2])
        data = self.padded[(slice(None), *self.inside)]
        box = (slice(0, size[0]), slice(0, size[1]), slice(0, size[2]))
        self.case = Case(settings, data, grid, None, (size[0], size[1], size[2]), box, spacing)
        self._middle = None if self._ways.matrices[0] is None else np.empty((len(data), size[0], *data.shape[2:]), "f4")
        self._range = [(math.inf, -math.inf)] * len(data)
        self._clipped: list[_Clipped] = []
        self._done = 0
        self._filled = [np.zeros(n, bool) for n in size]
        self.came = 0

    @property
    def slices(self) -> int:
        """How many there will be."""
        return self.case.size_zyx[0]

    @property
    def planes(self) -> int:
        """How many planes of the windows' grid are there, from the end at which slices come."""
        first, size = self.inside[0], self.padded.shape[1]
        if self._done == self.case.data.shape[1]:
            return size
        return (size - first.stop if self.descending else first.start) + self._done

    @property
    def cropped(self) -> bool:
        """Whether the whole-volume run would have cropped some of it."""
        return not all(bool(axis[0] and axis[-1]) for axis in self._filled) and any(a.any() for a in self._filled)

    @property
    def narrowed(self) -> int:
        """How many voxels of the data were clipped to a range that later slices made wider."""
        found = 0
        for one in self._clipped:
            low, high = self._range[one.channel]
            found += one.below * (low < one.low) + one.above * (high > one.high)
        return found

    def add(self, arrived: NDArray[Any]) -> None:
        """Take the next slice, (C, Y, X) or (Y, X) on the grid's rows and columns. Raises InputError."""
        plane = arrived[None] if arrived.ndim == 2 else arrived
        wanted = (len(self._channels), *self.case.volume.shape_zyx[1:])
        if plane.shape != wanted:
            raise InputError(f"slice {self.came + 1} has the shape {plane.shape}; {wanted} was announced")
        if self.came == self.slices:
            raise InputError(f"more slices came than the {self.slices} that were announced")
        z = self.slices - 1 - self.came if self.descending else self.came
        turned = plane.transpose(0, *(1 + axis for axis in self._inner))
        there = (turned != 0).any(axis=0)
        self._filled[0][z] = there.any()
        self._filled[1] |= there.any(axis=1)
        self._filled[2] |= there.any(axis=0)
        for c, how in enumerate(self._channels):
            image = how.scale(turned[c])
            low, high = float(image.min()), float(image.max())
            self._range[c] = (min(low, self._range[c][0]), max(high, self._range[c][1]))
            made = self._ways.in_plane(image)
            if self._ways.clip and self._ways.apart == 0:
                made = np.clip(made, low, high)
            if self._middle is not None:
                self._middle[c, z] = made
            elif self._ways.clip and self._ways.apart is None:
                self._clip(c, made, self.case.data[c, z])
            else:
                self.case.data[c, z] = made
        self.came += 1
        self._advance()

    def _advance(self) -> None:
        """Make the planes whose slices are all there."""
        along, count = self._ways.matrices[0], self.case.data.shape[1]
        if along is None or self._middle is None:
            self._done = self.came
            return
        while self._done < count:
            m = count - 1 - self._done if self.descending else self._done
            reach = np.flatnonzero(along[m])
            first, last = int(reach[0]), int(reach[-1])
            if (self.slices - first if self.descending else last + 1) > self.came:
                return
            part = slice(first, last + 1)
            for c, image in enumerate(self._middle):
                out = self.case.data[c, m]
                out[...] = np.tensordot(along[m, part], image[part], 1)
                if self._ways.clip and self._ways.apart is None:
                    self._clip(c, out, out)
            self._done += 1

    def _clip(self, channel: int, plane: Floats, out: Floats) -> None:
        """A spline never goes past the values of its image: of as much of it as there is."""
        low, high = self._range[channel]
        below, above = int((plane < low).sum()), int((plane > high).sum())
        if below or above:
            self._clipped.append(_Clipped(channel, low, high, below, above))
        np.clip(plane, low, high, out=out)


@dataclass(frozen=True)
class _Clipped:
    """Voxels of a plane that a spline put past the range of the slices there were."""

    channel: int
    low: float
    high: float
    below: int
    above: int


@dataclass(frozen=True)
class _Scaling:
    how: Normalisation
    name: str
    moments: tuple[float, float] | None

    def scale(self, plane: NDArray[Any]) -> Floats:
        if self.moments is not None:
            mean, deviation = self.moments
            scaled: Floats = (plane.astype(np.float32) - np.float32(mean)) / np.float32(max(deviation, 1e-8))
            return scaled
        return scaling(plane[None], None, self.how, self.name)(0)


def _refuse(settings: NnunetSettings) -> None:
    """What needs the whole volume."""
    if settings.reader not in READERS:
        raise UnsupportedError(f"{settings.reader} turns the whole volume before it is run; run the whole volume")
    if settings.dimensions != 3 or settings.transpose_forward[0] != 0:
        raise UnsupportedError("slices are run as they come by 3-D models whose first axis is that of the slices")
    if settings.previous_stage:
        raise UnsupportedError("a cascade needs the whole volume's labels of its first stage; run the whole volume")
    for channel in settings.channels:
        if channel.normalisation.only_inside_mask:
            raise UnsupportedError(f"{channel.name} is scaled inside a mask of the whole volume; run the whole volume")
        if channel.normalisation.scheme == "rescale-0-1":
            raise UnsupportedError(f"{channel.name} is scaled by the whole volume's range; run the whole volume")


def _scalings(settings: NnunetSettings, statistics: Statistics | None) -> list[_Scaling]:
    scored = [channel.normalisation.scheme == "z-score" for channel in settings.channels]
    if statistics is not None and len(statistics) != len(scored):
        raise UsageError(f"statistics are given for {len(statistics)} channels; the model has {len(scored)}")
    if any(scored) and statistics is None:
        names = ", ".join(c.name for c, z in zip(settings.channels, scored, strict=True) if z)
        raise UnsupportedError(
            f"{names}: a z-score needs the mean and deviation of the whole volume; give statistics=[(mean, deviation)] "
            "of an earlier scan of this protocol, or run the whole volume"
        )
    given = list(statistics or [(0.0, 1.0)] * len(scored))
    return [
        _Scaling(channel.normalisation, channel.name, moments if z else None)
        for channel, moments, z in zip(settings.channels, given, scored, strict=True)
    ]


def from_the_end(job: Job) -> Job:
    """The same windows for a study whose last plane comes first: the scheduler counts planes from that end.

    The network sees each window as it lies; only the order of the sums is another.
    """
    depth, size, how = job.weights.shape[0], job.data.shape[1], job.decision
    turned = [_turned(window, size - depth) for window in job.windows]
    low, high = how.along.at[:, ::-1]
    weights = how.along.weights[::-1]
    span = how.inside[0].stop - how.inside[0].start
    single = weights == 0
    at = np.stack([span - 1 - np.where(single, low, high), span - 1 - np.where(single, high, low)]).astype(np.int32)
    along = Taps(at, np.where(single, 0, 1 - weights).astype(np.float32))
    inside = (slice(size - how.inside[0].stop, size - how.inside[0].start), *how.inside[1:])
    decision = replace(how, along=along, inside=inside)
    return replace(
        job,
        data=job.data[:, ::-1],
        windows=sorted(turned, key=lambda window: window.start[0]),
        weights=np.ascontiguousarray(job.weights[::-1]),
        decision=decision,
        labels=job.labels[::-1],
        sums=None,
    )


def _turned(window: Window, last: int) -> Window:
    z, y, x = window.start
    mirrored = tuple(sorted({0} ^ set(window.mirrored)))
    return replace(window, start=(last - z, y, x), mirrored=mirrored)
