"""The window arguments of convolutions and pooling: one number for all axes, or one (pair) for each of z, y, x."""

from __future__ import annotations

from collections.abc import Sequence

from voxelrt.errors import UsageError

Triple = int | Sequence[int]
Padding = int | Sequence[int | Sequence[int]]


def triple(value: Triple) -> tuple[int, int, int]:
    """Numbers for z, y, x. Raises UsageError if there are not one or three."""
    if isinstance(value, int):
        return (value, value, value)
    if len(value) != 3:
        raise UsageError(f"{value!r} is neither a number nor three numbers (z, y, x)")
    return (int(value[0]), int(value[1]), int(value[2]))


def pairs(value: Padding) -> tuple[tuple[int, int], ...]:
    """(before, after) for z, y, x, from one number, three, or three pairs. Raises UsageError for anything else."""
    given = [value] * 3 if isinstance(value, int) else list(value)
    if len(given) != 3:
        raise UsageError(f"padding {value!r} is neither a number, three, nor three pairs")
    made = []
    for item in given:
        pair = (item, item) if isinstance(item, int) else tuple(int(v) for v in item)
        if len(pair) != 2 or min(pair) < 0:
            raise UsageError(f"padding {item!r} is not a pair of numbers from 0")
        made.append((pair[0], pair[1]))
    return tuple(made)
