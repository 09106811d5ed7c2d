"""Arrays in scratch files, for volumes that a memory budget has no room for.

A scratch file has no name and is gone with the process. What was read or written of it counts as this process's memory
until it is let go; then it is the system's, which keeps what it has room for.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from voxelrt.errors import OutputError


class Scratch:
    """Makes such arrays, and lets go of them all at once."""

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """An array of zeros.

        Raises
        ------
        OutputError : there is no room for its file in the folder for such files.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size == 0:
            return np.zeros(tuple(shape), dtype)
        with tempfile.TemporaryFile() as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)  # or a full disk would end the process when it is written
            except OSError as error:
                raise OutputError(
                    f"a budget of memory needs a scratch file of {size / 2**30:.2f} GiB in {tempfile.gettempdir()}: "
                    f"{error.strerror}; give more memory, or set TMPDIR to a folder with room"
                ) from error
            mapped = mmap.mmap(file.fileno(), size)
        self._maps.append(mapped)
        return np.frombuffer(mapped, dtype).reshape(tuple(shape))

    def let_go(self) -> None:
        """What is in the arrays stays, and is this process's memory no more until it is looked at again."""
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)

    @property
    def nbytes(self) -> int:
        """Of all of its arrays."""
        return sum(len(mapped) for mapped in self._maps)
