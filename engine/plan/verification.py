"""How far a plan is from a peer on given inputs, output by output: what ``voxelrt verify`` shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.plan.parity import LABEL_AGREEMENT, label_agreement, labels_of

if TYPE_CHECKING:
    from voxelrt.plan.plan import Plan

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Comparison:
    """One output on one input.

    Parameters
    ----------
    maximum : the largest absolute difference, at ``worst``, an index into the output.
    relative : ‖ours − theirs‖ / ‖theirs‖, in float64.
    agreement : share of equal labels over the union of foregrounds, where the output is a segmentation.
    asked : the least agreement that the plan's precision allows.
    """

    input: str
    output: str
    maximum: float
    relative: float
    worst: tuple[int, ...]
    agreement: float | None = None
    problem: str = ""
    asked: float = LABEL_AGREEMENT["fp32"]

    def passes(self, tolerance: float) -> bool:
        """Whether the difference is within a tolerance of ``relative`` and labels agree as parity asks."""
        return not self.problem and self.relative <= tolerance and self._labels_agree()

    def _labels_agree(self) -> bool:
        return self.agreement is None or self.agreement >= self.asked


def verify(
    plan: Plan,
    peer: Callable[[Arrays], Mapping[str, Array]],
    inputs: Mapping[str, Arrays],
    segmentation: tuple[float | None, int] | None = None,
    precision: str = "fp32",
) -> list[Comparison]:
    """Run plan and peer on the same inputs.

    Parameters
    ----------
    plan : of these inputs' shapes.
    peer : inputs by name -> outputs by name.
    inputs : a name for people -> the arrays of one run.
    segmentation : threshold and channel axis, where the first output is one.
    precision : the plan's, which says how far labels must agree.

    Returns
    -------
    A row for every input and output.
    """
    rows = []
    for label, arrays in inputs.items():
        expected, found = peer(arrays), plan.run(arrays)
        for index, (name, reference) in enumerate(expected.items()):
            labels = segmentation if index == 0 else None
            rows.append(_compare(label, name, np.asarray(found[name]), np.asarray(reference), labels))
            rows[-1] = replace(rows[-1], asked=LABEL_AGREEMENT[precision])
    return rows


def _compare(
    label: str, name: str, found: Array, expected: Array, segmentation: tuple[float | None, int] | None
) -> Comparison:
    if found.shape != expected.shape:
        return Comparison(label, name, np.inf, np.inf, (), None, f"shape {found.shape}, not {expected.shape}")
    if found.dtype.kind not in "biuf":
        equal = bool(np.array_equal(found, expected))
        return Comparison(label, name, 0.0, 0.0, (), None, "" if equal else "the values differ")
    a, b = found.astype(np.float64), expected.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(a - b))
    problem = "" if np.isfinite(error).all() else "NaN or infinity on one side only"
    worst = np.unravel_index(int(np.argmax(np.nan_to_num(error, nan=np.inf))), error.shape) if error.size else ()
    norm = float(np.linalg.norm(b[np.isfinite(b)]))
    difference = float(np.linalg.norm(error))
    relative = difference / norm if norm else (0.0 if difference == 0 else np.inf)
    agreement = None
    if segmentation is not None:
        threshold, axis = segmentation
        ours, theirs = labels_of(found, threshold, axis), labels_of(expected, threshold, axis)
        agreement = float(label_agreement(ours, theirs)["agreement"])
    at = tuple(int(i) for i in worst)
    return Comparison(label, name, float(error.max(initial=0.0)), relative, at, agreement, problem)


def passed(rows: Sequence[Comparison], tolerance: float) -> bool:
    """Whether every row is within the tolerance."""
    return all(row.passes(tolerance) for row in rows)
