"""What narrow precisions gain and cost on a trained network: deepbrain's, on whole heads.

``python -m bench.precision CALIBRATION HEAD``: two whole-head T1 volumes; int8 is calibrated on the first, everything
is measured on the second. Prints, for each precision, the time of a run (the median of rounds in turn, and the ratio to
fp32 with the least of its rounds), the memory of the run, the distance from fp32 and the Dice of the two masks.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.demo_checks import dice
from voxelrt.compile import compile as compile_plan
from voxelrt.models.load import load
from voxelrt.pipeline import prepare
from voxelrt.plan.calibration import METHODS
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.contract import recipe_shapes
from voxelrt.request import Request

RECIPE = "brain-extraction"
ROUNDS = 7


def main() -> int:
    """Compile, run in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("head", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--tune", default="off")
    asked = parser.parse_args()
    model = load(RECIPE)
    assert model.recipe is not None
    common: dict[str, Any] = {"shapes": recipe_shapes(model.recipe), "verify": False, "tune": asked.tune}
    plans = {"fp32": compile_plan(model, **common)}
    inputs = [_tensor(plans["fp32"], path) for path in (asked.calibration, asked.head)]
    plans["bf16"] = compile_plan(model, precision="bf16", **common)
    name = model.recipe.input.name
    for method in METHODS:
        given: dict[str, Any] = {"calibration": [{name: inputs[0]}], "calibration_method": method}
        plans[f"int8 {method}"] = compile_plan(model, precision="int8", **given, **common)
    answers = {key: plan.run({name: inputs[1]}) for key, plan in plans.items()}
    times: dict[str, list[float]] = {key: [] for key in plans}
    for _ in range(asked.rounds):
        for key, plan in plans.items():
            start = time.perf_counter()
            plan.run({name: inputs[1]}, out=answers[key])
            times[key].append(time.perf_counter() - start)
    exact = next(iter(answers["fp32"].values()))
    print(f"{'precision':<16}{'ms':>8}{'times fp32 (least)':>20}{'run MiB':>11}{'relative':>11}{'Dice':>9}")
    for key, plan in plans.items():
        answer = next(iter(answers[key].values()))
        ratios = [a / b for a, b in zip(times["fp32"], times[key], strict=True)]
        relative = np.linalg.norm((answer - exact).ravel()) / np.linalg.norm(exact.ravel())
        overlap = dice(answer > model.threshold, exact > model.threshold)
        gain = f"{statistics.median(ratios):.2f} ({min(ratios):.2f})"
        memory = plan.memory_bytes / 2**20
        taken = statistics.median(times[key]) * 1e3
        print(f"{key:<16}{taken:>8.1f}{gain:>20}{memory:>11.0f}{relative:>11.2e}{overlap:>9.4f}")
    return 0


def _tensor(plan: Plan, head: Path) -> Any:
    return prepare(plan, Request(head), lambda stage, step, steps: None).tensor


if __name__ == "__main__":
    sys.exit(main())
