"""Amounts of memory as people write them."""

from __future__ import annotations

import re

from voxelrt.errors import UsageError

_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_size(value: int | str, name: str) -> int:
    """Bytes from a number of bytes or a text such as ``4GiB`` or ``500 MB``.

    Parameters
    ----------
    value : what was given.
    name : of the option, for the error.

    Raises
    ------
    UsageError : it is neither, or not positive.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(value))
        units = {unit.lower(): factor for unit, factor in _UNITS.items()}
        if not found or found[2].lower() not in units:
            raise UsageError(f"{name} is {value!r}; write a number of bytes, or one such as 4GiB or 500MB")
        size = int(float(found[1]) * units[found[2].lower()])
    if size <= 0:
        raise UsageError(f"{name} is {value!r}; it must be more than nothing")
    return size


def in_words(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
