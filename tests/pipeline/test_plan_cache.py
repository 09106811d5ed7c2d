"""Plans kept in the cache folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.counting import counting, save
from voxelrt.plan.plan import Plan
from voxelrt.plan.tuning import Tuner
from voxelrt.runtime.plan_cache import cached_plan, plans_folder


def test_a_plan_is_compiled_once_and_a_damaged_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VOXELRT_CACHE", str(tmp_path / "cache"))
    network, told = save(tmp_path, counting((6, 6, 6))), list[str]()
    cached_plan(network, progress=told.append)
    (kept,) = plans_folder().iterdir()
    written = kept.stat().st_mtime_ns
    assert any("compiling" in line for line in told)
    told.clear()
    cached_plan(network, progress=told.append)
    assert not told
    assert not caplog.records
    kept.write_bytes(kept.read_bytes()[:-100])
    cached_plan(network, progress=told.append)
    assert "compiling anew" in told[0]
    assert kept.stat().st_mtime_ns > written


def test_a_kept_plan_tells_that_it_was_compiled_on_a_busy_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VOXELRT_CACHE", str(tmp_path / "cache"))
    network = save(tmp_path, counting((6, 6, 6)))
    monkeypatch.setattr(Tuner, "doubts", "others used this machine")
    cached_plan(network)
    caplog.clear()
    assert isinstance(cached_plan(network), Plan)
    assert "compiled while others used this machine" in caplog.text
