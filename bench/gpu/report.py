"""One page of Markdown: what ran on which GPU, and how long it took beside what else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from bench.gpu.contest import SUBJECT, Measured, Timed
from bench.gpu.device import Described

HEADING = "# GPU acceptance"


def markdown(described: Described, tests: str, rows: Sequence[Measured], command: str) -> str:
    """The report.

    Parameters
    ----------
    tests : what pytest's last line said of the GPU tests; empty where they were not run.
    rows : empty where nothing was measured.
    """
    lines = [HEADING, "", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; `{command}`.", *_machine(described), ""]
    lines += [f"Tests on the GPU: {tests or 'not run'}", ""]
    if not rows:
        lines += ["Nothing was measured: there is no GPU here, so nothing below this line exists.", ""]
    for measured in rows:
        lines += [*_row(measured), ""]
    return "\n".join(lines)


def _machine(described: Described) -> Iterator[str]:
    for gpu in described.gpus:
        yield (
            f"{gpu['name']}, {gpu['memory.total']}, driver {gpu['driver_version']}; SM clock {gpu['clocks.sm']} of "
            f"{gpu['clocks.max.sm']}, memory clock {gpu['clocks.mem']}, limit {gpu['power.limit']}, "
            f"{gpu['temperature.gpu']} °C."
        )
    if not described.gpus:
        yield "No GPU: nvidia-smi is missing or found none."
    yield "Versions: " + ", ".join(f"{name} {version}" for name, version in described.versions.items()) + "."


def _row(measured: Measured) -> Iterator[str]:
    row = measured.row
    yield f"## {row.name}: {row.title}"
    yield ""
    if measured.error:
        yield f"Not measured: {measured.error}"
        return
    amount, unit = row.work
    yield f"| | median ms | {unit}/s | ‖e‖/‖ref‖ | VoxelRT is faster by (95 %) |"
    yield "|---|---:|---:|---:|---:|"
    for timed in measured.timed:
        yield _line(timed, amount)
    if verdict := row.verdict(measured.timed):
        yield ""
        yield verdict


def _line(timed: Timed, amount: float) -> str:
    name = f"**{timed.name}**" if timed.name == SUBJECT else timed.name
    off = "" if timed.difference is None else f"{timed.difference:.1e}"
    median = timed.median
    if timed.error or median is None:
        return f"| {name} | no time: {timed.error.replace('|', '/')} | | {off} | |"
    ratio = timed.ratio
    claim = "" if ratio is None else f"{ratio.median:.2f}× ({ratio.low:.2f}–{ratio.high:.2f})"
    return f"| {name} | {median * 1e3:.3f} | {amount / median:.3g} | {off} | {claim} |"
