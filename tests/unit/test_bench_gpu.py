"""bench/gpu without a GPU: contests on plain functions, the report, arguments, missing peers, and what it says then."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.gpu.__main__ import SKIPPED, arguments, chosen, last_line, main, run
from bench.gpu.contest import SUBJECT, Contestant, Measured, Row, Timed, hold
from bench.gpu.device import Described, describe, parse_query
from bench.gpu.report import markdown
from voxelrt.errors import DeviceError

ANSWER = np.arange(6, dtype=np.float32)
GPU = {
    "name": "NVIDIA X",
    "driver_version": "600.1",
    "memory.total": "24 GiB",
    "clocks.sm": "1 MHz",
    "clocks.max.sm": "2 MHz",
    "clocks.mem": "3 MHz",
    "power.limit": "4 W",
    "temperature.gpu": "50",
}


def _contestant(name: str, seconds: float, answer: np.ndarray = ANSWER) -> Contestant:
    return Contestant(name, lambda: time.sleep(seconds), lambda: answer)


def _raising() -> Contestant:
    raise RuntimeError("torch sees no GPU\nand more")


def _row(**others: object) -> Row:
    made = {
        SUBJECT: lambda: _contestant(SUBJECT, 0.001),
        "slow": lambda: _contestant("slow", 0.004),
        "wrong": lambda: _contestant("wrong", 0.0, ANSWER + 1),
        "missing": _raising,
    }
    return Row("row", "a row | of tests", (6.0, "voxels"), 1e-3, lambda: ANSWER, {**made, **others})  # type: ignore[arg-type, dict-item]


@pytest.fixture
def measured() -> Measured:
    return hold(_row(), 7)


def test_answers_are_checked_before_anything_is_timed(measured: Measured) -> None:
    found = {timed.name: timed for timed in measured.timed}
    assert [len(found[name].seconds) for name in (SUBJECT, "slow", "wrong", "missing")] == [7, 7, 0, 0]
    assert "differs" in found["wrong"].error
    assert found["missing"].error == "torch sees no GPU"
    assert found["slow"].ratio is not None
    assert found["slow"].ratio.low > 0  # how large is a matter of the machine's other work
    assert found[SUBJECT].ratio is None


def test_what_an_answer_may_differ_by_can_be_measured() -> None:
    found = {timed.name: timed for timed in hold(replace(_row(), tolerance=lambda: 0.5), 1).timed}
    assert found["wrong"].error == ""
    assert found["wrong"].difference == pytest.approx(0.33, abs=0.01)


def test_one_that_fails_later_loses_its_times_not_the_row() -> None:
    calls = []

    def fails() -> None:
        calls.append(1)
        if len(calls) > 4:
            raise ValueError("out of memory")

    row = _row(late=lambda: Contestant("late", fails, lambda: ANSWER))
    found = {timed.name: timed for timed in hold(row, 6).timed}
    assert found["late"].error == "out of memory"
    assert found["late"].ratio is None
    assert len(found["slow"].seconds) == 6


def test_the_report_is_a_page(measured: Measured) -> None:
    page = markdown(Described([GPU], {"voxelrt": "1.0"}), "3 passed in 2 s", [measured], "command")
    assert "NVIDIA X, 24 GiB, driver 600.1; SM clock 1 MHz of 2 MHz" in page
    assert "Tests on the GPU: 3 passed in 2 s" in page
    assert "| **voxelrt** |" in page
    assert "| slow |" in page
    assert "no time: its answer differs" in page
    assert page.count("\n") < 60
    nothing = markdown(Described([], {}), "", [], "command")
    assert "Nothing was measured" in nothing
    assert "not run" in nothing


def test_a_machine_without_a_gpu_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text("SKIPPED [1] ...\n======= 13 skipped in 2.02s =======\n")
    options = arguments(
        ["--report", str(tmp_path / "a" / "r.md"), "--json", str(tmp_path / "r.json"), "--tests", str(log)]
    )

    def none() -> list[Row]:
        raise DeviceError("there is no GPU")

    assert run(options, none, "command") == SKIPPED
    assert "nothing was measured: there is no GPU" in capsys.readouterr().err
    page = options.report.read_text()
    assert "13 skipped in 2.02s" in page
    assert "Nothing was measured" in page
    assert json.loads(options.json.read_text())["rows"] == []


def test_a_wrong_answer_of_our_own_is_a_failure(tmp_path: Path) -> None:
    options = arguments(["--rounds", "2", "--report", str(tmp_path / "r.md"), "--json", str(tmp_path / "r.json")])
    assert run(options, lambda: [_row()], "command") == 0
    wrong = _row(**{SUBJECT: lambda: _contestant(SUBJECT, 0.0, ANSWER + 1)})
    assert run(options, lambda: [wrong], "command") == 1
    (row,) = json.loads(options.json.read_text())["rows"]
    assert {timed["name"] for timed in row["timed"]} == {SUBJECT, "slow", "wrong", "missing"}


def test_rows_are_chosen_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [_row()]
    assert chosen(rows, None) == rows == chosen(rows, "row")
    with pytest.raises(SystemExit, match="other"):
        chosen(rows, "row,other")
    assert main(["--list", "--quick"]) == 0
    listed = capsys.readouterr().out
    assert [line.partition(":")[0] for line in listed.splitlines()] == [
        *("unet3d-64-fp16", "unet3d-64-int8", "study-fp16", "study-int8", "warp3d", "integrate", "non_local_means"),
        *("gaussian", "median", "total_variation"),
    ]


def test_peers_that_are_not_here_say_so() -> None:
    from bench.gpu.rows import APART, all_rows
    from bench.gpu.scale import QUICK

    for row in all_rows(QUICK):
        for name, make in row.contestants.items():
            if name not in (SUBJECT, APART) and describe().gpus == []:
                with pytest.raises((ImportError, RuntimeError)):
                    make()


def test_nvidia_smi_s_answer_is_read() -> None:
    line = ", ".join(GPU.values())
    assert parse_query(f"{line}\n\nnonsense\n") == [GPU]
    assert last_line(None) == ""


def test_the_verdict_on_norms_names_the_faster_or_none() -> None:
    from bench.gpu.rows import APART, norms_verdict
    from voxelrt.measure.ratios import ratio_of

    def said(theirs: float, spread: float = 0.0) -> str:
        ours = [1.0 + spread * (i % 2) for i in range(9)]
        apart = [theirs + spread * ((i + 1) % 2) for i in range(9)]
        return norms_verdict([Timed(SUBJECT), Timed(APART, seconds=apart, ratio=ratio_of(apart, ours))])

    assert said(2.0) == "Norms: `--gpu-norms engine` is faster here, by 2.00×."
    assert said(0.5) == "Norms: `--gpu-norms kernels` is faster here, by 2.00×."
    assert "no difference" in said(1.0, 0.5)
    assert norms_verdict([Timed(SUBJECT)]) == ""
