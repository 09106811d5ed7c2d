"""End-to-end rows: a whole CT case, file to file, VoxelRT and nnU-Net's own predictor in one run.

The labels are compared before a ratio is told: with nnU-Net's sums in float32 at least 99.99 % of the union of
foregrounds are equal, and whatever its allocator or our budget the same labels come, or the row is wrong and has no
ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bench.case_data import make_case, make_folder
from bench.peers import read_peers

EQUAL = 0.9999  # of the union of foregrounds
TUNED = "nnU-Net, tuned allocator"
STAGES = ("preprocess", "network", "export", "total")


def run_cases(asked: argparse.Namespace) -> int:
    """Measure, print a Markdown table and write JSON; 1 where labels differ by more than is allowed."""
    import voxelrt as vx
    from bench import machine

    rows, failed = [], False
    size = tuple(int(n) for n in asked.case_size.split(","))
    for classes in (int(n) for n in asked.classes.split(",")):
        with tempfile.TemporaryDirectory(prefix="voxelrt-bench-") as temporary:
            folder = Path(temporary)
            model = make_folder(folder, classes, asked.seed)
            case = make_case(folder / "case_0000.nii.gz", size, asked.seed)  # type: ignore[arg-type]
            plan = vx.compile(model, verify=False, threads=asked.threads)
            plan.save(folder / "net.vxp")
            del plan
            row = _row(folder, model, case, asked, classes)
        failed |= not row["right"]
        rows.append(row)
        print(_table(row), flush=True)
    record = {"machine": machine.describe_machine(asked.threads), "revision": machine.commit(), "rows": rows}
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "cases.json").write_text(json.dumps(record, indent=1))
    return int(failed)


def _row(folder: Path, model: Path, case: Path, asked: argparse.Namespace, classes: int) -> dict[str, Any]:
    ours = {"plan": str(folder / "net.vxp"), "case": str(case), "threads": asked.threads}
    theirs = {"folder": str(model), "case": str(case), "threads": asked.threads}
    tuned = dict(read_peers()["torch"].environment)
    runs: list[tuple[str, str, dict[str, Any], dict[str, str]]] = [
        ("VoxelRT", "voxelrt", ours, {}),
        (TUNED, "nnunet", theirs, tuned),
    ]
    if asked.stock:
        runs.append(("nnU-Net as installed", "nnunet", theirs, {}))
    if asked.memory:
        runs.append((f"VoxelRT, memory={asked.memory}", "voxelrt", {**ours, "memory": asked.memory}, {}))
    times: dict[str, list[dict[str, Any]]] = {name: [] for name, *_ in runs}
    for _ in range(asked.rounds):
        for number, (name, program, arguments, environment) in enumerate(runs):
            print(f"{classes} classes: {name}", file=sys.stderr, flush=True)
            out = str(folder / f"{number}.nii.gz")
            times[name].append(_call(program, {**arguments, "out": out}, environment))
    print(f"{classes} classes: nnU-Net with sums in float32, for the labels", file=sys.stderr, flush=True)
    _call("nnunet", {**theirs, "out": str(folder / "wide.nii.gz"), "wide": True}, tuned)
    files = {name: folder / f"{number}.nii.gz" for number, (name, *_) in enumerate(runs)}
    wide, stock = _equal(files["VoxelRT"], folder / "wide.nii.gz"), _equal(files["VoxelRT"], files[TUNED])
    same = {
        name: _equal(file, files[TUNED if name.startswith("nnU-Net") else "VoxelRT"]) for name, file in files.items()
    }
    medians = {name: _median(found) for name, found in times.items()}
    return {
        "classes": classes,
        "size_zyx": asked.case_size,
        "rounds": asked.rounds,
        "equal": wide,
        "equal_as_it_is": stock,
        "right": min(wide, *same.values()) >= EQUAL,
        "labels_found": len(np.unique(_labels(folder / "0.nii.gz"))),
        "programs": medians,
    }


def _labels(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    return np.asarray(nib.load(path).dataobj)


def _equal(ours: Path, theirs: Path) -> float:
    """The share of the union of foregrounds that is equal."""
    a, b = _labels(ours), _labels(theirs)
    union = (a != 0) | (b != 0)
    return 1 - float(((a != b) & union).sum()) / max(1, int(union.sum()))


def _call(program: str, arguments: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    number = str(arguments["threads"])
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), number)
    done = subprocess.run(
        [sys.executable, "-m", "bench.case_worker", program, json.dumps(arguments)],
        env={**os.environ, **threads, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def _median(found: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = {stage: float(np.median([one["seconds"][stage] for one in found])) for stage in STAGES}
    return {"seconds": seconds, "peak_bytes": max(one["peak_bytes"] for one in found)}


def _table(row: dict[str, Any]) -> str:
    ours = row["programs"]["VoxelRT"]
    lines = [
        f"#### cases/nnunet-{row['classes']}: CT {row['size_zyx'].replace(',', '×')}, {row['classes']} classes",
        "",
        f"{row['equal']:.4%} of the union of foregrounds as nnU-Net with sums in float32, "
        f"{row['equal_as_it_is']:.4%} as nnU-Net as it is; "
        f"{row['labels_found']} labels found; medians of {row['rounds']}.",
        "",
        "|  | read, preprocess | network | export | whole case | peak RSS | whole | export |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, program in row["programs"].items():
        seconds = program["seconds"]
        cells = [f"{seconds[stage]:.2f} s" for stage in STAGES] + [f"{program['peak_bytes'] / 2**30:.2f} GiB"]
        if name.startswith("nnU-Net") and row["right"]:
            cells += [f"{seconds[stage] / ours['seconds'][stage]:.1f}×" for stage in ("total", "export")]
        else:
            cells += ["", ""]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])
