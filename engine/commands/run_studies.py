"""voxelrt run: studies through a plan, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from voxelrt.commands.console import Screen
from voxelrt.commands.run_watched import Watch, run_scan
from voxelrt.errors import UsageError
from voxelrt.outputs import Form
from voxelrt.pipeline import predict
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.sizes import words_of
from voxelrt.preprocess.study import Pick, Study
from voxelrt.result import Result
from voxelrt.runtime.session import Session
from voxelrt.runtime.shelf import Names
from voxelrt.shortcuts import Shortcuts


@dataclass(frozen=True)
class Target:
    """Where results go."""

    out: Path | None
    picture: Path | None
    names: Names
    resume: bool
    overwrite: bool
    force: bool
    mirroring: bool
    step: float | None
    memory: str | None
    pick: Pick
    source_rounding: bool
    table: Path | None
    form: Form
    time_limit: float | None
    maps: dict[str, Path]
    probabilities: Path | None
    uncertainty: bool
    shortcuts: Shortcuts
    report_cost: bool


def run_one(plan: Plan, study: Study, target: Target, screen: Screen) -> None:
    if target.resume or target.overwrite or target.names != "number":
        raise UsageError("--resume, --overwrite and --names are for several studies and a folder")
    with screen.progress() as (tell, say):
        result = predict(
            plan,
            study,
            target.out,
            picture=target.picture,
            table=target.table,
            form=target.form,
            force=target.force,
            mirroring=target.mirroring,
            step=target.step,
            memory=target.memory,
            series=target.pick.series,
            volume=target.pick.volume,
            repair=target.pick.repair,
            displayed=target.pick.displayed,
            straighten=target.pick.straighten,
            source_rounding=target.source_rounding,
            time_limit=target.time_limit,
            maps=target.maps,
            probabilities=target.probabilities,
            uncertainty=target.uncertainty,
            skip_air=target.shortcuts.skip_air,
            coarse_first=target.shortcuts.coarse_first,
            report_cost=target.report_cost,
            progress=tell,
            say=say,
        )
    for warning in result.warnings:
        screen.warn(warning)
    _show(result, screen)
    screen.json(_as_json(result))


def run_arriving(plan: Plan, watch: Watch, target: Target, screen: Screen) -> None:
    """A scan while it is made."""
    others = (target.picture, target.table, target.probabilities, target.memory, target.maps or None)
    if others != (None,) * len(others) or target.uncertainty or target.shortcuts or target.report_cost:
        raise UsageError("--slices gives labels alone: without it the scan is run when it is whole, with all options")
    with Session(plan, mirroring=target.mirroring, step=target.step, time_limit=target.time_limit) as session:
        result = run_scan(plan, watch, target.out, session, target.pick.series, screen)
    for warning in result.warnings:
        screen.warn(warning)
    _show(result, screen)
    screen.json(_as_json(result))


def run_many(plan: Plan, studies: Iterable[Study | None], target: Target, screen: Screen) -> None:
    if target.out is None:
        raise UsageError("several studies need -o FOLDER")
    if target.table is not None or target.form.seg is not None or target.form.format not in (None, "nifti"):
        raise UsageError("--table, --seg and DICOM are for one study; of several the volumes are in --json")
    if target.maps or target.probabilities is not None or target.uncertainty:
        raise UsageError("--map, --probabilities and --uncertainty are for one study")
    if target.shortcuts or target.report_cost:
        raise UsageError("--skip-air, --coarse-first and --report-cost are for one study")
    rows: list[dict[str, Any]] = []
    failed: Result | None = None
    with (
        Session(
            plan,
            force=target.force,
            mirroring=target.mirroring,
            step=target.step,
            memory=target.memory,
            pick=target.pick,
            source_rounding=target.source_rounding,
            time_limit=target.time_limit,
            form=target.form,
        ) as session,
        screen.progress() as (_, say),
    ):
        results = session.map(
            studies,
            target.out,
            names=target.names,
            resume=target.resume,
            overwrite=target.overwrite,
            pictures=target.picture is not None,
        )
        for number, result in enumerate(results, start=1):
            say(f"study {number}{f' of {len(studies)}' if isinstance(studies, list) else ''} is done")
            rows.append({"study": number, **_as_json(result)})
            for warning in result.warnings:
                screen.warn(f"study {number}: {warning}")
            if result.error is not None:
                screen.warn(f"study {number} failed: {result.error}")
                failed = failed or result
    screen.table(
        ("study", "output", "result"),
        ((row["study"], Path(row["out"]).name if row["out"] else "", _in_words(row)) for row in rows),
    )
    counts = {"done": 0, "kept": 0, "failed": 0}
    for row in rows:
        counts["failed" if row["error"] else "kept" if row["skipped"] else "done"] += 1
    screen.line(", ".join(f"{count} {word}" for word, count in counts.items() if count))
    screen.json({"studies": rows, **counts})
    if failed is not None and failed.error is not None:
        raise typer.Exit(failed.error.exit_code)


def _show(result: Result, screen: Screen) -> None:
    for name, size in result.sizes.items():
        screen.line(f"{name}: {size}")
    for name, score in result.scores.items():
        screen.line(f"{name}: {score:.4f}")
    for line in result.lines:
        screen.line(line)
    stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in result.timings.items() if seconds >= 0.005)
    screen.line(f"{stages}; peak memory {result.peak_memory_bytes / 2**20:.0f} MiB")
    if result.out is not None:
        screen.line(f"wrote {result.out}")


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "out": str(result.out) if result.out is not None else None,
        "voxels": result.voxels,
        "volumes_ml": result.volumes_ml,
        "areas_mm2": result.areas_mm2,
        "scores": result.scores,
        **({"details": dict(result.details)} if result.details else {}),
        "timings_s": result.timings,
        "warnings": list(result.warnings),
        "geometry": None if result.geometry is None else result.geometry.record(),
        "peak_memory_bytes": result.peak_memory_bytes,
        "skipped": result.skipped,
        "error": None if result.error is None else str(result.error),
    }


def _in_words(row: dict[str, Any]) -> str:
    if row["error"]:
        return f"failed: {row['error']}"
    if row["skipped"]:
        return "kept"
    sizes = words_of(row["voxels"], row["volumes_ml"], row["areas_mm2"])
    said = [f"{name} {size}" for name, size in sizes.items()]
    said += [f"{name} {score:.3f}" for name, score in row["scores"].items()]
    return ", ".join(said) or "done"
