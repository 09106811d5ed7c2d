"""Session: order, names, failures, resuming, stopping, bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import voxelrt as vx
from tests.phantoms import octants
from tests.pipeline.counting import counting, identity, save
from voxelrt.backends.native import CancelFlag
from voxelrt.errors import CancelledError, InputError, OutputError, TimeLimitError, UsageError
from voxelrt.io import read_image, write_nifti
from voxelrt.plan.plan import Plan
from voxelrt.runtime.session import IN_FLIGHT, Session
from voxelrt.volume import Volume

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return vx.compile(save(tmp_path_factory.mktemp("net"), counting((6, 8, 10))))


@pytest.fixture
def studies(tmp_path: Path) -> list[Path]:
    """Five different studies, under names that could be those of patients."""
    made = []
    for number in range(5):
        made.append(tmp_path / f"doe_{number}.nii.gz")
        write_nifti(Volume(np.roll(octants(), number, axis=2), AFFINE), made[-1])
    return made


def test_results_come_in_order_under_numbers(plan: Plan, studies: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "masks"
    with Session(plan, threads=1) as session:
        assert session.plan.threads == 1
        results = list(session.map(studies, out, pictures=True))
    for number, result in enumerate(results):
        np.testing.assert_array_equal(result.labels.array[0], np.roll(octants(), number, axis=2))
        assert result.out == out / f"study-{number + 1:04d}.nii.gz"
    names = sorted(p.name for p in out.iterdir())
    assert names == sorted(
        [f"study-{n:04d}.{kind}" for n in range(1, 6) for kind in ("nii.gz", "png")] + ["voxelrt-session.json"]
    )
    record = (out / "voxelrt-session.json").read_text()
    assert "doe" not in record
    assert str(tmp_path) not in record


def test_names_of_inputs_only_if_asked_for(plan: Plan, studies: list[Path], tmp_path: Path) -> None:
    with Session(plan) as session:
        (result,) = session.map(studies[:1], tmp_path / "masks", names="input")
        assert result.out == tmp_path / "masks" / "doe_0.nii.gz"
        twice = list(session.map([studies[1], studies[1]], tmp_path / "twice", names="input"))
    assert twice[0].error is None
    assert isinstance(twice[1].error, UsageError)


def test_a_study_that_fails_does_not_stop_the_rest(plan: Plan, studies: list[Path], tmp_path: Path) -> None:
    studies[1].write_bytes(b"no image")
    studies[3].unlink()
    with Session(plan) as session:
        results = list(session.map(studies, tmp_path / "masks"))
        assert [r.error is None for r in results] == [True, False, True, False, True]
        with pytest.raises(InputError):
            _ = results[1].labels
        with pytest.raises(InputError):
            session.submit(studies[1]).result()
        np.testing.assert_array_equal(session.submit(studies[0]).result().labels.array[0], octants())
    assert not (tmp_path / "masks" / "study-0002.nii.gz").exists()


def test_resume_keeps_what_is_the_same(plan: Plan, studies: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "masks"
    with Session(plan) as session:
        list(session.map(studies[:3], out))
        first = (out / "study-0001.nii.gz").stat().st_mtime_ns
        again = list(session.map(studies, out, resume=True))
        assert [r.skipped for r in again] == [True] * 3 + [False] * 2
        np.testing.assert_array_equal(again[0].labels.array[0], octants())
        assert (out / "study-0001.nii.gz").stat().st_mtime_ns == first

        there = list(session.map(studies[:1], out))
        assert isinstance(there[0].error, OutputError)
        assert "--resume" in str(there[0].error)

        # The list has changed: nobody may get another's mask.
        other = list(session.map(studies[1:], out, resume=True))
        assert all("another study" in str(r.error) for r in other)
        assert all(r.error is None for r in session.map(studies[1:], out, overwrite=True))
        with pytest.raises(UsageError):
            session.map(studies, out, resume=True, overwrite=True)


def test_another_plan_does_not_keep_the_masks_of_this_one(plan: Plan, studies: list[Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    output = 'kind = "labels"\n[[output.labels]]\nvalue = 1\nname = "one"\n'
    other = vx.compile(save(tmp_path / "other", identity((6, 8, 10)), output=output))
    with Session(plan) as session, Session(other) as second:
        list(session.map(studies[:1], tmp_path / "masks"))
        (result,) = second.map(studies[:1], tmp_path / "masks", resume=True)
    assert "another plan" in str(result.error)


def test_studies_are_taken_only_as_results_are(plan: Plan) -> None:
    taken = 0

    def endless() -> Iterator[Volume]:
        nonlocal taken
        while True:
            taken += 1
            yield Volume(octants(), AFFINE)

    with Session(plan) as session:
        results = session.map(endless())
        for _ in range(3):
            next(results)
    assert taken <= 3 + IN_FLIGHT


def test_leaving_by_ctrl_c_stops_what_runs_and_leaves_no_half_file(
    plan: Plan, studies: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Event()
    flags: list[CancelFlag] = []

    def endless(self: Plan, inputs: object, *, cancel: CancelFlag, **options: object) -> None:
        flags.append(cancel)
        started.set()
        while not cancel.is_set:
            threading.Event().wait(0.005)
        raise CancelledError("stopped between two steps")

    monkeypatch.setattr(Plan, "run", endless)
    with pytest.raises(KeyboardInterrupt), Session(plan) as session:
        futures = [session.submit(s, tmp_path / f"out-{n}.nii.gz") for n, s in enumerate(studies)]
        started.wait(10)
        raise KeyboardInterrupt
    assert all(isinstance(f.exception(0), CancelledError) for f in futures)
    assert not list(tmp_path.glob("*out*"))


def test_a_time_limit_gives_up_its_study_and_no_other(
    plan: Plan, studies: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="time_limit -1"):
        Session(plan, time_limit=-1)
    with pytest.raises(TimeLimitError, match="within its time limit of 1e-09 s"):
        vx.predict(plan, studies[0], tmp_path / "out.nii", time_limit=1e-9)
    now = time.monotonic()
    clock = iter([now, now + 99] + [now] * 99)  # of the first study: when it begins, and after its first step
    monkeypatch.setattr("voxelrt.pipeline.time.monotonic", lambda: next(clock))
    with Session(plan, time_limit=9) as session:
        results = list(session.map(studies[:2], tmp_path / "masks"))
    assert isinstance(results[0].error, TimeLimitError)
    assert results[1].error is None
    assert sorted(p.name for p in (tmp_path / "masks").glob("*.nii.gz")) == ["study-0002.nii.gz"]


def test_a_plan_that_cannot_be_used_is_refused_at_once(tmp_path: Path) -> None:
    path = save(tmp_path, counting((6, 8, 10)))
    path.with_suffix(".toml").write_text(path.with_suffix(".toml").read_text().replace('"scores"', '"other"'))
    with pytest.raises(Exception, match="reads the output 'other'"):
        Session(vx.compile(path))


def test_the_written_mask_is_on_the_studys_grid(plan: Plan, studies: list[Path], tmp_path: Path) -> None:
    with Session(plan) as session:
        session.submit(studies[0], tmp_path / "out.nii").result()
    np.testing.assert_array_equal(read_image(tmp_path / "out.nii").volume.affine, read_image(studies[0]).volume.affine)
