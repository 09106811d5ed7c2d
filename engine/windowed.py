"""A case through an nnU-Net model: crop, scale, resample, windows, and back to labels on the study's grid.

    crop to what is not zero → scale intensities → resample (cubic) → windows, mirrored → planes of logits
    → resample (linear) and decide, plane by plane → put back into the crop → keep the largest components

The order, the rules and their corner cases are nnU-Net v2's (``DefaultPreprocessor``, ``nnUNetPredictor``); sums of
logits are kept in float32, where nnU-Net keeps them in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.native import CancelFlag
from voxelrt.errors import InputError, UnsupportedError
from voxelrt.io.orientation import Reorientation, reorient
from voxelrt.kernels import resample_argmax
from voxelrt.kernels.resample_argmax.taps import Taps, taps
from voxelrt.models.formats.nnunet_network import INPUT, OUTPUT
from voxelrt.models.nnunet_settings import NnunetSettings, Normalisation, Resampling
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.components import fill_holes, largest_touching
from voxelrt.preprocess.interpolation import Interpolation, Matrix, interpolation_matrix
from voxelrt.tiling.stitcher import Plane, Stitcher
from voxelrt.tiling.windows import importance, mirrorings, starts
from voxelrt.volume import Volume

Floats = NDArray[np.float32]
Labels = NDArray[np.unsignedinteger]
Tell = Callable[[str, int, int], None]
Triple = tuple[int, int, int]

ORDERS: dict[int, Interpolation] = {0: "nearest", 1: "linear", 3: "cubic"}
READERS = ("SimpleITKIO", "NibabelIO")
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
    """

    settings: NnunetSettings
    data: Floats
    volume: Volume
    turn: Reorientation | None
    size_zyx: Triple
    box: tuple[slice, slice, slice]
    spacing_mm: tuple[float, ...]

    @property
    def cropped_zyx(self) -> Triple:
        """The size of the box."""
        z, y, x = (part.stop - part.start for part in self.box)
        return (z, y, x)

    @property
    def network_spacing_mm(self) -> tuple[float, ...]:
        """The spacing of ``data``; a 2-D configuration keeps the distance of slices."""
        return _full_spacing(self.settings, self.spacing_mm)


def prepare_case(volume: Volume, settings: NnunetSettings) -> Case:
    """Bring a study to the network's grid.

    Parameters
    ----------
    volume : (C, Z, Y, X), one channel for each of the model's.
    settings : of the model.

    Raises
    ------
    InputError : intensities that the model's scaling does not take.
    UnsupportedError : the model's reader or resampling is not one of those that this version knows.
    """
    turn = None
    if settings.reader in TURNING_READERS:
        volume_turned, turn = reorient(volume, "RAS")
    elif settings.reader in READERS:
        volume_turned = volume
    else:
        raise UnsupportedError(f"the model's images are read by {settings.reader}; volumes of {READERS} are run")
    order = settings.transpose_forward
    array = volume_turned.array.transpose(0, *(1 + axis for axis in order)).astype(np.float32)
    spacing = tuple(volume_turned.spacing_mm[axis] for axis in order)
    size = (array.shape[1], array.shape[2], array.shape[3])
    mask = (array != 0).any(axis=0)
    box = _box(mask)
    array, mask = array[(slice(None), *box)], mask[box]
    if any(channel.normalisation.only_inside_mask for channel in settings.channels):
        mask = fill_holes(mask)
    target = _full_spacing(settings, spacing)
    shape = [round(a / b * n) for a, b, n in zip(spacing, target, array.shape[1:], strict=True)]
    if min(shape) < 1:
        raise InputError(f"the study has {array.shape[1:]} voxels of {spacing} mm: less than one of the network's")
    ways = _matrices(settings.resample_data, array.shape[1:], tuple(shape), spacing, target)
    data = np.empty((len(array), *shape), np.float32)
    for index, channel in enumerate(settings.channels):
        scaled = _scaled(array[index], mask, channel.normalisation, channel.name)
        data[index] = _resampled(scaled, ways)
    return Case(settings, data, volume, turn, size, box, spacing)


