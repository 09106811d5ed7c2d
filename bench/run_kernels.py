"""Run ``test_kernels.py`` and turn what pytest-benchmark measured into rows."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bench.machine import ROOT

TESTS = Path(__file__).with_name("test_kernels.py")


class _Refused:
    """Collects the rows that have no time: wrong answers, and backends that this machine lacks."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest after each phase of each row."""
        name = report.nodeid.partition("[")[2].rstrip("]")
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = (crash.message if crash else str(report.longrepr)).splitlines()[0][:400]
            self.rows[name] = {"row": name, "error": reason, "skipped": False}
        elif report.skipped and isinstance(report.longrepr, tuple):
            self.rows[name] = {"row": name, "error": report.longrepr[2], "skipped": True}


def run_kernels(*, seed: int, rounds: int, seconds: float, select: str = "") -> list[dict[str, Any]]:
    """Measure all kernel rows.

    Parameters
    ----------
    seed
        Of the inputs.
    rounds
        The fewest timed rounds of each row.
    seconds
        How long each row is timed, about.
    select
        pytest's ``-k``: which rows.
    """
    refused = _Refused()
    with tempfile.TemporaryDirectory(prefix="voxelrt-bench-") as folder:
        report = Path(folder, "kernels.json")
        options = [
            str(TESTS),
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
            f"--rootdir={ROOT}",
            f"--seed={seed}",
            "--benchmark-only",
            f"--benchmark-min-rounds={rounds}",
            f"--benchmark-max-time={seconds}",
            "--benchmark-warmup=on",
            "--benchmark-warmup-iterations=3",
            "--benchmark-disable-gc",
            "--benchmark-quiet",
            f"--benchmark-json={report}",
            *(["-k", select] if select else []),
        ]
        pytest.main(options, plugins=[refused])
        has_rows = report.exists() and report.stat().st_size > 0
        measured = json.loads(report.read_text(encoding="utf-8"))["benchmarks"] if has_rows else []
    rows = [_row(m["extra_info"], m["stats"]) for m in measured]
    return [*rows, *refused.rows.values()]


def _row(info: dict[str, Any], stats: dict[str, Any]) -> dict[str, Any]:
    median = stats["median"]
    return {
        **info,
        "error": "",
        "skipped": False,
        "median_s": median,
        "q1_s": stats["q1"],
        "q3_s": stats["q3"],
        "rounds": stats["rounds"],
        "gflops": info["flops"] / median * 1e-9,
        "gbps": info["bytes"] / median * 1e-9,
    }
