"""The bytes of a plan that is in no file: memory of its own with huge pages, grown and thinned in place.

What a run does not read need not be held: large raw weights, which are read only to save the plan or to compile it for
other shapes, are moved into an unlinked file that is mapped at their place.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tempfile
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
SLACK = 1 << 20  # address space behind the plan for a longer description; untouched, it costs nothing
HUGE = 4 << 20  # bytes from which huge pages are asked for: two of them at least
LARGE = 16 << 20  # bytes from which it is worth a file


def allocate(size: int) -> Bytes:
    """Zeroed memory for a plan of so many bytes, aligned to a page; ``resized`` can make it longer."""
    memory = mmap.mmap(-1, size + SLACK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a hint; without it packed weights are read a little slower
            memory.madvise(mmap.MADV_HUGEPAGE)
    whole: Bytes = np.frombuffer(memory, np.uint8)
    return whole[:size]


def resized(image: Bytes, size: int) -> Bytes | None:
    """The same memory with another length; None where it is not from ``allocate`` or has no room."""
    whole = image.base
    if not isinstance(whole, np.ndarray) or not isinstance(_owner(whole), mmap.mmap) or not whole.flags.writeable:
        return None
    if whole.ctypes.data != image.ctypes.data or size > whole.size:
        return None
    return whole[:size]


def _owner(whole: NDArray[Any]) -> Any:
    base = whole.base
    return base.obj if isinstance(base, memoryview) else base


def move_to_disk(image: Bytes, start: int, stop: int) -> bool:
    """Put the whole pages between two offsets of an ``allocate``d image into a file that is mapped in their place.

    The bytes stay the same, the process no longer holds them. False where that is not possible; then nothing changed.
    """
    page = mmap.PAGESIZE
    first, last = -(-start // page) * page, stop // page * page
    if sys.platform != "linux" or last - first < LARGE or image.ctypes.data % page:
        return False
    try:
        with tempfile.TemporaryFile(prefix="voxelrt-weights-") as file:
            file.write(image[first:last].data)
            file.flush()
            return _map_at(image.ctypes.data + first, last - first, file.fileno())
    except OSError:  # no room, or no folder for temporary files: the weights stay in memory
        return False


def _map_at(address: int, length: int, file: int) -> bool:
    """Map a file over memory that is ours; the kernel replaces the pages at once or not at all."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    map_fixed = 0x10
    found = library.mmap(address, length, mmap.PROT_READ, mmap.MAP_PRIVATE | map_fixed, file, 0)
    if found != address:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True