def _full_spacing(settings: NnunetSettings, spacing: tuple[float, ...]) -> tuple[float, ...]:
    return settings.spacing_mm if settings.dimensions == 3 else (spacing[0], *settings.spacing_mm)


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The bounds of what is set; the whole where nothing is."""
    sides = []
    for axis in range(3):
        found = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        sides.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, mask.shape[axis]))
    return (sides[0], sides[1], sides[2])


def _scaled(image: Floats, mask: NDArray[np.bool_], how: Normalisation, name: str) -> Floats:
    """One channel by its scheme."""
    image = image.astype(np.float32)
    if how.scheme == "z-score" and how.only_inside_mask:
        inside = image[mask]
        if inside.size:
            image[mask] = (inside - inside.mean()) / max(float(inside.std()), 1e-8)
    elif how.scheme == "z-score":
        image -= image.mean()
        image /= max(float(image.std()), 1e-8)
    elif how.scheme == "ct":
        np.clip(image, how.lower, how.upper, out=image)
        image -= np.float32(how.mean)
        image /= np.float32(max(how.deviation, 1e-8))
    elif how.scheme == "rescale-0-1":
        image -= image.min()
        image /= max(float(image.max()), 1e-8)
    elif how.scheme == "rgb-to-0-1":
        if image.min() < 0 or image.max() > 255:
            raise InputError(f"{name}: an RGB channel has values from 0 to 255, not {image.min()} to {image.max()}")
        image /= 255
    return image


@dataclass(frozen=True, eq=False)
class _Ways:
    """One matrix an axis, None where it stays as it is; and the axis taken apart, for bounds plane by plane."""

    matrices: tuple[Matrix | None, Matrix | None, Matrix | None]
    apart: int | None
    clip: bool


def _matrices(
    how: Resampling, old: tuple[int, ...], new: tuple[int, ...], spacing: tuple[float, ...], target: tuple[float, ...]
) -> _Ways:
    if how.order not in ORDERS or how.order_z not in ORDERS:
        raise UnsupportedError(f"resampling of order {how.order} (z {how.order_z}); orders 0, 1 and 3 are run")
    if old == new:
        return _Ways((None, None, None), None, False)
    apart = _coarse_axis(how, spacing, target)
    made: list[Matrix | None] = []
    for axis, (n, m) in enumerate(zip(old, new, strict=True)):
        order = how.order_z if axis == apart else how.order
        positions = (np.arange(m, dtype=np.float64) + 0.5) * (n / m) - 0.5
        # Even where the size stays, what is evaluated at its own voxels stays: no matrix.
        made.append(None if n == m else interpolation_matrix(positions, n, ORDERS[order], zeros_outside=False))
    return _Ways((made[0], made[1], made[2]), apart, how.order > 1)


def _coarse_axis(how: Resampling, spacing: tuple[float, ...], target: tuple[float, ...]) -> int | None:
    """The axis along which slices are resampled apart from their planes, None where there is none."""
    chosen = None
    if how.separate_z is None:
        for one in (spacing, target):
            if max(one) / min(one) > how.anisotropy_threshold:
                chosen = one
                break
    elif how.separate_z:
        chosen = spacing
    if chosen is None:
        return None
    axes = [axis for axis, value in enumerate(chosen) if value == max(chosen)]
    return axes[0] if len(axes) == 1 else None


def _resampled(image: Floats, ways: _Ways) -> Floats:
    """(Z, Y, X) on the new grid; a spline never goes past the values of the image, or of its slice, that it is of."""
    lowest = highest = None
    if ways.clip:
        axes = tuple(a for a in range(3) if a != ways.apart) if ways.apart is not None else None
        lowest = image.min(axis=axes, keepdims=True)
        highest = image.max(axis=axes, keepdims=True)
    inner = [axis for axis in (2, 1, 0) if axis != ways.apart]
    for axis in inner:
        image = _along(image, ways.matrices[axis], axis)
    if lowest is not None and highest is not None:
        image = np.clip(image, lowest, highest)
    if ways.apart is not None:
        image = _along(image, ways.matrices[ways.apart], ways.apart)
    return image


def _along(image: Floats, matrix: Matrix | None, axis: int) -> Floats:
    if matrix is None:
        return image
    turned = np.moveaxis(np.tensordot(matrix.astype(np.float32), image, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(turned, np.float32)


# ---- the network ----


def run_case(
    plan: Plan,
    case: Case,
    tell: Tell,
    cancel: CancelFlag | None = None,
    *,
    mirroring: bool = True,
    step: float | None = None,
) -> Labels:
    """The labels of a case on its cropped grid, axes in the network's order.

    Parameters
    ----------
    plan : of the model, for one window.
    case : see prepare_case.
    tell : called with ("run", window, windows).
    cancel : stops the run between two steps.
    mirroring : average over mirrored windows along the axes that the model allows.
    step : of the windows, as a share of their size; default the model's.

    Returns
    -------
    labels : (Z, Y, X) uint8 or uint16.
    """
    settings = case.settings
    depth = case.data.shape[1]
    window: Triple = (1, *settings.patch_size) if settings.dimensions == 2 else settings.patch_size  # type: ignore[assignment]
    padded, inside = _padded(case.data, window)
    axes = settings.mirror_axes if mirroring else ()
    share = settings.step if step is None else step

    def planes() -> Iterator[Plane]:
        for sums, counts in _planes(plan, settings, padded, window, axes, share, tell, cancel):
            yield sums[:, inside[1], inside[2]], counts[inside[1], inside[2]]

    source = planes()
    for _ in range(inside[0].start):
        next(source)
    return _decided(source, depth, case)


def _padded(data: Floats, window: Triple) -> tuple[Floats, tuple[slice, slice, slice]]:
    """Data at least as large as a window, zeros around, and where the data lie in it."""
    pads = []
    for size, wanted in zip(data.shape[1:], window, strict=True):
        missing = max(0, wanted - size)
        pads.append((missing // 2, missing - missing // 2))
    inside = tuple(slice(low, low + size) for (low, _), size in zip(pads, data.shape[1:], strict=True))
    padded = np.pad(data, [(0, 0), *pads]) if any(pad != (0, 0) for pad in pads) else data
    return padded, (inside[0], inside[1], inside[2])


def _planes(
    plan: Plan,
    settings: NnunetSettings,
    data: Floats,
    window: Triple,
    axes: tuple[int, ...],
    step: float,
    tell: Tell,
    cancel: CancelFlag | None,
) -> Iterator[Plane]:
    """Planes of logits, in order, over all windows."""
    flat = settings.dimensions == 2
    places = [starts(size, wanted, step) for size, wanted in zip(data.shape[1:], window, strict=True)]
    if flat:
        places[0] = list(range(data.shape[1]))
    weights = importance(settings.patch_size, settings.gaussian_sigma).reshape(window)
    stitcher = Stitcher(settings.outputs, (data.shape[1], data.shape[2], data.shape[3]), weights)
    total, done = len(places[0]) * len(places[1]) * len(places[2]), 0
    sets = list(mirrorings(axes))
    for z in places[0]:
        yield from stitcher.before(z)
        for y in places[1]:
            for x in places[2]:
                part = data[:, z : z + window[0], y : y + window[1], x : x + window[2]]
                for axes_of_it in sets:
                    logits = _mirrored(plan, part[:, 0] if flat else part, axes_of_it, cancel)
                    stitcher.add(logits[:, None] if flat else logits, (z, y, x), 1 / len(sets))
                done += 1
                tell("run", done, total)
    yield from stitcher.rest()


def _mirrored(plan: Plan, part: Floats, axes: tuple[int, ...], cancel: CancelFlag | None) -> Floats:
    """The logits (C, *window) of a window that is mirrored for the network and back; a view."""
    flipped = tuple(axis + 1 for axis in axes)
    image = np.ascontiguousarray(np.flip(part, flipped))[None]
    logits: Floats = np.flip(plan.run({INPUT: image}, cancel=cancel)[OUTPUT][0], flipped)
    return logits


# ---- labels ----


def _decided(planes: Iterator[Plane], depth: int, case: Case) -> Labels:
    """Planes of logits as labels on the cropped grid; each is brought there and decided at once."""
    settings, size = case.settings, case.cropped_zyx
    old = (depth, case.data.shape[2], case.data.shape[3])
    along, rows, columns = _taps(settings.resample_logits, old, size, case.network_spacing_mm, case.spacing_mm)
    values = np.array(settings.region_order or range(settings.outputs), np.int32)
    labels = np.zeros(size, np.uint8 if values.max() < 256 else np.uint16)
    held: dict[int, Plane] = {}
    read = 0
    for z in range(size[0]):
        low, high, weight = int(along.at[0, z]), int(along.at[1, z]), float(along.weights[z])
        if weight == 0:
            high = low
        while read <= high:
            held = {read - 1: held[read - 1]} if read - 1 in held else {}
            held[read] = next(planes)
            read += 1
        resample_argmax(held[low], held[high], weight, rows, columns, values, regions=settings.regions, out=labels[z])
    return labels


def _taps(
    how: Resampling, old: Triple, new: Triple, spacing: tuple[float, ...], target: tuple[float, ...]
) -> list[Taps]:
    """How logits are read along each axis."""
    if how.order > 1 or how.order_z > 1:
        raise UnsupportedError(f"resampling logits by splines of order {how.order} (z {how.order_z}) is not run")
    apart = _coarse_axis(how, spacing, target)
    made = []
    for axis, (n, m) in enumerate(zip(old, new, strict=True)):
        order = how.order_z if axis == apart else how.order
        made.append(taps((np.arange(m) + 0.5) * (n / m) - 0.5, n, linear=order == 1))
    return made


def labels_of(case: Case, cropped: Labels) -> Volume:
    """Labels on the study's own grid, with the model's names; postprocessing done."""
    settings = case.settings
    whole = np.zeros(case.size_zyx, cropped.dtype)
    whole[case.box] = cropped
    for rule in settings.postprocessing:
        union = np.isin(whole, rule.values)
        whole[union & ~largest_touching(union)] = rule.background
    array: NDArray[Any] = whole.transpose(settings.transpose_backward)[None]
    if case.turn is not None:
        array = case.turn.undo_array(array)
    values = settings.region_order or tuple(range(1, len(settings.labels) + 1))
    names = {0: "background"} | {v: label.name for v, label in zip(values, settings.labels, strict=True)}
    return case.volume.with_array(np.ascontiguousarray(array), names)
