"""The tail of a plan: what follows from values that no schedule can hold, run by ONNX Runtime as the last step.

Its results are the plan's outputs whose shape depends on data, strings, sequences and optionals; it may read inputs of
such kinds too. In the schedule it is a host step without outputs, so that an executor that has no host refuses it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxelrt.errors import PlanError


@dataclass(frozen=True)
class Tail:
    """Names of values: ``steps`` come from the schedule and ``hosts`` from the caller; ``makes`` are its results.

    ``inputs`` and ``outputs`` are all of the plan, in the order of the graph.
    """

    island: int
    reads: list[str]
    steps: list[str]
    hosts: list[str]
    makes: list[str]
    inputs: list[str]
    outputs: list[str]


def read_tails(stored: Any) -> list[Tail | None]:
    """The tails of a plan's variants from its description. Raises PlanError where that is damaged."""
    try:
        return [None if row is None else Tail(**row) for row in stored]
    except TypeError as error:
        raise PlanError("the plan is damaged: its tails are not what this version writes") from error


class TailCall(threading.local):
    """What one run hands to the tail's step and gets back; each thread that runs the plan has its own."""

    def __init__(self) -> None:
        self.inputs: Mapping[str, Any] = {}
        self.results: list[Any] = []

    def run(self, tail: Tail, island: Any, values: Sequence[Any]) -> None:
        """Execute the tail on the values of the schedule and the inputs of this run."""
        known = dict(zip(tail.steps, values, strict=True))
        self.results = island.call({name: known[name] if name in known else self.inputs[name] for name in tail.reads})

    def finish(self, tail: Tail, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs of the plan in their order."""
        made = {**outputs, **dict(zip(tail.makes, self.results, strict=True))}
        self.inputs, self.results = {}, []
        return {name: made[name] for name in tail.outputs}
