"""A study on the grid of an nnU-Net model's network: cropped to what is not zero, scaled, resampled.

The rules and their corner cases are nnU-Net v2's (``DefaultPreprocessor``). A channel goes through plane by plane, so
that beside the study there is one resampled copy of it and none in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError, UnsupportedError
from voxelrt.io.orientation import Reorientation, reorient
from voxelrt.models.nnunet_settings import NnunetSettings
from voxelrt.postprocess.components import fill_holes
from voxelrt.preprocess.label_resampling import resample_labels
from voxelrt.preprocess.resampling import Ways, coarse_axis, resample, resampling_ways
from voxelrt.preprocess.scaling import scaling
from voxelrt.runtime.process import memory_bytes
from voxelrt.runtime.scratch import Scratch
from voxelrt.volume import Volume

Floats = NDArray[np.float32]
Triple = tuple[int, int, int]

READERS = ("SimpleITKIO", "NibabelIO", "Tiff3DIO", "NaturalImage2DIO")
PICTURE_SPACING = (999.0, 1.0, 1.0)  # of pictures, whatever their files say
ALONG_BYTES = 16 * 2**20  # of planes that are mixed along the first axis at once, at most
ALONG_SHARE = 8  # of what a budget leaves these planes are one part, and their product another
TURNING_READERS = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")  # turn images to RAS+ first


@dataclass(frozen=True, eq=False)
class Case:
    """A study on the network's grid, and how it came there.

    Parameters
    ----------
    settings : of the model.
    data : (C, Z, Y, X) float32, scaled and resampled; axes in the network's order.
    volume : the study as it was read.
    turn : how a turning reader turned it, else None.
    size_zyx : of the whole volume in the network's order of axes.
    box : the part of it that is not zero.
    spacing_mm : its spacing there.
    scratch : where data and volume lie, if a budget has no room for them.
    """

    settings: NnunetSettings
    data: Floats
    volume: Volume
    turn: Reorientation | None
    size_zyx: Triple
    box: tuple[slice, slice, slice]
    spacing_mm: tuple[float, ...]
    scratch: Scratch | None = None

    def let_go(self) -> None:
        """Give memory back that the data take from looking at them, where they lie in a scratch file."""
        if self.scratch is not None:
            self.scratch.let_go()

    @property
    def cropped_zyx(self) -> Triple:
        """The size of the box."""
        z, y, x = (part.stop - part.start for part in self.box)
        return (z, y, x)

    @property
    def cropped_voxels(self) -> int:
        """How many voxels the box has."""
        return math.prod(self.cropped_zyx)

    @property
    def network_spacing_mm(self) -> tuple[float, ...]:
        """The spacing of ``data``; a 2-D configuration keeps the distance of slices."""
        return full_spacing(self.settings, self.spacing_mm)


def prepare_case(
    volume: Volume, settings: NnunetSettings, previous: Volume | None = None, *, memory: int | None = None
) -> Case:
    """Bring a study to the network's grid.

    Parameters
    ----------
    volume : (C, Z, Y, X), one channel for each of the model's.
    settings : of the model.
    previous : the labels of a cascade's previous stage, on the study's grid; they become further channels.
    memory : a budget in bytes; where volume and data would take more than half of what it leaves, they go to a scratch
        file.

    Raises
    ------
    InputError : intensities that the model's scaling does not take.
    UnsupportedError : the model's reader or resampling is not one of those that this version knows.
    OutputError : there is no room for the scratch file.
    """
    turn = None
    if settings.reader in TURNING_READERS:
        volume_turned, turn = reorient(volume, "RAS")
    elif settings.reader in READERS:
        volume_turned = volume
    else:
        raise UnsupportedError(f"the model's images are read by {settings.reader}; volumes of {READERS} are run")
    order = settings.transpose_forward
    array = volume_turned.array.transpose(0, *(1 + axis for axis in order))
    read = PICTURE_SPACING if settings.reader == "NaturalImage2DIO" else volume_turned.spacing_mm
    spacing = tuple(read[axis] for axis in order)
    size = (array.shape[1], array.shape[2], array.shape[3])
    box = _box(array)
    array = array[(slice(None), *box)]
    before = None
    if previous is not None:
        turned = previous.array if turn is None else turn.apply_array(previous.array)
        before = turned[0].transpose(order)[box]
    target = full_spacing(settings, spacing)
    shape = [round(a / b * n) for a, b, n in zip(spacing, target, array.shape[1:], strict=True)]
    if min(shape) < 1:
        raise InputError(f"the study has {array.shape[1:]} voxels of {spacing} mm: less than one of the network's")
    ways = resampling_ways(settings.resample_data, array.shape[1:], tuple(shape), spacing, target)
    mask = None
    if before is not None or any(channel.normalisation.only_inside_mask for channel in settings.channels):
        mask = fill_holes((array != 0).any(axis=0))
        if before is not None:
            # The outside is a label of its own, -1, and what is not the outside is inside: nnU-Net's rule.
            before = np.where(mask | (before != 0), before.astype(np.int32), -1)
            mask = before >= 0
    size_on = (len(array) + len(settings.cascade_labels), *shape)
    scratch = _scratch_for(volume, size_on, ways, memory)
    data = np.empty(size_on, np.float32) if scratch is None else scratch.empty(size_on, np.float32)
    at_once = ALONG_BYTES if memory is None else min(ALONG_BYTES, _left_of(memory) // ALONG_SHARE)
    for index, channel in enumerate(settings.channels):
        scaled = scaling(array[index], mask, channel.normalisation, channel.name)
        resample(scaled, array.shape[1:], ways, data[index], scratch, at_once)
    if before is not None:
        how = settings.resample_previous
        labels = resample_labels(before, tuple(shape), how, coarse_axis(how, spacing, target))
        for index, value in enumerate(settings.cascade_labels, start=len(array)):
            data[index] = labels == value
    volume = volume if scratch is None else volume.with_array(_moved(volume.array, scratch), dict(volume.labels))
    return Case(settings, data, volume, turn, size, box, spacing, scratch)


def _scratch_for(volume: Volume, size_on: tuple[int, ...], ways: Ways, memory: int | None) -> Scratch | None:
    """A scratch file, where data of this size are too much for a budget."""
    if memory is None:
        return None
    needed = volume.array.nbytes + 4 * math.prod(size_on)
    if ways.matrices[0] is not None:
        needed += 4 * volume.shape_zyx[0] * math.prod(size_on[2:])
    return None if needed <= _left_of(memory) // 2 else Scratch()


def _left_of(memory: int) -> int:
    """What a budget leaves; where that is nothing, the run is refused when all that it needs is known."""
    return max(0, memory - memory_bytes())


def _moved(array: NDArray[Any], scratch: Scratch) -> NDArray[Any]:
    """A copy of (C, Z, Y, X) in the scratch file."""
    made = scratch.empty(array.shape, array.dtype)
    for into, channel in zip(made, array, strict=True):
        for z, plane in enumerate(channel):
            into[z] = plane
            scratch.let_go()
    return made


def full_spacing(settings: NnunetSettings, spacing: tuple[float, ...]) -> tuple[float, ...]:
    return settings.spacing_mm if settings.dimensions == 3 else (spacing[0], *settings.spacing_mm)


def _box(array: NDArray[Any]) -> tuple[slice, slice, slice]:
    """The bounds of what is not zero in any channel (C, Z, Y, X); the whole where nothing is."""
    depth, height, width = array.shape[1:]
    found = (np.zeros(depth, bool), np.zeros(height, bool), np.zeros(width, bool))
    for z in range(depth):
        plane = (array[:, z] != 0).any(axis=0)
        rows = plane.any(axis=1)
        found[0][z] = rows.any()
        found[1][:] |= rows
        found[2][:] |= plane.any(axis=0)
    sides = []
    for along, size in zip(found, (depth, height, width), strict=True):
        places = np.flatnonzero(along)
        sides.append(slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, size))
    return (sides[0], sides[1], sides[2])
