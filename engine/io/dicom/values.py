"""From stored values to those of the modality: rescale or look-up table of each slice, padding, uptake of PET.

PS3.3 C.11.1 (Modality LUT), C.7.5.1.1.2 (padding), C.8.9.1 (PET).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt import environment
from voxelrt.errors import InputError
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.header import Header
from voxelrt.io.dicom.suv import suv_factor

Array = NDArray[Any]
INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, eq=False)
class Scaling:
    """How one plane's stored values become modality units."""

    slope: float
    intercept: float
    table: tuple[int, NDArray[np.float64]] | None = None  # first stored value, entries
    padding: tuple[int, int] | None = None  # the range of stored values that are no image

    @property
    def whole(self) -> bool:
        """Whether whole numbers stay whole."""
        return self.table is None and self.slope == 1 and self.intercept == int(self.intercept)


@dataclass
class Plane:
    """What one plane was found to hold: the range of its values without the padding."""

    low: float
    high: float
    padded: int


@dataclass
class Notes:
    """What there is to say of a volume's values."""

    sentences: list[str] = field(default_factory=list)
    unit: str = ""


def to_modality(
    stored: Array, frames: Sequence[Frame], *, suv: bool = True, displayed: bool = False
) -> tuple[Array, Notes]:
    """Stored values in modality units.

    Parameters
    ----------
    stored
        (Z, Y, X); used up: its memory may become the result's.
    frames
        One for each plane.
    suv
        PET in Bq/mL becomes the standardised uptake by body weight where the files say all that it takes.
    displayed
        The values are shown next, so that nothing is said of MONOCHROME1.

    Returns
    -------
    values : int16 where every plane's are whole and fit, else float32 (float64 where more than 24 bits are stored).
    notes : what was done, and the unit.

    Raises
    ------
    InputError : slopes or tables that give no values.
    """
    notes = Notes(unit=frames[0].header.code("RescaleType") or _usual_unit(frames[0].header))
    factor = _uptake(frames, notes) if suv else 1.0
    scalings = [_scaling(frame, factor, stored.dtype) for frame in frames]
    if not displayed:
        _say_inverted(frames, notes)
    with ThreadPoolExecutor(environment.threads(), thread_name_prefix="voxelrt-dicom") as pool:
        planes = list(pool.map(_look, stored, scalings))
        low = min((plane.low for plane in planes), default=0.0)
        high = max((plane.high for plane in planes), default=0.0)
        padded = sum(plane.padded for plane in planes)
        if padded:
            low = 0.0 if not np.isfinite(low) else low
            notes.sentences.append(
                f"{padded} padded voxels (PixelPaddingValue) were given the lowest value of the image, {low:g}"
            )
        narrow = stored.dtype.kind in "iu" and all(scaling.whole for scaling in scalings)
        narrow = narrow and INT16.min <= low and (high <= INT16.max or not np.isfinite(high))
        if narrow and stored.dtype.itemsize == 2:
            list(pool.map(lambda plane, scaling: _shift(plane, scaling, int(low)), stored, scalings))
            return stored.view(np.int16), notes
        bits = max(frame.header.integer("BitsStored") for frame in frames)
        double = bits > 24 if stored.dtype.kind in "iu" else stored.dtype == np.float64
        made: Array = np.empty(stored.shape, np.int16 if narrow else np.float64 if double else np.float32)
        list(pool.map(lambda out, plane, scaling: _scale(out, plane, scaling, low), made, stored, scalings))
    return made, notes


def _usual_unit(header: Header) -> str:
    return "HU" if header.code("Modality") == "CT" else header.code("Units")


def _uptake(frames: Sequence[Frame], notes: Notes) -> float:
    if frames[0].header.code("Modality") != "PT" or frames[0].header.code("Units") != "BQML":
        return 1.0
    factor, reason = suv_factor([frame.header for frame in frames])
    if factor is None:
        notes.sentences.append(f"PET is left in Bq/mL: {reason}")
        return 1.0
    notes.unit = "SUVbw"
    notes.sentences.append("PET values are standardised uptake values by body weight (SUVbw, g/mL)")
    return factor


def _say_inverted(frames: Sequence[Frame], notes: Notes) -> None:
    inverted = sum(f.header.text("PhotometricInterpretation").upper() == "MONOCHROME1" for f in frames)
    if inverted:
        notes.sentences.append(
            f"{inverted} of {len(frames)} slices are MONOCHROME1 (low values are bright); kept as stored"
        )


