"""From modality units to stored integers of 16 bits, with the rescale that brings them back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.valuerep import format_number_as_ds

from voxelrt.errors import UsageError

Array = NDArray[Any]

STEPS = 65533  # of the 65535 that 16 bits have; one at each end is room for the rounding of slope and intercept


@dataclass(frozen=True, eq=False)
class Stored:
    """What a derived image stores.

    Parameters
    ----------
    array
        int16 or uint16; array * slope + intercept are the values: exactly where they were whole numbers that fit, else
        to half a step (a slope) and what float64 rounds.
    slope, intercept
        As decimal strings, of at most 16 characters.
    """

    array: Array
    slope: str
    intercept: str

    @property
    def is_plain(self) -> bool:
        """Whether the stored values are the values."""
        return float(self.slope) == 1 and float(self.intercept) == 0


def to_stored(values: Array, *, intercept: float = 0.0, through_zero: bool = False) -> Stored:
    """Choose a rescale and apply it.

    Parameters
    ----------
    values
        Of any real type, in modality units.
    intercept
        That of the source, used again for whole numbers where they then fit.
    through_zero
        The intercept must be 0, as that of PET (PS3.3 C.8.9.4).

    Raises
    ------
    UsageError : NaN or infinity, which integers cannot say.
    """
    if values.dtype == bool:
        values = values.astype(np.uint8)
    low, high = (values.min().item(), values.max().item()) if values.size else (0, 0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UsageError("the image holds NaN or infinite values, which DICOM's integers cannot; write NIfTI instead")
    if values.dtype.kind == "f" and abs(low) < 2**31 and abs(high) < 2**31 and np.array_equal(np.rint(values), values):
        values = values.astype(np.int64)
        low, high = int(low), int(high)
    if values.dtype.kind in "iu":
        wanted = int(intercept) if intercept == int(intercept) and not through_zero else 0
        for shift in (wanted, 0, *(() if through_zero else (low,))):
            for dtype in (np.int16, np.uint16):
                limits = np.iinfo(dtype)
                if limits.min <= low - shift and high - shift <= limits.max:
                    return Stored((values.astype(np.int64) - shift).astype(dtype), "1", str(shift))
    if through_zero:
        dtype, span, base = (np.uint16, high / 65534, 0.0) if low >= 0 else (np.int16, max(-low, high) / 32766, 0.0)
    else:
        span = (high - low) / STEPS
        dtype, base = np.uint16, low - span
    slope = format_number_as_ds(float(span)) if span > 0 else "1"
    offset = format_number_as_ds(float(base if span > 0 else (0 if through_zero else low)))
    numbers = np.rint((values.astype(np.float64) - float(offset)) / float(slope))
    limits = np.iinfo(dtype)
    return Stored(np.clip(numbers, limits.min, limits.max).astype(dtype), slope, offset)
