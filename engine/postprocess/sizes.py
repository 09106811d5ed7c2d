"""How large labels are, in what can be known of it: millilitres of a volume, mm² of a picture, else voxels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from voxelrt.volume import Volume


@dataclass(frozen=True)
class Sizes:
    """Of labels.

    Parameters
    ----------
    voxels
        Label name -> how many; a value without a name is "label 7".
    volumes_ml
        Label name -> mL; empty where a length of the voxels is not known.
    areas_mm2
        Label name -> mm², of a single picture that tells the lengths of its plane; else empty.
    """

    voxels: dict[str, int] = field(default_factory=dict)
    volumes_ml: dict[str, float] = field(default_factory=dict)
    areas_mm2: dict[str, float] = field(default_factory=dict)

    @property
    def words(self) -> dict[str, str]:
        """Label name -> its size as it is shown."""
        return words_of(self.voxels, self.volumes_ml, self.areas_mm2)


def sizes_of(labels: Volume) -> Sizes:
    """The size of each named label of (1, Z, Y, X), and of values without a name."""
    # Plane by plane: each voxel is an index of eight bytes while it is counted.
    planes = [np.bincount(plane.reshape(-1)) for channel in labels.array for plane in channel]
    counts = np.zeros(max((len(one) for one in planes), default=0), np.int64)
    for one in planes:
        counts[: len(one)] += one
    names = {value: name for value, name in labels.labels.items() if value != 0}
    names |= {int(v): f"label {v}" for v in np.flatnonzero(counts) if v != 0 and int(v) not in labels.labels}
    voxels = {name: int(counts[value]) if value < counts.size else 0 for value, name in sorted(names.items())}
    return Sizes(voxels, _times(voxels, labels.voxel_ml), _times(voxels, labels.pixel_mm2))


def _times(voxels: Mapping[str, int], one: float | None) -> dict[str, float]:
    return {} if one is None else {name: count * one for name, count in voxels.items()}


def words_of(
    voxels: Mapping[str, int], volumes_ml: Mapping[str, float], areas_mm2: Mapping[str, float]
) -> dict[str, str]:  # fmt: skip
    """Label name -> its size as it is shown, in the best unit that is known."""
    return {name: size_in_words(count, volumes_ml.get(name), areas_mm2.get(name)) for name, count in voxels.items()}


def size_in_words(voxels: int, volume_ml: float | None, area_mm2: float | None) -> str:
    """Millilitres, else mm², else pixels: what tells no lengths is a picture."""
    if volume_ml is not None:
        return f"{volume_ml:.1f} mL"
    if area_mm2 is not None:
        return f"{area_mm2:.4g} mm2"
    return f"{voxels} {'pixel' if voxels == 1 else 'pixels'}"
