"""Windows of an nnU-Net model that are watched while they are decided: probabilities, and how sure the answer is.

The labels are decided as always; each plane's logits are then brought to the labels' grid a second time, some rows at a
time, for those who want more than the largest class. How much folds and mirrored forms disagree is one more channel
each among the sums of windows, so that the logits of a volume never exist here either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.native import CancelFlag
from voxelrt.case import Case
from voxelrt.errors import UsageError
from voxelrt.io.probabilities import ROWS, ProbabilityFile
from voxelrt.kernels import resample_argmax
from voxelrt.kernels.resample_argmax.taps import Taps
from voxelrt.models.nnunet_settings import INPUT, OUTPUT, NnunetSettings, fold_outputs
from voxelrt.plan.plan import Plan
from voxelrt.runtime.cpu_device import array_of
from voxelrt.runtime.cpu_windows import CpuWindows
from voxelrt.runtime.device import Array, Buffer, Stream
from voxelrt.runtime.window_job import Job, Sums, Window
from voxelrt.tiling.stitcher import Plane, Stitcher
from voxelrt.volume import Volume

Floats = NDArray[np.float32]
ENTROPY, DISAGREEMENT, VARIANCE = "entropy", "disagreement", "variance"
MAPS = (ENTROPY, DISAGREEMENT, VARIANCE)


@dataclass(eq=False)
class Observer:
    """What is wanted beside the labels of the last stage.

    Parameters
    ----------
    maps : of ``MAPS``: the entropy of the probabilities as a share of the largest possible; the variance of the
        probabilities among folds; the same among mirrored forms. The mean over classes.
    probabilities : the file to write.
    found : map -> (Z, Y, X) float32 on the cropped grid, once the case has run.
    """

    maps: tuple[str, ...] = ()
    file: ProbabilityFile | None = None
    found: dict[str, Floats] = field(default_factory=dict)

    def extra_channels(self) -> int:
        """How many more sums the windows need."""
        return (DISAGREEMENT in self.maps) + (VARIANCE in self.maps)

    def bytes_for(self, case: Case) -> int:
        """What it holds beside the sums of windows."""
        return 4 * case.cropped_voxels * len(self.maps) + 24 * case.settings.outputs * ROWS * case.cropped_zyx[2]

    def refuse(
        self, settings: NnunetSettings, mirrored: bool, source_rounding: bool, model: str = "this model"
    ) -> None:
        """Refuse what a model cannot tell. Raises UsageError."""
        if source_rounding:
            raise UsageError("source_rounding is for comparing labels; probabilities and maps are made without it")
        if DISAGREEMENT in self.maps and len(settings.folds) < 2:
            raise UsageError(f"disagreement is among folds, and {model} runs with one, {settings.folds[0]}")
        if VARIANCE in self.maps and not (mirrored and settings.mirror_axes):
            raise UsageError(f"variance is among mirrored forms, and {model} runs without")

    def begin(self, case: Case, mirrored: bool, source_rounding: bool) -> None:
        """Refuse what the model cannot tell; make room. Raises UsageError."""
        self.refuse(case.settings, mirrored, source_rounding)
        self.found = {name: np.zeros(case.cropped_zyx, np.float32) for name in self.maps}

    def maps_on_study(self, case: Case) -> dict[str, Volume]:
        """The maps on the study's own grid; 0 outside the crop, where the answer is background for sure."""
        made = {}
        for name, cropped in self.found.items():
            whole = np.zeros(case.size_zyx, np.float32)
            whole[case.box] = cropped
            array: NDArray[Any] = whole.transpose(case.settings.transpose_backward)[None]
            if case.turn is not None:
                array = case.turn.undo_array(array)
            made[name] = case.volume.with_array(np.ascontiguousarray(array))
        return made


