"""Options that change the answer: off by default, they leave out what they say, and tell what it cost."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest

import voxelrt as vx
from tests.pipeline.test_nnunet_run import FOLDERS
from voxelrt.case import prepare_case
from voxelrt.errors import UsageError
from voxelrt.models.nnunet_settings import settings_from_json
from voxelrt.pipeline import predict
from voxelrt.plan.plan import Plan
from voxelrt.shortcuts import Shortcuts, leave_out
from voxelrt.volume import Volume
from voxelrt.window_plan import make_job


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    root = tmp_path_factory.mktemp("nnunet")
    with tarfile.open(FOLDERS) as archive:
        archive.extractall(root, filter="data")
    return vx.compile(vx.load(root / "Dataset801_Plain", folds=("0",)), tune="off", verify=False)


def _body() -> Volume:
    """A bright body at one end of a long, dark, not empty volume."""
    rng = np.random.default_rng(2)
    array = rng.random((1, 30, 34, 130)).astype(np.float32)
    array[:, 8:24, 8:26, 6:40] += 100 + 40 * rng.random((1, 16, 18, 34)).astype(np.float32)
    return Volume(array + 1, np.eye(4))


def _job(plan: Plan, volume: Volume, mirroring: bool = True):  # type: ignore[no-untyped-def]
    case = prepare_case(volume, settings_from_json(plan.info.model_settings))
    tell = lambda stage, done, total: None  # noqa: E731
    return make_job(plan, case, tell, mirroring=mirroring, step=None, memory=None, say=None)


def test_windows_of_air_are_left_out_and_no_others(plan: Plan) -> None:
    job = _job(plan, _body())
    before = {one.start for one in job.windows}
    count = leave_out(job, Shortcuts(skip_air=True), None)
    after = {one.start for one in job.windows}
    assert count == len(before - after) > 0
    ends = np.array(job.weights.shape)
    body = np.zeros(job.data.shape[1:], bool)
    body[job.decision.inside] = (job.data[0] > job.data[0].min() + 0.3 * np.ptp(job.data[0]))[job.decision.inside]
    for start in before - after:
        box = tuple(slice(at, at + size) for at, size in zip(start, ends, strict=True))
        assert body[box].mean() <= 0.005


def test_the_coarse_pass_keeps_what_is_near(plan: Plan) -> None:
    job = _job(plan, _body())
    found = np.zeros(job.labels.shape, np.uint8)
    found[15, 15, 20] = 1
    before = len({one.start for one in job.windows})
    leave_out(job, Shortcuts(coarse_first=True), lambda: found)
    kept = {one.start for one in job.windows}
    assert 0 < len(kept) < before
    nothing = _job(plan, _body())
    leave_out(nothing, Shortcuts(coarse_first=True), lambda: np.zeros_like(found))
    assert len(nothing.windows) == 1  # the scheduler needs one


def test_the_cost_is_told_and_is_nothing_by_default(plan: Plan) -> None:
    study = _body()
    plain = predict(plan, study, report_cost=True)
    cost = plain.details["cost"]
    assert cost["equal"] == 1
    assert all(value == 1 for value in cost["dice"].values())
    quick = predict(plan, study, skip_air=True, mirroring=False, step=1.0, report_cost=True)
    assert 0 <= quick.details["cost"]["equal"] <= 1
    differ = (np.asarray(quick.labels.array) != np.asarray(plain.labels.array)).sum()
    union = ((np.asarray(quick.labels.array) != 0) | (np.asarray(plain.labels.array) != 0)).sum()
    assert quick.details["cost"]["equal"] == pytest.approx(1 - differ / union)
    assert "full run" in quick.lines[-1]
    far = np.asarray(predict(plan, study, skip_air=True).labels.array)[0, :, :, 120:]
    assert not far.any()  # in no window: background


def test_shortcuts_are_for_labels_alone(plan: Plan) -> None:
    with pytest.raises(UsageError, match="labels alone"):
        predict(plan, _body(), skip_air=True, maps={"entropy": None})
