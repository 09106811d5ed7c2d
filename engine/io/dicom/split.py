"""Several volumes in one series (dynamic, diffusion, multi-echo, cine, multiphase): which frame belongs to which.

A series is split only where frames lie at the same place. The marks are tried in their order: the first that leaves no
two frames at one place within a volume, and every volume whole, tells the volumes apart; then pairs of marks. Times
that differ from slice to slice (a trigger, a clock) count by their rank at each place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations

import numpy as np

from voxelrt.io.dicom.frames import Frame

# Tried in this order, alone, then two and three together.
MARKS = ("time", "b-value", "echo time", "trigger time", "acquisition", "stack", "kind", "gradient")
# What differs from slice to slice: the first, second ... of each place make a volume.
RANKED = ("trigger time", "acquisition time", "instance")
UNITS = {"b-value": "s/mm2", "echo time": "ms", "trigger time": "ms"}
PLACE_MM = 0.01


def split_volumes(frames: Sequence[Frame], places: Sequence[Hashable]) -> list[tuple[str, list[int]]]:
    """Group frames into volumes.

    Parameters
    ----------
    frames
        Of one series.
    places
        Where each lies; equal for frames at the same place.

    Returns
    -------
    volumes : (name, indices of its frames); one named "" where no place is repeated or nothing tells them apart.
    """
    everything = [("", list(range(len(frames))))]
    repeats = Counter(places)
    if max(repeats.values()) == 1:
        return everything
    usable = [mark for mark in MARKS if len({frame.marks.get(mark) for frame in frames}) > 1]
    choices = [chosen for count in (1, 2, 3) for chosen in combinations(usable, count)]
    for whole in (True, False):
        for chosen in choices:
            groups = _grouped(frames, chosen)
            if _tells_apart(groups, places, len(repeats), whole):
                return [(name_of(chosen, key), members) for key, members in groups.items()]
        for mark in RANKED:
            ranked = _by_rank(frames, places, mark, repeats)
            if ranked and whole:
                return ranked
    return everything


def _grouped(frames: Sequence[Frame], marks: tuple[str, ...]) -> dict[tuple[float | str | None, ...], list[int]]:
    groups: dict[tuple[float | str | None, ...], list[int]] = {}
    for index, frame in enumerate(frames):
        groups.setdefault(tuple(frame.marks.get(mark) for mark in marks), []).append(index)
    return dict(sorted(groups.items(), key=lambda item: [_sortable(value) for value in item[0]]))


def _sortable(value: float | str | None) -> tuple[int, float, str]:
    return (0, 0.0, "") if value is None else (2, 0.0, value) if isinstance(value, str) else (1, value, "")


def _tells_apart(
    groups: dict[tuple[float | str | None, ...], list[int]], places: Sequence[Hashable], distinct: int, whole: bool
) -> bool:
    """Whether no place is twice in a volume and each volume (or, not `whole`, most of them) has all the places."""
    sizes = []
    for members in groups.values():
        if len({places[index] for index in members}) != len(members):
            return False
        sizes.append(len(members))
    complete = sum(size == distinct for size in sizes)
    return complete == len(sizes) if whole else 2 * complete > len(sizes)


def _by_rank(
    frames: Sequence[Frame], places: Sequence[Hashable], mark: str, repeats: Counter[Hashable]
) -> list[tuple[str, list[int]]]:
    """Volumes of the first, second ... frame of each place; [] if places differ in how many they have, or at ties."""
    phases = max(repeats.values())
    if set(repeats.values()) != {phases} or any(mark not in frame.marks for frame in frames):
        return []
    at_place: dict[Hashable, list[int]] = {}
    for index, place in enumerate(places):
        at_place.setdefault(place, []).append(index)
    made: list[list[int]] = [[] for _ in range(phases)]
    for members in at_place.values():
        values = [frames[index].marks[mark] for index in members]
        if len(set(values)) != len(values):
            return []
        for rank, position in enumerate(np.argsort(np.array(values, dtype=np.float64))):
            made[rank].append(members[int(position)])
    return [(f"phase {rank + 1}", sorted(members)) for rank, members in enumerate(made)]


def name_of(marks: tuple[str, ...], key: tuple[float | str | None, ...]) -> str:
    """A volume's name, such as "b-value 1000 s/mm2"."""
    parts = []
    for mark, value in zip(marks, key, strict=True):
        shown = "none" if value is None else value if isinstance(value, str) else f"{value:g}"
        parts.append(f"{mark} {shown} {UNITS.get(mark, '')}".strip() if value is not None else f"no {mark}")
    return ", ".join(re.sub(r"[^\w .,/+-]", "", part) for part in parts)