class ObservedWindows(CpuWindows):
    """As CpuWindows, with an observer.

    Parameters
    ----------
    plan, cancel : the network.
    case : whose windows they are.
    observer : what is wanted.
    """

    def __init__(self, plan: Plan, cancel: CancelFlag | None, case: Case, observer: Observer) -> None:
        self.settings, self._observer, self._case = case.settings, observer, case
        self._folds = DISAGREEMENT in observer.maps
        self._forms = VARIANCE in observer.maps
        self._place = _Forms()
        super().__init__(_network(plan, case.settings, cancel) if self._folds else _plain(plan, cancel))

    @property
    def row_channels(self) -> int:
        """Of a window's answer."""
        return self.settings.outputs + self._folds

    def accumulate(self, logits: Buffer, window: Window, sums: Sums, stream: Stream) -> None:
        if not self._forms:
            super().accumulate(logits, window, sums, stream)
            return
        row = array_of(logits)[0]
        whole = row[:, None] if row.ndim == 3 else row
        turned = np.flip(whole, tuple(axis + 1 for axis in window.mirrored))
        chances = probabilities(turned[: self.settings.outputs], self.settings.regions)
        spread = self._place.add(chances, window.share)
        joined = np.concatenate([turned, spread[None]])
        _stitcher(sums).add(joined, window.start, window.share)

    def decide(self, sums: Sums, job: Job, z: int, into: Buffer, stream: Stream) -> None:
        del stream
        how, count = job.decision, self.settings.outputs
        low, high, weight = how.reads(z)
        _, rows, columns = how.inside
        planes = [_stitcher(sums).plane(plane) for plane in (low, high)]
        below, above = ((total[:, rows, columns], counts[rows, columns]) for total, counts in planes)
        labels = array_of(into)[0]
        resample_argmax(
            (below[0][:count], below[1]),
            (above[0][:count], above[1]),
            weight,
            how.rows,
            how.columns,
            how.values,
            regions=how.regions,
            out=labels,
        )
        for first in range(0, labels.shape[0], ROWS):
            part = slice(first, min(first + ROWS, labels.shape[0]))
            values = resampled(below, above, weight, _some(how.rows, part), how.columns)
            self._look(z, part, values, labels[part], job)

    def _look(self, z: int, rows: slice, values: Floats, labels: Array, job: Job) -> None:
        observer, count = self._observer, self.settings.outputs
        found, regions = observer.found, self.settings.regions
        if DISAGREEMENT in found:
            found[DISAGREEMENT][z, rows] = values[count]
        if VARIANCE in found:
            found[VARIANCE][z, rows] = values[-1]
        if ENTROPY not in found and observer.file is None:
            return
        chances = probabilities(values[:count], regions)
        if ENTROPY in found:
            found[ENTROPY][z, rows] = entropy(chances, regions)
        if observer.file is not None:
            if not regions:
                agree_with(chances, labels, job.decision.values)
            write_rows(observer.file, self._case, z, rows, chances)


class _Forms:
    """The variance of the mirrored forms of one place, which come one after the other."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, np.zeros(0, np.float32), np.zeros(0, np.float32)

    def add(self, chances: Floats, share: float) -> Floats:
        """Zeros until the last form is there; then the variance over its share, so that the weighted sum is right."""
        if self._count == 0:
            self._sum, self._squares = chances.copy(), chances**2
        else:
            self._sum += chances
            self._squares += chances**2
        self._count += 1
        forms = round(1 / share)
        if self._count < forms:
            return np.zeros(chances.shape[1:], np.float32)
        self._count = 0
        mean = self._sum / forms
        made: Floats = np.maximum(self._squares / forms - mean**2, 0).mean(axis=0) / np.float32(share)
        return made


def probabilities(logits: Floats, regions: bool) -> Floats:
    """Of logits (C, ...): a softmax, or of regions a sigmoid each."""
    if regions:
        made: Floats = (0.5 * (1 + np.tanh(logits * np.float32(0.5)))).astype(np.float32)
        return made
    raised = np.exp(logits - logits.max(axis=0, keepdims=True))
    raised /= raised.sum(axis=0, keepdims=True)
    return np.asarray(raised, np.float32)


def entropy(chances: Floats, regions: bool) -> Floats:
    """Of probabilities (C, ...), as a share of the largest possible; of regions the mean of each one's own."""
    tiny = np.float32(1e-12)
    if regions:
        each = -(chances * np.log(chances + tiny) + (1 - chances) * np.log(1 - chances + tiny))
        made: Floats = each.mean(axis=0) / np.float32(np.log(2))
    else:
        made = -(chances * np.log(chances + tiny)).sum(axis=0) / np.float32(np.log(max(2, len(chances))))
    return np.clip(made, 0, 1)


