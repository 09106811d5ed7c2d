"""Labels as pictures whose values are the labels, as nnU-Net's models of pictures keep them: PNG of one slice, TIFF."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from voxelrt.errors import UsageError
from voxelrt.io.atomic import atomic_path
from voxelrt.volume import Volume

PNG, TIFF = (".png",), (".tif", ".tiff")
LABEL_PICTURES = (*PNG, *TIFF)


def write_label_picture(labels: Volume, path: str | os.PathLike[str]) -> None:
    """Write labels as a picture, whole or not at all: 8 bits, or 16 where a label needs them; TIFF in Deflate.

    Beside a TIFF of several slices goes ``<name>.json`` with their spacing, as nnU-Net keeps it; our reader takes it.

    Parameters
    ----------
    labels
        (1, Z, Y, X) whole numbers up to 65535.
    path
        .png, .tif or .tiff.

    Raises
    ------
    UsageError : no labels, several slices for a PNG, another suffix.
    OutputError : the file cannot be written.
    """
    place = Path(path)
    values = _values(labels)
    if place.name.endswith(PNG):
        if values.shape[0] != 1:
            raise UsageError(f"{place.name!r}: a PNG holds one slice, and these labels have {values.shape[0]}")
        with atomic_path(place) as temporary:
            Pillow.fromarray(values[0]).save(temporary, format="PNG")
        return
    if not place.name.endswith(TIFF):
        raise UsageError(f"{place.name!r}: the name must end in {' or '.join(LABEL_PICTURES)}")
    import tifffile

    if values.shape[0] > 1:
        with atomic_path(place.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps({"spacing": list(labels.spacing_mm)}) + "\n", "utf-8")
    with atomic_path(place) as temporary:
        shown = values if values.shape[0] > 1 else values[0]
        tifffile.imwrite(
            temporary, shown, compression="zlib", photometric="minisblack", software="VoxelRT", maxworkers=1
        )


def _values(labels: Volume) -> NDArray[Any]:
    array = labels.array
    whole = array.dtype.kind in "iub" and array.shape[0] == 1
    if not whole or int(array.min(initial=0)) < 0 or int(array.max(initial=0)) > 65535:
        raise UsageError(f"labels are whole numbers up to 65535 in one channel; these are {array.dtype}")
    kept: NDArray[Any] = np.ascontiguousarray(array[0], np.uint8 if array.max(initial=0) < 256 else np.uint16)
    return kept
