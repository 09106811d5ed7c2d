"""The main job, measured: ``python -m bench.demo --output demo-output`` (``make demo``).

A trained 3-D U-Net and a real whole-head MR are fetched, the network is imported without TensorFlow, compiled and run
by our own kernels; then everything that can be checked is: against the mask that ships with the head, TensorFlow's
stored answers, and ONNX Runtime on this machine. Exit code 1 if a requirement is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.demo_checks import Parity, TensorFlowAnswers, against_tensorflow, dice, ellipsoid_in_box, mirrored
from bench.demo_rival import onnxruntime_runner
from voxelrt.errors import VoxelRTError
from voxelrt.io import read_image
from voxelrt.io.atomic import atomic_path
from voxelrt.models.fetch import fetch, fetch_demo
from voxelrt.models.recipe import load_recipe
from voxelrt.pipeline import predict
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.contract import recipe_shapes
from voxelrt.result import Result
from voxelrt.runtime.plan_cache import cached_plan

RECIPE = "brain-extraction"
STORED = Path(__file__).parent.parent / "tests" / "models" / "data" / "deepbrain_tensorflow.npz"

DICE_REQUIRED = 0.92
PARITY_REQUIRED = 1e-4
MASK_REQUIRED = 0.999


@dataclass(frozen=True)
class Accuracy:
    """Dice against the mask that ships with the head, and what two masks that know nothing score."""

    dice: float
    ellipsoid: float
    mirrored: float


@dataclass(frozen=True)
class Rival:
    """The same network under ONNX Runtime, turn by turn with ours."""

    ours_s: float
    theirs_s: float
    maximum_difference: float
    threads: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 if every requirement holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description="Brain extraction, run and measured.")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for the results")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of the network")
    options = parser.parse_args(arguments)
    try:
        return demo(options.output, max(1, options.rounds))
    except VoxelRTError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def demo(folder: Path, rounds: int) -> int:
    """Fetch, compile, run, measure, write and print."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(RECIPE)
    timings: dict[str, float] = {}
    start = time.perf_counter()
    fetch(recipe, progress=_say)
    head, shipped = fetch_demo(recipe, progress=_say)
    timings["fetch"] = time.perf_counter() - start
    start = time.perf_counter()
    plan = cached_plan(RECIPE, shapes=recipe_shapes(recipe), progress=_say)
    timings["compile"] = time.perf_counter() - start
    result = predict(plan, head, folder / "brain-mask.nii.gz", picture=folder / "brain.png")
    timings |= result.timings
    assert shipped is not None
    accuracy = _accuracy(result, read_image(shipped).volume.array[0] > 0)
    stored = TensorFlowAnswers.read(STORED)
    parity = against_tensorflow(plan, stored, result.labels.array[0] > 0)
    rival = _rival(plan, stored.levels, rounds)
    failures = _failures(accuracy, parity)
    _print(timings, result, plan, accuracy, parity, rival)
    _write(folder / "demo.json", timings, result, plan, accuracy, parity, rival, failures)
    print(f"\nwrote {folder / 'brain-mask.nii.gz'}, {folder / 'brain.png'}, {folder / 'demo.json'}")
    for failure in failures:
        print(f"MISSED: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _accuracy(result: Result, shipped: NDArray[np.bool_]) -> Accuracy:
    # The baselines are made from the shipped mask itself: they know where the brain is and nothing else.
    return Accuracy(
        dice(result.labels.array[0] > 0, shipped),
        dice(ellipsoid_in_box(shipped), shipped),
        dice(mirrored(shipped), shipped),
    )


def _rival(plan: Plan, levels: NDArray[np.float32], rounds: int) -> Rival | str:
    """Times of both, alternating after one warm-up each; or why there are none."""
    try:
        theirs = onnxruntime_runner(plan)
    except VoxelRTError as error:
        return str(error)
    inputs = {plan.inputs[0].name: levels}
    name = plan.outputs[0].name
    difference = float(np.abs(plan.run(inputs)[name] - theirs(inputs)[name]).max())
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for runner, times in zip((plan.run, theirs), seconds, strict=True):
            start = time.perf_counter()
            runner(inputs)
            times.append(time.perf_counter() - start)
    return Rival(float(np.median(seconds[0])), float(np.median(seconds[1])), difference, plan.threads)


def _failures(accuracy: Accuracy, parity: Sequence[Parity]) -> list[str]:
    found = []
    if accuracy.dice < DICE_REQUIRED:
        found.append(f"Dice is {accuracy.dice:.4f}; {DICE_REQUIRED} is required")
    for line in parity:
        if line.maximum is not None and line.maximum > PARITY_REQUIRED:
            found.append(f"{line.name}: maximum difference {line.maximum:.2e}; {PARITY_REQUIRED:g} is allowed")
        if line.equal < MASK_REQUIRED:
            found.append(
                f"{line.name}: {line.equal:.4%} of the mask's voxels are equal; {MASK_REQUIRED:.1%} is required"
            )
    return found


def _print(
    timings: dict[str, float],
    result: Result,
    plan: Plan,
    accuracy: Accuracy,
    parity: Sequence[Parity],
    rival: Rival | str,
) -> None:
    console = Console(highlight=False, width=max(100, Console().width))
    table = Table("", "", box=None, show_header=False, pad_edge=False)
    for stage, seconds in timings.items():
        table.add_row(stage, f"{seconds:.2f} s")
    voxels = int(np.prod(plan.inputs[0].dims))
    table.add_row("speed", f"{voxels / timings['run'] / 1e6:.2f} million voxels/s of the network's grid, first run")
    table.add_row("peak memory", f"{result.peak_memory_bytes / 2**20:.0f} MiB, up to the written mask")
    for name, millilitres in result.volumes_ml.items():
        table.add_row(f"{name} volume", f"{millilitres:.1f} mL")
    table.add_row("Dice", f"{accuracy.dice:.4f} against the mask that ships with the head (≥ {DICE_REQUIRED} required)")
    table.add_row("", f"{accuracy.ellipsoid:.4f} for an ellipsoid in that mask's bounding box")
    table.add_row("", f"{accuracy.mirrored:.4f} for that mask mirrored left to right")
    table.add_row("", "a blob scores nearly as much: Dice here shows that nothing is broken, not that it is right;")
    table.add_row("", "that the network is the network is shown by the next lines")
    for line in parity:
        table.add_row("parity" if line is parity[0] else "", line.text)
    for entry in plan.parity:
        if entry.maximum is not None:
            table.add_row("", f"{entry.name}, {entry.status} against {entry.against}: maximum {entry.maximum:.1e}")
    if isinstance(rival, str):
        table.add_row("ONNX Runtime", f"not measured: {rival}")
    else:
        table.add_row(
            "ONNX Runtime",
            f"{rival.theirs_s:.3f} s; ours {rival.ours_s:.3f} s (medians, {rival.threads} threads each, turn by turn); "
            f"maximum difference {rival.maximum_difference:.1e}",
        )
    console.print("VoxelRT demo: brain extraction. Research software, not a medical device.\n")
    console.print(table)


def _write(
    path: Path,
    timings: dict[str, float],
    result: Result,
    plan: Plan,
    accuracy: Accuracy,
    parity: Sequence[Parity],
    rival: Rival | str,
    failures: list[str],
) -> None:
    data: dict[str, Any] = {
        "timings_s": timings,
        "peak_memory_bytes": result.peak_memory_bytes,
        "volumes_ml": result.volumes_ml,
        "warnings": list(result.warnings),
        "dice": asdict(accuracy),
        "tensorflow": [asdict(line) for line in parity],
        "plan_parity": [asdict(line) for line in plan.parity],
        "onnxruntime": rival if isinstance(rival, str) else asdict(rival),
        "failures": failures,
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n", "utf-8")


def _say(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
