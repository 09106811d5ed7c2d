"""The work of windows on the CPU: our native kernels on arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from voxelrt.kernels import resample_argmax
from voxelrt.runtime.cpu_device import array_of
from voxelrt.runtime.device import Array, Buffer, Stream
from voxelrt.runtime.window_job import Job, Sums, Window
from voxelrt.tiling.slab import MemorySlab
from voxelrt.tiling.stitcher import Stitcher, planes_of


class CpuWindows:
    """Gathers, runs, sums and decides on arrays.

    Parameters
    ----------
    network : writes the answer (N, classes, *window) to (N, C, *window) into its second argument.
    """

    def __init__(self, network: Callable[[Array, Array], None]) -> None:
        self._network = network

    def sums(self, job: Job) -> Stitcher:
        size, depth = job.data.shape[1:], job.weights.shape[0]
        slab = MemorySlab(planes_of(depth, size[0]), job.channels, (size[1], size[2]))
        return Stitcher(slab, (size[0], size[1], size[2]), job.weights)

    def gather(self, data: Buffer, window: Window, into: Buffer, stream: Stream) -> None:
        del stream
        target = array_of(into)[0]
        space = (1, *target.shape[1:]) if target.ndim == 3 else target.shape[1:]
        part = array_of(data)[
            (slice(None), *(slice(at, at + size) for at, size in zip(window.start, space, strict=True)))
        ]
        target[...] = np.flip(part, _axes(window)).reshape(target.shape)

    def network(self, inputs: Buffer, outputs: Buffer, stream: Stream) -> None:
        del stream
        self._network(array_of(inputs), array_of(outputs))

    def accumulate(self, logits: Buffer, window: Window, sums: Sums, stream: Stream) -> None:
        del stream
        row = array_of(logits)[0]
        whole = row[:, None] if row.ndim == 3 else row
        _stitcher(sums).add(np.flip(whole, _axes(window)), window.start, window.share)

    def keep(self, logits: Buffer, into: Buffer, stream: Stream) -> None:
        del stream
        array_of(into)[...] = array_of(logits)

    def decide(self, sums: Sums, job: Job, z: int, into: Buffer, stream: Stream) -> None:
        del stream
        how = job.decision
        low, high, weight = how.reads(z)
        _, rows, columns = how.inside
        planes = [_stitcher(sums).plane(plane) for plane in (low, high)]
        below, above = ((total[:, rows, columns], counts[rows, columns]) for total, counts in planes)
        resample_argmax(
            below,
            above,
            weight,
            how.rows,
            how.columns,
            how.values,
            regions=how.regions,
            head=how.head,
            out=array_of(into)[0],
        )

    def clear(self, sums: Sums, plane: int, stream: Stream) -> None:
        del stream
        _stitcher(sums).clear(plane)

    def drop(self, sums: Sums) -> None:
        """The garbage collector does it."""
        del sums


def _axes(window: Window) -> tuple[int, ...]:
    return tuple(axis + 1 for axis in window.mirrored)


def _stitcher(sums: Sums) -> Stitcher:
    if not isinstance(sums, Stitcher):
        raise TypeError(f"a {type(sums).__name__} is no sums of the CPU")
    return sums
