"""A profile: where a plan's time goes, and how near each step comes to what the machine can do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelrt.measure.ceilings import Ceilings, measure_ceilings
from voxelrt.plan.description import step_rows

if TYPE_CHECKING:
    from voxelrt.plan.plan import Plan


@dataclass(frozen=True)
class StepProfile:
    """One step, timed. ``flops`` counts the work of a direct algorithm, so that a fast one passes the ceiling;
    ``bytes`` what must be read and written at least."""

    kernel: str
    algorithm: str
    nodes: tuple[str, ...]
    result: str
    flops: int
    bytes: int
    ms: float
    share: float  # of the run's time
    gflops: float
    gbps: float
    of_peak: float  # of the multiply-add ceiling
    of_roof: float  # of the ceiling that binds: 1 is the least time that this work takes in direct form
    bound: str  # "arithmetic" or "memory": which ceiling that is

    def text(self) -> str:
        """What it reached, for a line of a table."""
        rate = f"{self.gflops:.0f} GFLOP/s {self.of_peak:.0%} of peak" if self.flops else f"{self.gbps:.1f} GB/s"
        return f"{self.ms:.2f} ms {rate}"


@dataclass(frozen=True)
class Profile:
    """The steps of a plan's first variant, and the ceilings they were held against.

    ``timers_cost`` is how much longer runs with timers took than runs without, as a share.
    """

    name: str
    ceilings: Ceilings
    steps: tuple[StepProfile, ...]
    total_ms: float
    runs: int
    timers_cost: float

    def kinds(self) -> list[dict[str, Any]]:
        """Time by kernel and algorithm, the longest first."""
        found: dict[str, dict[str, Any]] = {}
        for step in self.steps:
            kind = f"{step.kernel} {step.algorithm.partition(', blocks')[0]}".strip()
            row = found.setdefault(kind, {"kind": kind, "steps": 0, "ms": 0.0, "flops": 0, "bytes": 0})
            row["steps"] += 1
            for key, value in (("ms", step.ms), ("flops", step.flops), ("bytes", step.bytes)):
                row[key] += value
        return sorted(found.values(), key=lambda row: -row["ms"])

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "kinds": self.kinds()}


def measure_profile(plan: Plan, inputs: Mapping[str, Any], runs: int = 5) -> Profile:
    """Time the steps of ``runs`` runs; medians. Runs without timers take turns with them, to see what timers cost.

    Parameters
    ----------
    plan : whose first variant takes the inputs.
    inputs : name -> array, as for ``plan.run``.
    """
    ceilings = measure_ceilings(plan.threads)
    out = {name: np.asarray(array) for name, array in plan.run(inputs).items()} if not plan.host_inputs else None
    timed, bare, steps = [], [], []
    for _ in range(runs):
        start = time.perf_counter()
        plan.run(inputs, out=out)
        bare.append(time.perf_counter() - start)
        start = time.perf_counter()
        steps.append(plan.time_steps(inputs, out=out).time_ns)
        timed.append(time.perf_counter() - start)
    milliseconds = np.median(np.array(steps), axis=0) / 1e6
    total = float(milliseconds.sum()) or 1.0
    rows = zip(step_rows(plan), milliseconds, strict=True)
    return Profile(
        plan.info.name,
        ceilings,
        tuple(_step(row, float(ms), total, ceilings) for row, ms in rows),
        total,
        runs,
        min(timed) / min(bare) - 1.0,
    )


def _step(row: Mapping[str, Any], ms: float, total_ms: float, ceilings: Ceilings) -> StepProfile:
    seconds = max(ms, 1e-6) / 1e3
    flops, moved = int(row["flops"]), int(row["bytes"])
    gflops, gbps = flops / seconds / 1e9, moved / seconds / 1e9
    arithmetic = flops / ceilings.gflops >= moved / ceilings.gbps
    return StepProfile(
        kernel=row["kernel"],
        algorithm=row["algorithm"],
        nodes=tuple(row["nodes"]),
        result=row["result"],
        flops=flops,
        bytes=moved,
        ms=ms,
        share=ms / total_ms,
        gflops=gflops,
        gbps=gbps,
        of_peak=gflops / ceilings.gflops,
        of_roof=ceilings.roof(flops, moved) / seconds,
        bound="arithmetic" if arithmetic else "memory",
    )
