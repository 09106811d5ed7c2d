"""Doing less where that changes the answer: off by default, named, and their cost can be asked for.

A window that is left out adds nothing to the sums; a voxel that no window saw is background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.kernels import resample_argmax
from voxelrt.runtime.cpu_device import array_of
from voxelrt.runtime.cpu_windows import CpuWindows
from voxelrt.runtime.device import Array, Buffer, Stream
from voxelrt.runtime.window_job import Job, Sums
from voxelrt.tiling.stitcher import Plane, Stitcher

Mask = NDArray[np.bool_]
AIR_LEVEL = 0.1  # of the way from the darkest value to the 99.5th percentile: what is above is no air
AIR_SHARE = 0.005  # of a window's voxels that may be above it
MARGIN = 4  # a quarter of the window around what the coarse pass found
SAMPLES = 1 << 20


@dataclass(frozen=True)
class Shortcuts:
    """What may be left out.

    Parameters
    ----------
    skip_air : windows that hold next to nothing but the darkest values of every channel.
    coarse_first : windows far from everything that a first pass found, without overlap and mirroring.
    """

    skip_air: bool = False
    coarse_first: bool = False

    def __bool__(self) -> bool:
        return self.skip_air or self.coarse_first


def leave_out(job: Job, shortcuts: Shortcuts, coarse: Callable[[], NDArray[Any]] | None) -> int:
    """Take windows out of a job; one always stays. Returns how many places of windows went.

    Parameters
    ----------
    coarse : the labels of a first pass (Z, Y, X) on the grid of the job's labels.
    """
    window = job.weights.shape
    solid = _solid(job) if shortcuts.skip_air else None
    found = None
    if shortcuts.coarse_first and coarse is not None:
        found = _on_windows_grid(coarse() != 0, job)
    wanted: dict[tuple[int, int, int], bool] = {}
    for one in job.windows:
        if one.start not in wanted:
            here = tuple(slice(at, at + size) for at, size in zip(one.start, window, strict=True))
            near = tuple(
                slice(max(0, at - size // MARGIN), at + size + size // MARGIN)
                for at, size in zip(one.start, window, strict=True)
            )
            keep = solid is None or float(solid[here].mean()) > AIR_SHARE
            wanted[one.start] = keep and (found is None or bool(found[near].any()))
    kept = [one for one in job.windows if wanted[one.start]] or list(job.windows[:1])
    job.windows = kept
    return sum(not keep for keep in wanted.values())


def _solid(job: Job) -> Mask:
    """Where any channel is brighter than air; the padding around the data is not."""
    made = np.zeros(job.data.shape[1:], bool)
    inside = made[job.decision.inside]
    for channel in job.data[(slice(None), *job.decision.inside)]:
        flat = channel.ravel()
        low = float(channel.min())
        high = float(np.percentile(flat[:: max(1, flat.size // SAMPLES)], 99.5))
        inside |= channel > low + AIR_LEVEL * (high - low)
    return made


def _on_windows_grid(mask: Mask, job: Job) -> Mask:
    """A mask on the labels' grid, on the padded grid of the windows."""
    made = np.zeros(job.data.shape[1:], bool)
    sizes = [part.stop - part.start for part in job.decision.inside]
    at = [np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(int) for n, m in zip(sizes, mask.shape, strict=True)]
    made[job.decision.inside] = mask[np.ix_(*at)]
    return made


class SparseWindows(CpuWindows):
    """As CpuWindows, where some voxels have been in no window: their logits are 0, and 0 is background."""

    def __init__(self, network: Callable[[Array, Array], None]) -> None:
        super().__init__(network)

    def decide(self, sums: Sums, job: Job, z: int, into: Buffer, stream: Stream) -> None:
        del stream
        how = job.decision
        low, high, weight = how.reads(z)
        _, rows, columns = how.inside
        if not isinstance(sums, Stitcher):
            raise TypeError(f"a {type(sums).__name__} is no sums of the CPU")
        planes = [sums.plane(plane) for plane in (low, high)]
        below, above = (_counted((total[:, rows, columns], counts[rows, columns])) for total, counts in planes)
        resample_argmax(
            below, above, weight, how.rows, how.columns, how.values, regions=how.regions, out=array_of(into)[0]
        )


def _counted(plane: Plane) -> Plane:
    sums, counts = plane
    return sums, np.where(counts > 0, counts, np.float32(1))
