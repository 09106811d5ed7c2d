"""Arrays in .npy files, for networks that take no volumes: signals, features, states."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError

Array = NDArray[Any]
SUFFIX, SUFFIXES_OUT = ".npy", (".npy", ".npz")


def write_npz(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """What ``numpy.load`` reads as .npz; unlike ``numpy.savez`` for any names, also such as "file"."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, (name, array) in enumerate(arrays.items()):
            safe = name if name and not set(name) & set("/\\\0:") else f"output-{number}"
            with archive.open(f"{safe}.npy", "w", force_zip64=True) as part:
                np.lib.format.write_array(part, array, allow_pickle=False)


def read_array(name: str, path: Path) -> Array:
    """A .npy file without objects, mapped. `name` is the input it is for. Raises InputError."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"--input {name}: there is no file {path.name!r}") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"--input {name}: {path.name!r} is no NumPy array (.npy) of numbers") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise InputError(f"--input {name}: {path.name!r} is no NumPy array (.npy) of numbers")
    return array
