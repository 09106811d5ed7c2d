"""The work of windows as nnU-Net's own predictor rounds it: for comparing with it, not for a better answer.

A place's mirrored forms are averaged in float32, weighted, and added to sums in half precision, window by window in
nnU-Net's order; sums are divided by the sums of weights in half precision, for each fold on its own, and only then are
folds averaged; resampled logits are rounded to half precision before they are compared (nnU-Net 2.8,
``_internal_predict_sliding_window_return_logits``, ``predict_logits_from_preprocessed_data``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.native import CancelFlag
from voxelrt.kernels import resample_argmax
from voxelrt.models.nnunet_settings import INPUT, OUTPUT, fold_outputs
from voxelrt.plan.plan import Plan
from voxelrt.runtime.cpu_device import array_of
from voxelrt.runtime.cpu_windows import CpuWindows
from voxelrt.runtime.device import Array, Buffer, Stream
from voxelrt.runtime.window_job import Job, Sums, Window
from voxelrt.tiling.stitcher import Plane, Stitcher

Floats = NDArray[np.float32]


class RoundedSums:
    """Sums of a study; a place's logits wait until all its mirrored forms are there."""

    def __init__(self, stitcher: Stitcher) -> None:
        self.stitcher = stitcher
        self._forms, self._total = 0, np.zeros(0, np.float32)

    def add(self, logits: Floats, window: Window) -> None:
        """The forms of a place come one after the other."""
        self._total = logits.copy() if self._forms == 0 else self._total + logits
        self._forms += 1
        if self._forms == round(1 / window.share):
            self.stitcher.add(self._total / np.float32(self._forms), window.start)
            self._forms = 0


class RoundedWindows(CpuWindows):
    """As CpuWindows, with nnU-Net's roundings.

    Parameters
    ----------
    network : writes the answers of all folds, one after the other along the channels.
    folds : how many.
    """

    def __init__(self, network: Callable[[Array, Array], None], folds: int) -> None:
        super().__init__(network)
        self._folds = folds

    def accumulate(self, logits: Buffer, window: Window, sums: Sums, stream: Stream) -> None:
        del stream
        row = array_of(logits)[0]
        whole = row[:, None] if row.ndim == 3 else row
        _rounded(sums).add(np.flip(whole, tuple(axis + 1 for axis in window.mirrored)), window)

    def decide(self, sums: Sums, job: Job, z: int, into: Buffer, stream: Stream) -> None:
        del stream
        how = job.decision
        low, high, weight = how.reads(z)
        _, rows, columns = how.inside
        planes = [_rounded(sums).stitcher.plane(plane) for plane in dict.fromkeys((low, high))]
        divided = [self._divided((total[:, rows, columns], counts[rows, columns])) for total, counts in planes]
        options: dict[str, Any] = {"regions": how.regions, "half": True, "out": array_of(into)[0]}
        resample_argmax(divided[0], divided[-1], weight, how.rows, how.columns, how.values, **options)

    def clear(self, sums: Sums, plane: int, stream: Stream) -> None:
        del stream
        _rounded(sums).stitcher.clear(plane)

    def _divided(self, plane: Plane) -> Plane:
        """The mean over windows, then over folds."""
        sums, counts = plane
        # A quotient or sum of two halves, computed in float32 and rounded, is what half arithmetic gives.
        folds = (sums / counts).astype(np.float16).reshape(self._folds, -1, *counts.shape)
        total = folds[0]
        for fold in folds[1:]:
            total = total + fold
        mean = total / np.float16(self._folds) if self._folds > 1 else total
        return mean.astype(np.float32), np.ones_like(counts)


def folds_apart(plan: Plan, folds: int, cancel: CancelFlag | None) -> Callable[[Array, Array], None]:
    """A network for RoundedWindows: the logits of every fold, which the graph would average.

    Parameters
    ----------
    plan : whose graph has ``fold_outputs``; it is compiled once more, without fusion, where there are several folds.
    folds : how many.
    cancel : stops a run between two steps.
    """
    names: Sequence[str] = fold_outputs(folds)

    def network(inputs: Array, outputs: Array) -> None:
        if folds == 1:
            plan.run({INPUT: inputs}, {OUTPUT: outputs}, cancel=cancel)
            return
        answers = plan.run({INPUT: inputs}, taps=names, cancel=cancel)
        np.concatenate([answers[name] for name in names], axis=1, out=outputs)

    return network


def _rounded(sums: Sums) -> RoundedSums:
    if not isinstance(sums, RoundedSums):
        raise TypeError(f"a {type(sums).__name__} is no sums of nnU-Net's rounding")
    return sums
