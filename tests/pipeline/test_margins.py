"""Where labels differ from nnU-Net's half-precision predictor, the two best classes lie within its rounding.

nnU-Net keeps the sums of logits and of weights in half precision, which rounds by 2⁻¹¹ of a sum, or by 2⁻²⁵ where that
is more. Each of the w windows over a voxel rounds both sums once, and the quotient, the resampled logit and the folds'
sum round too: with N, the sum of weights, a logit of at most L is off by at most
(w + 3) · ((2⁻¹¹ + 2⁻²⁵/N) · L · 2 + 2⁻²⁵/N), two classes' difference by twice that. In a corner that one window sees N
is small, and the bound large: that is where nnU-Net's own labels waver.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import voxelrt as vx
from tests.pipeline import test_nnunet_meaning as meaning
from tests.pipeline import test_nnunet_run as plain
from voxelrt import observed
from voxelrt.kernels.common.kernel import Array
from voxelrt.plan.plan import Plan

HALF, LEAST = 2.0**-11, 2.0**-25
WINDOWS = 8 + 3  # at a step of one half eight windows overlap, and three roundings follow


def _bound(job: Any, largest: float) -> Array:
    """Of each voxel of the labels, from the sums of weights that it is read from."""
    counts = np.zeros(job.data.shape[1:], np.float64)
    for start in {one.start for one in job.windows}:
        counts[tuple(slice(at, at + n) for at, n in zip(start, job.weights.shape, strict=True))] += job.weights
    small = LEAST / counts
    bound = 2 * WINDOWS * (2 * (HALF + small) * largest + small)[job.decision.inside]
    for axis, taps in enumerate((job.decision.along, job.decision.rows, job.decision.columns)):
        bound = np.maximum(np.take(bound, taps.at[0], axis), np.take(bound, taps.at[1], axis))
    return bound


def _margins(plan: Plan, study: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Array, Array]:
    """Labels, and how far the two largest logits of each voxel are apart as a share of the bound."""
    largest = [0.0]
    found: dict[str, Array] = {}
    jobs: list[Any] = []

    def look(self: Any, z: int, rows: slice, values: Array, labels: Array, job: Any) -> None:
        count = self.settings.outputs
        jobs.append(job)
        top = np.sort(values[:count], axis=0)[-2:]
        found.setdefault("margin", np.zeros(job.labels.shape, np.float32))[z, rows] = top[1] - top[0]
        largest[0] = max(largest[0], float(np.abs(values[:count]).max()))

    monkeypatch.setattr(observed.ObservedWindows, "_look", look)
    cases: list[Any] = []
    begin = observed.Observer.begin

    def remember(self: Any, case: Any, *rest: Any) -> None:
        cases.append(case)
        begin(self, case, *rest)

    monkeypatch.setattr(observed.Observer, "begin", remember)
    result = vx.predict(plan, study, maps={"entropy": None})
    case = cases[-1]
    whole = np.full(case.size_zyx, np.inf, np.float32)
    whole[case.box] = found["margin"] / _bound(jobs[-1], largest[0])
    margin: Array = whole.transpose(case.settings.transpose_backward)
    if case.turn is not None:
        margin = np.asarray(case.turn.undo_array(margin))
    return np.asarray(result.labels.array[0]), margin


@pytest.mark.parametrize("name", ["anisotropic", "slices", "two-classes-oblique", "120-classes", "order-5"])
def test_differing_voxels_are_within_the_rounding(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = plain.FOLDERS if name in plain.MODELS else meaning.ARCHIVE
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    if name in plain.MODELS:
        plan = vx.compile(tmp_path / plain.MODELS[name], tune="off", verify=False)
        study = plain._study(name, plan, tmp_path)
        with np.load(plain.CASES) as stored:
            half, wide = stored[f"{name}.half"], stored[f"{name}.float32"]
    else:
        plan = meaning._plan(tmp_path / name)
        study = meaning._study(tmp_path / name, plan)
        half, wide = meaning._stored(tmp_path / name, "half"), meaning._stored(tmp_path / name, "float32")
    ours, margin = _margins(plan, study, monkeypatch)
    for reference in (half.transpose(2, 1, 0), wide.transpose(2, 1, 0)):
        differ = ours != reference
        assert not differ.any() or float(margin[differ].max()) <= 1
    differ = ours != half.transpose(2, 1, 0)
    assert differ.any()  # else there is nothing that this test looks at
    assert float(np.median(margin)) > 1  # of most voxels they are further apart
