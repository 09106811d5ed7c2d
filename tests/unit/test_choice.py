"""Which algorithm a convolution gets: the model, the clock, and the limit of packed weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.graphs import model_of
from voxelrt import compile
from voxelrt.errors import UsageError
from voxelrt.kernels.conv3d.algorithm import Algorithm, Problem, algorithms
from voxelrt.memory_size import parse_size
from voxelrt.plan import tuning, tuning_cache
from voxelrt.plan.choice import PRICE, Choice
from voxelrt.plan.race import Outcome, Watch

LARGE = Problem(1, 64, 64, (64, 64, 64), (3, 3, 3), (1, 1, 1))
SMALL = Problem(1, 64, 64, (2, 2, 2), (3, 3, 3), (1, 1, 1))


def conv_pair(channels: int, size: int) -> ir.Model:
    """Two 3 x 3 x 3 convolutions."""
    rng = np.random.default_rng(0)
    dims = f"1,{channels},{size},{size},{size}"
    weights = rng.normal(0, 0.05, (2, channels, channels, 3, 3, 3)).astype(np.float32)
    return model_of(
        f"(float[{dims}] x) => (float[{dims}] y)"
        " { a = Conv<pads=[1,1,1,1,1,1]>(x, v) b = Relu(a) y = Conv<pads=[1,1,1,1,1,1]>(b, w) }",
        v=weights[0],
        w=weights[1],
    )


def test_the_model_prefers_fewer_products_where_there_are_many() -> None:
    best = algorithms(LARGE)[0]
    assert best.kernel == "conv3d.winograd"
    assert best.params["tile"] == (4, 4, 4)
    assert str(best).startswith("Winograd F(4,4,4)")


@pytest.mark.parametrize(
    "change",
    [{"dilation": (2, 1, 1)}, {"groups": 2}, {"kernel": (5, 5, 5)}, {"kernel": (3, 3, 1)}, {"stride": (3, 3, 3)}],
)
def test_what_winograd_does_not_compute_stays_direct(change: dict[str, object]) -> None:
    problem = replace(LARGE, **change)  # type: ignore[arg-type]
    assert [a.kernel for a in algorithms(problem)] == ["conv3d.direct"]


def test_a_weight_is_packed_once_for_two_shapes_where_that_costs_little() -> None:
    choice = Choice()
    other = replace(LARGE, size=(48, 64, 64))
    one, two = choice.pick("w", LARGE, algorithms(LARGE)), choice.pick("w", other, algorithms(other))
    assert one.params["tile"] == two.params["tile"]
    assert choice.weight_bytes == one.weight_bytes


def test_the_limit_of_packed_weights_is_kept_and_costs_the_least() -> None:
    free = Choice()
    for name, problem in (("a", LARGE), ("b", SMALL)):
        free.pick(name, problem, algorithms(problem))
    assert not free.shrink()
    limit = free.weight_bytes * 2 // 3
    choice = Choice(weights_memory=limit)
    for name, problem in (("a", LARGE), ("b", SMALL)):
        choice.pick(name, problem, algorithms(problem))
    assert choice.shrink()
    assert choice.weight_bytes <= limit
    assert choice.pick("a", LARGE, ()).kernel == "conv3d.winograd"


def test_memory_is_saved_where_it_costs_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, small = (Algorithm("conv3d.winograd", {"tile": (t, t, t)}, 1e6, size) for t, size in ((4, 100), (2, 50)))
    for lost, free, taken in (
        (0.5 * PRICE, 0, small),
        (2 * PRICE, 0, fast),
        (0.5 * PRICE, 100, fast),  # all of it fits where memory has no price
        (0.0, 100, small),
    ):
        monkeypatch.setattr("voxelrt.plan.choice.FREE", free)
        choice = Choice()
        choice.pick("w", LARGE, [fast, replace(small, cycles=1e6 + lost * 50)])
        assert choice.shrink() == (taken is small)
        assert choice.pick("w", LARGE, ()).params == taken.params


def test_a_large_volume_is_timed_in_part() -> None:
    part = tuning._part(replace(LARGE, size=(128, 128, 128)))
    assert part == replace(LARGE, size=(32, 128, 128))
    assert tuning._part(LARGE).size[0] in (32, 64)
    flat = replace(LARGE, size=(1, 2048, 2048), kernel=(1, 3, 3))
    assert tuning._part(flat) == flat


def test_a_limit_below_the_networks_own_weights_is_refused() -> None:
    choice = Choice(weights_memory=1000)
    choice.pick("a", LARGE, algorithms(LARGE))
    with pytest.raises(UsageError, match="weights_memory is 1000 bytes"):
        choice.shrink()


def test_a_plan_keeps_to_the_limit() -> None:
    model = conv_pair(channels=32, size=24)
    free = compile(model, fallback="error", tune="off", verify=False)
    tight = compile(model, fallback="error", tune="off", weights_memory="256KiB")
    assert "conv3d.winograd" in free.describe()
    assert "conv3d.winograd" not in tight.describe()


class _Clock:
    def __init__(self, *, sure: bool = True, worth: bool = True) -> None:
        self.calls, self.sure, self.worth = 0, sure, worth

    def race(self, problem: Problem, rivals: Sequence[Algorithm]) -> Outcome:
        self.calls += 1
        return Outcome([float(i) for i in range(len(rivals), 0, -1)], self.sure, worth=self.worth)


def test_the_clock_decides_and_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VOXELRT_CACHE", str(tmp_path))
    clock = _Clock()
    monkeypatch.setattr(tuning.Tuner, "_race", lambda self, problem, rivals: clock.race(problem, rivals))
    said: list[str] = []
    found = algorithms(LARGE)
    first = tuning.Tuner("fast", 2, said.append)(LARGE, found)
    again = tuning.Tuner("fast", 2)(LARGE, found)
    assert clock.calls == 1
    assert [a.cycles for a in first] == [a.cycles for a in again]
    assert first[0].params != found[0].params  # the model's worst rival was the fastest
    assert "64 → 64 channels at 64×64×64" in said[0]
    (kept,) = (tmp_path / "tuning").iterdir()
    assert tuning_cache.described(kept).startswith("1 convolutions on ")
    assert tuning_cache.rows_of(kept)[0][0] == "64 → 64 channels at 64×64×64, 3×3×3 taps"
    whole = json.loads(kept.read_text())
    for damaged in ({"x": "damaged"}, {**whole, "format": 1}, {**whole, "timings": {"k": {"cycles": [1.0]}}}, [], 7):
        kept.write_text(json.dumps(damaged))
        assert tuning_cache.read_timings(kept) == {}
        assert "damaged" in tuning_cache.described(kept)
    tuning.Tuner("fast", 2)(LARGE, found)
    assert clock.calls == 2


def test_what_a_busy_machine_measured_is_used_once_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VOXELRT_CACHE", str(tmp_path))
    monkeypatch.setattr(tuning, "WORTH", 0.0)
    clock = _Clock(sure=False)
    monkeypatch.setattr(tuning.Tuner, "_race", lambda self, problem, rivals: clock.race(problem, rivals))
    model = conv_pair(channels=16, size=16)
    plan = compile(model, verify=False)
    assert clock.calls == 1  # both convolutions are the same
    assert not (tmp_path / "tuning").exists()
    (said,) = caplog.records
    assert "1 of 1 convolutions could not be timed well" in said.getMessage()
    assert "tuning: 1 of 1 convolutions" in plan.describe()
    clock.sure = True
    assert "tuning:" not in compile(model, verify=False).describe()
    assert clock.calls == 2
    compile(model, verify=False)
    assert clock.calls == 2
    assert len(caplog.records) == 1


def test_on_a_busy_machine_the_model_decides_and_timing_has_an_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VOXELRT_CACHE", str(tmp_path))
    clock = _Clock(sure=False, worth=False)
    monkeypatch.setattr(tuning.Tuner, "_race", lambda self, problem, rivals: clock.race(problem, rivals))
    now = iter(range(0, 1000, 5))
    tuner = tuning.Tuner("fast", 2, watch=Watch(lambda: float(next(now)), lambda: 0.0))
    for size in range(64, 69):  # a race takes five of nine seconds
        problem = replace(LARGE, size=(size, 64, 64))
        assert tuner(problem, algorithms(problem)) == algorithms(problem)
    assert clock.calls == 2
    assert tuner.doubts.startswith("5 of 5 convolutions")


def test_short_steps_are_not_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VOXELRT_CACHE", str(tmp_path))
    assert tuning.Tuner("full", 1)(SMALL, algorithms(SMALL)) == algorithms(SMALL)
    assert not (tmp_path / "tuning").exists()


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_every_rival_can_be_timed(mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VOXELRT_CACHE", str(tmp_path))
    monkeypatch.setattr(tuning, "WORTH", 0.0)
    monkeypatch.setitem(tuning.RIVAL, mode, 1e9)
    for problem in (
        Problem(1, 19, 33, (5, 6, 7), (3, 3, 3), (2, 2, 2)),
        Problem(1, 5, 16, (1, 9, 9), (1, 3, 3), (1, 1, 1)),
    ):
        timed = tuning.Tuner(mode, 2)(problem, algorithms(problem))
        assert len(timed) >= len(algorithms(problem))
        assert timed[0].cycles > 0


def test_an_unknown_way_to_tune_is_refused() -> None:
    with pytest.raises(UsageError, match="tune 'hard' is unknown"):
        compile(conv_pair(channels=8, size=4), tune="hard")


@pytest.mark.parametrize(("text", "size"), [("4GiB", 2**32), ("1.5 MB", 1500000), (77, 77), ("12", 12), ("3kib", 3072)])
def test_sizes_as_people_write_them(text: int | str, size: int) -> None:
    assert parse_size(text, "memory") == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "0", "4 parsecs", True])
def test_what_is_no_size_is_refused(text: int | str) -> None:
    with pytest.raises(UsageError, match="memory is"):
        parse_size(text, "memory")