def _scaling(frame: Frame, factor: float, dtype: np.dtype[Any]) -> Scaling:
    slope, intercept = frame.slope, frame.intercept
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0 or max(abs(slope), abs(intercept)) > 1e30:
        raise InputError(f"{frame.name}: rescale slope {slope:g} and intercept {intercept:g} give no values")
    table = modality_table(frame.header)
    return Scaling(slope * factor, intercept * factor, table, padding_of(frame.header, dtype))


def modality_table(header: Header) -> tuple[int, NDArray[np.float64]] | None:
    """The Modality LUT: (first stored value, entries), None without one. Raises InputError for a damaged one."""
    sequence = header.nested.get("ModalityLUTSequence")
    return read_table(sequence[0], header) if sequence else None


def read_table(item: Any, header: Header) -> tuple[int, NDArray[np.float64]]:
    """A look-up table (PS3.3 C.11.1.1.1): entries, first stored value, bits. Raises InputError for a damaged one."""
    try:
        count, first, bits = (int(part) for part in item.LUTDescriptor)
        data = item.LUTData
        entries = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.array(data, dtype=np.int64)
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise InputError(f"{header.number} is damaged: its look-up table cannot be read") from None
    count = (count & 0xFFFF) or 2**16
    if entries.ndim == 1 and bits == 8 and len(entries) * 2 in (count, count + 1):
        entries = entries.astype("<u2").view(np.uint8)[:count]
    if header.integer("PixelRepresentation") == 1 and first > 0x7FFF:
        first -= 0x10000
    if entries.ndim != 1 or len(entries) < count or not 8 <= bits <= 16:
        raise InputError(f"{header.number} is damaged: its look-up table has not the entries that it declares")
    return first, (entries[:count].astype(np.int64) & 0xFFFF).astype(np.float64)


def padding_of(header: Header, dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """The stored values of CT that mean "no image": (lowest, highest); None where the file names none.

    Other modalities pad with what their background is, mostly zero, and crops look for it: there it stays.
    """
    if header.code("Modality") != "CT" or "PixelPaddingValue" not in header.numbers or dtype.kind not in "iu":
        return None
    one = header.integer("PixelPaddingValue")
    other = header.integer("PixelPaddingRangeLimit", one)
    values = sorted(_as_stored(value, header) for value in (one, other))
    return values[0], values[1]


def _as_stored(value: int, header: Header) -> int:
    """Of 16 bits, with the sign that the pixels have: files write the padding value now signed, now not."""
    value &= 0xFFFF
    return value - 0x10000 if header.integer("PixelRepresentation") == 1 and value > 0x7FFF else value


def _padded(plane: Array, padding: tuple[int, int]) -> NDArray[np.bool_]:
    low, high = padding
    return (plane == low) if low == high else (plane >= low) & (plane <= high)


def _look(plane: Array, scaling: Scaling) -> Plane:
    """The range of a plane in modality units."""
    padded = 0
    if scaling.padding is not None:
        mask = _padded(plane, scaling.padding)
        padded = int(mask.sum())
        plane = plane[~mask] if padded else plane
    if not plane.size:
        return Plane(np.inf, -np.inf, padded)
    if scaling.table is not None:
        values = look_up(plane, scaling.table)
        return Plane(float(values.min()), float(values.max()), padded)
    ends = sorted(float(end) * scaling.slope + scaling.intercept for end in (plane.min(), plane.max()))
    return Plane(ends[0], ends[1], padded)


def look_up(plane: Array, table: tuple[int, NDArray[np.float64]]) -> Array:
    """The entries of a table for values; those outside of it take its first or last entry."""
    first, entries = table
    return entries[np.clip(plane.astype(np.int64) - first, 0, len(entries) - 1)]


def _shift(plane: Array, scaling: Scaling, low: int) -> None:
    """Add a whole intercept in place, modulo 2^16: exact because the result was seen to fit."""
    mask = _padded(plane, scaling.padding) if scaling.padding is not None else None
    bits = plane.view(np.uint16)
    if scaling.intercept:
        np.add(bits, np.uint16(int(scaling.intercept) & 0xFFFF), out=bits)
    if mask is not None and mask.any():
        plane.view(np.int16)[mask] = low


def _scale(out: Array, plane: Array, scaling: Scaling, low: float) -> None:
    mask = _padded(plane, scaling.padding) if scaling.padding is not None else None
    if scaling.table is not None:
        out[...] = look_up(plane, scaling.table)
    elif scaling.whole and plane.dtype.kind in "iu":
        out[...] = plane.astype(np.int64) + int(scaling.intercept)
    else:
        out[...] = plane.astype(np.float64) * scaling.slope + scaling.intercept
    if mask is not None and mask.any():
        out[mask] = low
