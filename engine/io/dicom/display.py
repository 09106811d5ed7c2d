"""Values as they are shown: the first VOI LUT or window of each plane, bright where the picture is bright, 0 to 255.

PS3.3 C.11.2 (VOI LUT), C.11.2.1.2 and C.11.2.1.3 (window functions, by pydicom), C.7.6.3.1.2 (MONOCHROME1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from voxelrt.errors import InputError
from voxelrt.io.dicom.frames import Frame
from voxelrt.io.dicom.header import Header
from voxelrt.io.dicom.quiet import quiet_pydicom
from voxelrt.io.dicom.values import look_up, read_table

Array = NDArray[Any]
WHITE = 255.0
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def as_displayed(values: Array, frames: Sequence[Frame]) -> tuple[Array, list[str]]:
    """Modality values as a viewer shows them.

    Parameters
    ----------
    values
        (Z, Y, X) in modality units.
    frames
        One for each plane.

    Returns
    -------
    shown : (Z, Y, X) float32 from 0 (black) to 255 (white).
    notes : sentences on how.

    Raises
    ------
    InputError : a window or table that cannot be.
    """
    made = np.empty(values.shape, np.float32)
    ways = [_show(out, plane, frame.header) for out, plane, frame in zip(made, values, frames, strict=True)]
    notes = [f"shown {way}, as 0 to 255" for way in dict.fromkeys(ways)]
    if any(_is_inverted(frame.header) for frame in frames):
        notes.append("inverted, because low values are bright (MONOCHROME1)")
    return made, notes


def _show(out: NDArray[np.float32], plane: Array, header: Header) -> str:
    """Fill one plane; returns how."""
    tables = header.nested.get("VOILUTSequence")
    window = _window(header)
    if tables:
        first, entries = read_table(tables[0], header)
        bits = int(tables[0].LUTDescriptor[2])
        shown = look_up(plane, (first, entries)) * (WHITE / (2**bits - 1))
        how = "by the VOI LUT of the file"
    elif window is not None:
        shown = _windowed(plane, header, *window)
        how = f"in the window of the file, centre {window[0]:g} and width {window[1]:g} ({_function(header)})"
    else:
        low, high = float(plane.min(initial=0)), float(plane.max(initial=0))
        if plane.size:
            low, high = float(plane.min()), float(plane.max())
        shown = (plane.astype(np.float64) - low) * (WHITE / (high - low) if high > low else 0.0)
        how = "from the lowest to the highest value, because the file names no window"
    np.clip(WHITE - shown if _is_inverted(header) else shown, 0, WHITE, out=out)
    return how


def _is_inverted(header: Header) -> bool:
    shape = header.text("PresentationLUTShape").upper()
    photometric = header.text("PhotometricInterpretation").upper()
    return shape == "INVERSE" or (not shape and photometric == "MONOCHROME1")


def _function(header: Header) -> str:
    said = header.text("VOILUTFunction").upper()
    return said if said in FUNCTIONS else "LINEAR"


def _window(header: Header) -> tuple[float, float] | None:
    """The first window's centre and width, None without one. Raises InputError for one that cannot be."""
    centre, width = header.floats("WindowCenter"), header.floats("WindowWidth")
    if not centre or not width:
        return None
    narrowest = 1 if _function(header) == "LINEAR" else 0
    if not (np.isfinite((centre[0], width[0])).all() and width[0] >= narrowest and width[0] > 0):
        raise InputError(f"{header.number}: a window of centre {centre[0]:g} and width {width[0]:g} cannot be shown")
    return centre[0], width[0]


def _windowed(plane: Array, header: Header, centre: float, width: float) -> Array:
    # pydicom gives the range of the bits that it is told; eight of them are 0 to 255.
    said = Dataset()
    said.PhotometricInterpretation, said.PixelRepresentation, said.BitsStored = "MONOCHROME2", 0, 8
    said.VOILUTFunction = _function(header)
    # A decimal string has 16 characters; values beside the standard's are pydicom's own floats.
    said.WindowCenter, said.WindowWidth = f"{centre:.10g}", f"{width:.10g}"
    with quiet_pydicom(), np.errstate(over="ignore"):
        return np.asarray(apply_windowing(plane, said))
