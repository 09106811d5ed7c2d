"""Runs' JSON as Markdown: what README's tables of speed are printed with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.peers import SUBJECT

Record = Mapping[str, Any]
MOST_DISTURBANCE = 0.05


def markdown(run: Record) -> str:
    """The whole run: where it was made, the networks, the kernels."""
    parts = [_heading(run)]
    for row in run["models"]:
        parts.append("\n".join(_model(row, run.get("ceilings"))))
    if run["kernels"]:
        parts.append("\n".join(_kernels(run["kernels"], run.get("ceilings"))))
    return "\n\n".join(parts) + "\n"


def summary(runs: Sequence[Record]) -> str:
    """Each row of the first run beside each peer: its times, and the ratios of all runs that have the row."""
    lines = [_line(["row", "VoxelRT", "peer", "", *(f"faster by (95 %), run {n + 1}" for n in range(len(runs)))])]
    lines.append(_line(["---", "---:", "---", *["---:"] * (1 + len(runs))]))
    for row in runs[0]["models"]:
        again = [next((r for r in run["models"] if r["row"] == row["row"]), None) for run in runs]
        ours = row["contestants"].get(SUBJECT, {}).get("median_s")
        for name, entry in row["contestants"].items():
            if name != SUBJECT and ours and entry["median_s"]:
                first = [f"`{row['row']}`", _seconds(ours), entry["title"], _seconds(entry["median_s"])]
                lines.append(_line([*first, *("" if not r or r["error"] else _ratio(r, name) for r in again)]))
    return "\n\n".join([*map(_heading, runs), "\n".join(lines)]) + "\n"


def _heading(run: Record) -> str:
    machine, revision = run["machine"], run["revision"]
    text = (
        f"{machine['processor']}, {machine['threads']} threads, {machine['memory_gib']} GiB; "
        f"commit {revision['commit'][:10]}{' with changes' if revision['dirty'] else ''}; "
        f"{run['created']}; `{run['command']}`."
    )
    if ceilings := run.get("ceilings"):
        text += (
            f"\nCeilings measured in this run: fp32 {ceilings['fma_gflops_one']:.0f} GFLOP/s on one thread,"
            f" {ceilings['fma_gflops']:.0f} on all; copy {ceilings['copy_gbps']:.1f} GB/s,"
            f" {ceilings['copy_streaming_gbps']:.1f} with streaming stores (read + written)."
        )
    if run.get("warnings"):
        text += "".join(f"\n**Warning**: {line}." for line in run["warnings"])
    return text


def _model(row: Record, ceilings: Record | None) -> Iterator[str]:
    yield f"### {row['row']}: {row.get('title', '')}"
    yield ""
    if row["error"]:
        yield f"Not measured: {row['error']}"
        return
    yield f"{row['flops'] / 1e9:.0f} GFLOP a window in direct form."
    if row["disturbance"] is not None and row["disturbance"] > MOST_DISTURBANCE:
        yield (
            f"**Warning**: during {row['disturbance']:.0%} of this row some thread waited for a processor: "
            "another program ran, the figures are noise."
        )
    yield ""
    columns = ("", "s per window", "Mvoxel/s", "of peak", "peak RSS", "‖e‖/‖ref‖", "VoxelRT is faster by (95 %)")
    yield _line(columns)
    yield _line(["---"] + ["---:"] * (len(columns) - 1))
    for name, entry in row["contestants"].items():
        yield _line(_contestant(name, entry, row, ceilings))


def _contestant(name: str, entry: Record, row: Record, ceilings: Record | None) -> list[str]:
    title = f"**{entry['title']}**" if name == SUBJECT else entry["title"]
    error = "reference" if name == row["reference"] else _number(entry["difference"], "{:.1e}")
    if entry["error"]:
        return [title, _refusal(entry["error"]), "", "", "", error, ""]
    median = entry["median_s"]
    share = f"{row['flops'] / median * 1e-9 / ceilings['fma_gflops']:.0%}" if ceilings else ""
    memory = f"{entry['peak_run_bytes'] / 2**30:.2f} GiB"
    return [title, _seconds(median), f"{row['voxels'] / median / 1e6:.3g}", share, memory, error, _ratio(row, name)]


def _ratio(row: Record, name: str) -> str:
    ratio = row["ratios"].get(name)
    if ratio is None:
        return ""
    interval = f"{ratio['median']:.2f}× ({ratio['low']:.2f}–{ratio['high']:.2f})"
    return interval if ratio["claim"] is not None else f"{interval}, only {ratio['coverage']:.0%} sure"


def _kernels(rows: Sequence[Record], ceilings: Record | None) -> Iterator[str]:
    yield "### kernels"
    yield ""
    yield _line(("case", "median", "quartiles", "GFLOP/s", "of peak", "GB/s", "of copy", "‖e‖/‖oracle‖"))
    yield _line(["---"] + ["---:"] * 7)
    for row in rows:
        if row.get("skipped"):
            continue
        name = row["row"].removeprefix("kernels/")
        if row["error"]:
            yield _line([name, _refusal(row["error"]), *[""] * 6])
            continue
        quartiles = f"{_seconds(row['q1_s'])}–{_seconds(row['q3_s'])}"
        flops, of_peak = _rate(row["gflops"], ceilings["fma_gflops"] if ceilings else None)
        moved, of_copy = _rate(row["gbps"], ceilings["copy_streaming_gbps"] if ceilings else None)
        difference = _number(row["difference"], "{:.1e}")
        yield _line([name, _seconds(row["median_s"]), quartiles, flops, of_peak, moved, of_copy, difference])

    missing = Counter(row["error"].removeprefix("Skipped: ") for row in rows if row.get("skipped"))
    if missing:
        yield ""
    for reason, count in missing.items():
        yield f"- {count} not measured here: {reason}"


def _refusal(error: str) -> str:
    first = error.splitlines()[0]
    return f"no time: {first[:160]}{'…' if first != error or len(first) > 160 else ''}"


def _rate(value: float, ceiling: float | None) -> tuple[str, str]:
    if not value:
        return "", ""
    return f"{value:.3g}", f"{value / ceiling:.0%}" if ceiling else ""


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _seconds(value: float) -> str:
    if value >= 1.0:
        return f"{value:.2f} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
