"""Races between algorithms, by a clock that the test winds: which runs count, what is repeated, what stays in doubt."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from voxelrt.plan.race import COUNTED, Outcome, Watch, race
from voxelrt.plan.waiting import waited_s


class _Machine:
    """Rival ``i`` takes ``seconds(i, run)`` and waits ``waits(i, run)`` of them; ``run`` counts all runs from 0."""

    def __init__(self, seconds: Callable[[int, int], float], waits: Callable[[int, int], float]) -> None:
        self.seconds, self.waits = seconds, waits
        self.now, self.waited = 0.0, 0.0
        self.runs: list[int] = []

    def run(self, rival: int) -> None:
        waited = self.waits(rival, len(self.runs))
        self.now += self.seconds(rival, len(self.runs)) + waited
        self.waited += waited
        self.runs.append(rival)

    def race(self, count: int, *, rounds: int = 4, left_s: float = 100.0) -> Outcome:
        watch = Watch(lambda: self.now, lambda: self.waited)
        return race(self.run, count, rounds=rounds, enough_s=1e9, left_s=left_s, watch=watch)


def _calm(rival: int, run: int) -> float:
    return 0.0


def test_a_calm_race_ends_with_its_rounds() -> None:
    machine = _Machine(lambda rival, run: (1.0, 1.25, 1.5, 3.0)[rival], _calm)
    outcome = machine.race(4)
    assert outcome == Outcome([1.0, 1.25, 1.5, 3.0], True)
    # The last is hopeless after the run that is not timed, the third after its first that is.
    assert [machine.runs.count(rival) for rival in range(4)] == [5, 5, 2, 1]


def test_runs_that_waited_do_not_count_and_are_made_again() -> None:
    # Every other run stands still as long as it works: so they take 2 and 3.25 s.
    machine = _Machine(lambda rival, run: (1.0, 1.25)[rival], lambda rival, run: run // 2 % 2 * (rival + 1.0))
    outcome = machine.race(2)
    assert outcome == Outcome([1.0, 1.25], True)
    assert len(machine.runs) > 2 * (1 + COUNTED)


def test_where_no_run_is_calm_the_least_is_taken_and_doubted() -> None:
    machine = _Machine(lambda rival, run: (1.0, 1.25)[rival], lambda rival, run: 0.5 + run // 2 % 3)
    outcome = machine.race(2)
    assert outcome == Outcome([1.5, 1.75], False, worth=False)
    assert len(machine.runs) == 2 * (1 + 3 * 4)


def test_a_wait_in_the_first_run_throws_nobody_out() -> None:
    machine = _Machine(lambda rival, run: (1.0, 1.25)[rival], lambda rival, run: 5.0 if run == 0 else 0.0)
    assert machine.race(2) == Outcome([1.0, 1.25], True)


def test_times_that_spread_are_repeated_and_doubted_unless_it_does_not_matter() -> None:
    wide = (1.0, 1.5, 1.25)  # what others take of the caches: no thread waits
    machine = _Machine(lambda rival, run: wide[run // 2 % 3] * (1.0, 1.125)[rival], _calm)
    assert machine.race(2).sure is False
    assert len(machine.runs) == 2 * (1 + 3 * 4)
    machine = _Machine(lambda rival, run: wide[run // 2 % 3] * (1.0, 1.03125)[rival], _calm)
    assert machine.race(2).sure is True


def test_repetition_ends_with_the_time_that_is_left() -> None:
    for left_s, rounds in ((15.0, 4), (0.0, 1)):  # a round takes 4.125 s
        machine = _Machine(lambda rival, run: 1.0 + rival / 8, lambda rival, run: 1.0)
        assert machine.race(2, left_s=left_s) == Outcome([2.0, 2.125], False, worth=False)
        assert len(machine.runs) == 2 * (1 + rounds)
    machine = _Machine(lambda rival, run: 1.0 + rival / 8, _calm)
    assert machine.race(2, left_s=0.0) == Outcome([1.0, 1.125], True)
    assert len(machine.runs) == 2 * (1 + COUNTED)


def test_waiting_is_read_from_the_threads_and_the_hypervisor(tmp_path: Path) -> None:
    for thread, waited_ns in ((7, 2_000_000_000), (9, 500_000_000)):
        (tmp_path / "task" / str(thread)).mkdir(parents=True)
        (tmp_path / "task" / str(thread) / "schedstat").write_text(f"123 {waited_ns} 4\n")
    (tmp_path / "task" / "11").mkdir()  # it has ended
    machine = tmp_path / "stat"
    machine.write_text("cpu  1 2 3 4 5 6 7 300 0 0\ncpu0 1 2 3 4 5 6 7 300 0 0\n")
    assert waited_s(tmp_path, machine) == pytest.approx(2.5 + 300 / os.sysconf("SC_CLK_TCK"))
    assert waited_s(tmp_path, tmp_path / "none") == pytest.approx(2.5)
    assert waited_s(tmp_path / "none", tmp_path / "none") >= 0.0
    before = waited_s()
    assert waited_s() >= before > 0.0
