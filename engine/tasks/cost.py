"""What shortcuts cost: the same case run in full beside it, Dice of each class and seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from voxelrt.backends.native import CancelFlag
from voxelrt.plan.plan import Plan
from voxelrt.reference.agreement import agree
from voxelrt.result import Result
from voxelrt.stages import first_case, run_stages

if TYPE_CHECKING:
    from voxelrt.request import Ready

Tell = Callable[[str, int, int], None]


def with_cost(plan: Plan, ready: Ready, result: Result, tell: Tell, cancel: CancelFlag | None) -> Result:
    """The result, with what a full run (the model's own step, mirrored, all windows) says to it."""
    case = first_case(plan, ready.opened.volume)
    start = time.perf_counter()
    full = run_stages(plan, case, tell, cancel=cancel, memory=ready.request.memory).volume()
    full_seconds = time.perf_counter() - start
    found = agree(result.labels, full)
    seconds = result.timings["run"]
    cost = {
        "dice": {row.name: row.dice for row in found.classes},
        "equal": found.equal,
        "seconds": seconds,
        "full_seconds": full_seconds,
    }
    worst = min((row.dice for row in found.classes), default=1.0)
    line = (
        f"against the full run: Dice at least {worst:.4f} in every class, {found.equal:.4%} of the union equal; "
        f"{seconds:.2f} s instead of {full_seconds:.2f} s"
    )
    return replace(result, details={**result.details, "cost": cost}, lines=(*result.lines, line))