def agree_with(chances: Floats, labels: Array, values: NDArray[np.int32]) -> None:
    """Where rounding made another class as probable as the label's, the label's is one last place more."""
    place = np.zeros(int(values.max()) + 1, np.int64)
    place[values] = np.arange(len(values))
    of_label = place[labels][None]
    own = np.take_along_axis(chances, of_label, 0)
    top = chances.max(axis=0, keepdims=True)
    tied = np.argmax(chances, axis=0)[None] != of_label
    np.put_along_axis(chances, of_label, np.where(tied, np.nextafter(top, np.float32(2)), own), 0)


def resampled(lower: Plane, upper: Plane, weight: float, rows: Taps, columns: Taps) -> Floats:
    """Means of sums (C, Y, X) over counts, between two planes, at rows and columns: (C, rows, columns) float32."""
    total: Floats | None = None
    for plane, share in ((lower, 1 - weight), (upper, weight)):
        if share == 0:
            continue
        for tap, part in ((0, 1 - rows.weights), (1, rows.weights)):
            if not part.any():
                continue
            at = rows.at[tap]
            mean = plane[0][:, at] / plane[1][at]
            mean *= (np.float32(share) * part.astype(np.float32))[:, None]
            total = mean if total is None else total + mean
    assert total is not None
    first = total[:, :, columns.at[0]]
    if not columns.weights.any():
        return np.asarray(first, np.float32)
    made: Floats = first + (total[:, :, columns.at[1]] - first) * columns.weights
    return made


def write_rows(file: ProbabilityFile, case: Case, z: int, rows: slice, chances: Floats) -> None:
    """Rows of the cropped grid as whole rows of the volume; what lies around the crop is background, surely."""
    box, size, outside = case.box, case.size_zyx, _outside(case.settings)
    if z == 0 and rows.start == 0:
        _fill(file, range(box[0].start), size, outside)
    plane = box[0].start + z
    if rows.start == 0:
        _fill_rows(file, plane, 0, box[1].start, size, outside)
    whole = np.broadcast_to(outside[:, None, None], (len(outside), chances.shape[1], size[2])).copy()
    whole[:, :, box[2]] = chances
    file.write(plane, box[1].start + rows.start, whole)
    if rows.stop == box[1].stop - box[1].start:
        _fill_rows(file, plane, box[1].stop, size[1], size, outside)
        if plane == box[0].stop - 1:
            _fill(file, range(box[0].stop, size[0]), size, outside)


def _outside(settings: NnunetSettings) -> Floats:
    made = np.zeros(settings.outputs, np.float32)
    if not settings.regions:
        made[0] = 1
    return made


def _fill(file: ProbabilityFile, planes: range, size: tuple[int, int, int], outside: Floats) -> None:
    for plane in planes:
        _fill_rows(file, plane, 0, size[1], size, outside)


def _fill_rows(
    file: ProbabilityFile, plane: int, first: int, end: int, size: tuple[int, int, int], outside: Floats
) -> None:
    for row in range(first, end, ROWS):
        count = min(ROWS, end - row)
        file.write(plane, row, np.broadcast_to(outside[:, None, None], (len(outside), count, size[2])))


def _some(taps: Taps, part: slice) -> Taps:
    return Taps(taps.at[:, part], taps.weights[part])


def _plain(plan: Plan, cancel: CancelFlag | None) -> Callable[[Array, Array], None]:
    def network(inputs: Array, outputs: Array) -> None:
        plan.run({INPUT: inputs}, {OUTPUT: outputs}, cancel=cancel)

    return network


def _network(plan: Plan, settings: NnunetSettings, cancel: CancelFlag | None) -> Callable[[Array, Array], None]:
    """The mean logits of the folds, and behind them the variance of their probabilities, the mean over classes."""
    names = fold_outputs(len(settings.folds))

    def network(inputs: Array, outputs: Array) -> None:
        answers: dict[str, Any] = plan.run({INPUT: inputs}, taps=names, cancel=cancel)
        outputs[:, :-1] = answers[OUTPUT]
        for row in range(len(inputs)):
            chances = np.stack([probabilities(answers[name][row], settings.regions) for name in names])
            outputs[row, -1] = chances.var(axis=0).mean(axis=0)

    return network


def _stitcher(sums: Sums) -> Stitcher:
    if not isinstance(sums, Stitcher):
        raise TypeError(f"a {type(sums).__name__} is no sums of the CPU")
    return sums
