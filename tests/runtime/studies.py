"""Small studies for the scheduler, and their labels by a plain loop that knows neither streams nor batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from voxelrt.kernels.resample_argmax.taps import taps
from voxelrt.runtime.device import Array
from voxelrt.runtime.window_job import Decision, Job, Window
from voxelrt.tiling.repeats import most_repeated, repeated
from voxelrt.tiling.windows import starts

CLASSES = 3
WINDOW = (4, 6, 5)


def network(inputs: Array, outputs: Array) -> None:
    """Three classes of one channel, each another function of a voxel and its window's mean: places and rows matter."""
    mean = inputs.mean(axis=(1, 2, 3, 4), keepdims=True)
    for k in range(CLASSES):
        outputs[:, k] = np.sin((k + 1) * inputs[:, 0]) + 0.1 * k * mean[:, 0]


def study(seed: int, size: tuple[int, int, int], new: tuple[int, int, int] | None = None, air: int = 0) -> Job:
    """A job with overlapping windows, mirrored along x too; `new` is the labels' grid.

    Of the planes, rows and columns the first and the last `air` are one value, and the windows know it.
    """
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(1, *size)).astype(np.float32)
    if air:
        inner = data[:, air:-air, air:-air, air:-air].copy()
        data[...] = -0.5
        data[:, air:-air, air:-air, air:-air] = inner
    new = new or size
    places = [starts(n, w, 0.5) for n, w in zip(size, WINDOW, strict=True)]
    corners = [(z, y, x) for z in places[0] for y in places[1] for x in places[2]]
    keys = repeated(data, WINDOW, corners)
    windows = [Window(at, mirrored, 0.5, keys.get(at)) for at in corners for mirrored in ((), (2,))]
    ways = [taps((np.arange(m) + 0.5) * (n / m) - 0.5, n) for n, m in zip(size, new, strict=True)]
    inside = (slice(0, size[0]), slice(0, size[1]), slice(0, size[2]))
    decision = Decision(*ways, inside, np.arange(CLASSES, dtype=np.int32), False)
    weights = (rng.random(WINDOW) + 0.5).astype(np.float32)
    kept = most_repeated([window.key for window in windows])
    return Job(data, windows, CLASSES, weights, decision, np.full(new, 255, np.uint8), kept, bytes=100)


def expected(job: Job) -> NDArray[np.uint8]:
    """The labels, in float64 and with all logits of the volume in memory."""
    sums = np.zeros((CLASSES, *job.data.shape[1:]))
    counts = np.zeros(job.data.shape[1:])
    for window in job.windows:
        place = tuple(slice(at, at + n) for at, n in zip(window.start, WINDOW, strict=True))
        axes = tuple(axis + 2 for axis in window.mirrored)
        logits = np.empty((1, CLASSES, *WINDOW), np.float32)
        network(np.flip(job.data[(None, slice(None), *place)], axes), logits)
        sums[(slice(None), *place)] += np.flip(logits, axes)[0] * job.weights * window.share
        counts[place] += job.weights * window.share
    logits64 = sums / counts
    for axis, way in enumerate((job.decision.along, job.decision.rows, job.decision.columns), start=1):
        low, high = np.take(logits64, way.at[0], axis), np.take(logits64, way.at[1], axis)
        shape = [1] * 4
        shape[axis] = -1
        logits64 = low + (high - low) * way.weights.reshape(shape)
    return logits64.argmax(axis=0).astype(np.uint8)


class Scan:
    """A source of one study whose planes come a few at a time, each time that it is waited for."""

    def __init__(self, job: Job, seed: int) -> None:
        self._job: Job | None = job
        self._target = job.data
        self._data, self._there, self._random = job.data.copy(), 0, np.random.default_rng(seed)
        job.data[...] = np.nan
        job.arrived = lambda: self._there

    def next(self, wait: bool) -> Job | None:
        job, self._job = self._job, None
        return job

    def wait(self) -> None:
        size = self._data.shape[1]
        assert self._there < size, "the scheduler waits though all is there"
        until = min(size, self._there + int(self._random.integers(1, 4)))
        self._target[:, self._there : until] = self._data[:, self._there : until]
        self._there = until


class Queue:
    """Studies in order; every `late`-th question without waiting is answered with none yet."""

    def __init__(self, jobs: Iterable[Job], late: int = 0) -> None:
        self._jobs, self._late, self._asked = deque(jobs), late, 0

    def wait(self) -> None:
        raise AssertionError("all planes of these studies are there")

    def next(self, wait: bool) -> Job | None:
        self._asked += 1
        if not self._jobs or (not wait and self._late and self._asked % self._late == 0):
            return None
        return self._jobs.popleft()
