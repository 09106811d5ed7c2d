"""``precision="auto"``: the fastest arithmetic whose labels stay those of float32, on a user's own inputs.

Candidates are float32 and bfloat16. int8 is not among them: on the CPU it has been no faster than our own float32
(``python -m bench.precision``), whose Winograd algorithms do fewer multiplications than int8 has in parallel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import ParityError, UsageError
from voxelrt.measure.ratios import ratio_of
from voxelrt.plan.parity import label_agreement, labels_of

if TYPE_CHECKING:
    from voxelrt.models.load import Model
    from voxelrt.plan.plan import Plan

Arrays = Mapping[str, NDArray[Any]]
CANDIDATES = ("bf16",)  # beside fp32, which every one of them is held against
AGREEMENT = 0.999
ROUNDS = 7  # of the two plans in turns; an interval of 95 % needs six


@dataclass(frozen=True)
class Verdict:
    """What was found of one candidate: its share of equal labels, how many times as fast as fp32, and why not."""

    precision: str
    agreement: float | None
    speed_up: float | None
    refused: str


def fastest(
    make: Callable[[str], Plan],
    model: Model,
    samples: Callable[[Plan], Sequence[Arrays]],
    agreement: float,
    say: Callable[[str], None],
) -> Plan:
    """The fastest of float32 and the candidates.

    Parameters
    ----------
    make : compiles the model in a precision.
    model : says how its output becomes labels.
    samples : real inputs for a plan, as the network takes them.
    agreement : the share of equal voxels, of the union of foregrounds, that a candidate's labels must reach.
    say : told of each step.

    Returns
    -------
    The plan; ``plan.info.settings["auto"]`` holds what was found of each candidate.

    Raises
    ------
    UsageError : the model gives no labels, or there is no real input to compare them on, or agreement is no share.
    """
    if not 0.0 < agreement <= 1.0:
        raise UsageError(f"label agreement {agreement:g} is not a share: give one over 0 and up to 1, such as 0.999")
    if not model.is_segmentation:
        raise UsageError("precision 'auto' compares labels, and this network gives none: choose fp32 or bf16")
    exact = make("fp32")
    inputs = list(samples(exact))
    if not inputs:
        raise UsageError(
            "precision 'auto' compares labels on real inputs: give some as samples= (--calibration PATH), or fetch "
            "the recipe's example"
        )
    best, verdicts = exact, []
    for precision in CANDIDATES:
        verdict, plan = _judge(make, precision, exact, model, inputs, agreement, say)
        verdicts.append(verdict)
        better = max((v.speed_up or 0.0 for v in verdicts[:-1] if not v.refused), default=1.0)
        if plan is not None and not verdict.refused and (verdict.speed_up or 0.0) > better:
            best = plan
    settings = {**best.info.settings, "auto": {"asked": agreement, "candidates": [vars(v) for v in verdicts]}}
    return best.with_info(replace(best.info, settings=settings), best.threads)


def _judge(
    make: Callable[[str], Plan],
    precision: str,
    exact: Plan,
    model: Model,
    inputs: Sequence[Arrays],
    agreement: float,
    say: Callable[[str], None],
) -> tuple[Verdict, Plan | None]:
    try:
        plan = make(precision)
    except ParityError as error:
        return Verdict(precision, None, None, str(error)), None
    found = min(_agreement(plan, exact, model, arrays) for arrays in inputs)
    if found < agreement:
        verdict = Verdict(precision, found, None, f"labels agree on {found:.4%}; asked for is {agreement:.4%}")
    else:
        speed_up = _speed_up(plan, exact, inputs[0])
        verdict = Verdict(precision, found, speed_up, "" if speed_up > 1.0 else "not faster than fp32 here")
    figures = "" if verdict.speed_up is None else f", {verdict.speed_up:.2f}× as fast as fp32"
    say(f"{precision}: {verdict.refused or 'taken'}{figures}")
    return verdict, plan


def _agreement(plan: Plan, exact: Plan, model: Model, arrays: Arrays) -> float:
    theirs, ours = exact.run(arrays), plan.run(arrays)
    name = next(iter(theirs))
    both = [labels_of(np.asarray(r[name]), model.threshold, model.channel_axis) for r in (ours, theirs)]
    return float(label_agreement(*both)["agreement"])


def _speed_up(plan: Plan, exact: Plan, arrays: Arrays) -> float:
    """The lower end of the interval of fp32's time over the candidate's, run in turns."""
    seconds: dict[int, list[float]] = {0: [], 1: []}
    outs = [dict(p.run(arrays)) for p in (plan, exact)]  # the first run of each warms its caches
    for number in range(ROUNDS):
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            (plan, exact)[which].run(arrays, out=outs[which])
            seconds[which].append(time.perf_counter() - start)
    return ratio_of(seconds[1], seconds[0]).low
