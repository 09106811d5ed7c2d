"""What the scheduler does for one study: its windows in order, and the planes of labels that come of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voxelrt.kernels.resample_argmax.taps import Taps
from voxelrt.runtime.device import Buffer, Stream

Floats = NDArray[np.float32]
Triple = tuple[int, int, int]
Labels = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Window:
    """A window's place.

    Parameters
    ----------
    start : its first voxel (z, y, x).
    mirrored : the axes (0 to 2) along which the network sees it reversed.
    share : of its logits among the mirrored forms of one place.
    key : windows of a study with the same key look the same to the network; None where that is not known.
    """

    start: Triple
    mirrored: tuple[int, ...] = ()
    share: float = 1.0
    key: Hashable = None


@dataclass(frozen=True, eq=False)
class Decision:
    """How planes of logits become planes of labels on another grid, see ``resample_argmax``.

    Parameters
    ----------
    along, rows, columns : where each plane, row and column of the labels is read, on the study's own voxels.
    inside : where these voxels lie in the padded grid of the windows (z, y, x).
    values, regions : of the labels.
    head : the sums are of features, and this makes logits of them, see ``graph/head.py``.
    """

    along: Taps
    rows: Taps
    columns: Taps
    inside: tuple[slice, slice, slice]
    values: NDArray[np.int32]
    regions: bool
    head: NDArray[np.float32] | None = None

    def reads(self, z: int) -> tuple[int, int, float]:
        """The two planes of the windows' grid that plane z of the labels is read from, and the upper one's weight."""
        low, high, weight = int(self.along.at[0, z]), int(self.along.at[1, z]), float(self.along.weights[z])
        first = self.inside[0].start
        return first + low, first + (high if weight else low), weight


class Sums(Protocol):
    """The weighted sums of a study's windows on a device, a ring of planes."""


class WindowKernels(Protocol):
    """The work that is launched for windows: it computes, or puts a kernel in the stream that it is given."""

    def sums(self, job: Job) -> Sums:
        """New sums for a study, all zero. Raises MemoryError, OutputError."""

    def gather(self, data: Buffer, window: Window, into: Buffer, stream: Stream) -> None:
        """A window of (C, Z, Y, X) data, mirrored, into a row of the network's input."""

    def network(self, inputs: Buffer, outputs: Buffer, stream: Stream) -> None:
        """The network on rows."""

    def accumulate(self, logits: Buffer, window: Window, sums: Sums, stream: Stream) -> None:
        """Add a row of logits, turned back, to the sums."""

    def keep(self, logits: Buffer, into: Buffer, stream: Stream) -> None:
        """Copy a row of logits."""

    def decide(self, sums: Sums, job: Job, z: int, into: Buffer, stream: Stream) -> None:
        """Plane z of the labels, into (1, Y, X)."""

    def clear(self, sums: Sums, plane: int, stream: Stream) -> None:
        """Set a plane of sums to zero, for another one to take its place."""

    def drop(self, sums: Sums) -> None:
        """Give the sums' memory back."""


@dataclass(eq=False)
class Job:
    """A study's windows.

    Parameters
    ----------
    data : (C, Z, Y, X) float32, at least as large as a window.
    windows : by their first plane.
    channels : of the logits.
    weights : (Z, Y, X) of a window.
    decision : how the labels are made.
    labels : (Z, Y, X), where they go.
    kept_key : the logits of windows with this key are kept once they are known.
    bytes : what the study takes of the device's memory, for the budget.
    sums : makes the memory for its sums, where it is not the kernels' ordinary one.
    tell : called with (windows done, windows).
    time_limit : seconds from when the scheduler takes it up; past them the study is given up.
    arrived : how many planes of the data are there already, where they still come; they change no more.
    out : called with the number of planes of labels that are there, whenever more are.
    tag : whose it is; the scheduler does not look at it.
    """

    data: Floats
    windows: Sequence[Window]
    channels: int
    weights: Floats
    decision: Decision
    labels: Labels
    kept_key: Hashable = None
    bytes: int = 0
    sums: Callable[[], Any] | None = None
    tell: Callable[[int, int], None] = lambda done, total: None
    time_limit: float = math.inf
    arrived: Callable[[], int] | None = None
    out: Callable[[int], None] | None = None
    tag: Any = None
    began: float = field(default=0.0, init=False)  # of ``time.monotonic``
    error: BaseException | None = field(default=None, init=False)

    @property
    def late(self) -> bool:
        return time.monotonic() - self.began > self.time_limit

    def planes_before(self, z: int, done: int) -> Iterator[int]:
        """The planes of the windows' grid that are finished when a window begins at z, `done` of them being out."""
        return iter(range(done, min(z, self.data.shape[1])))

    def labels_at(self) -> dict[int, list[int]]:
        """plane of the windows' grid -> the planes of labels that are decided once it is finished."""
        made: dict[int, list[int]] = {}
        for z in range(self.labels.shape[0]):
            made.setdefault(self.decision.reads(z)[1], []).append(z)
        return made
