"""A plan against other programs on its own graph: answers first, then runs in turns, ratios within a round."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import MissingExtraError
from voxelrt.kernels.common.kernel import compare
from voxelrt.measure.peer import load_arrays, save_arrays
from voxelrt.measure.ratios import Ratio, ratio_of

if TYPE_CHECKING:
    from voxelrt.plan.plan import Plan

Arrays = Mapping[str, NDArray[Any]]
PEERS = ("onnxruntime", "openvino", "torch")
TOLERANCE = 1e-3  # ‖e‖/‖ref‖ past which a peer computes something else, and its time means nothing
# Torch with malloc as it is loses 1.6 times of its speed to page faults: a claim against it would be a cheap one.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Rival:
    """One program's part: an error, or how far its answer is from the plan's and how long its runs took."""

    name: str
    error: str = ""
    relative: float | None = None
    maximum: float | None = None
    seconds: list[float] = field(default_factory=list)
    ratio: Ratio | None = None  # how many times longer than the plan


def find_peers(names: Sequence[str]) -> list[str]:
    """Check that every peer is installed.

    Raises
    ------
    MissingExtraError : one is not; nothing has been measured yet.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(name, name, f"--against {name}")
    return list(names)


def hold(
    plan: Plan,
    inputs: Arrays,
    peers: Sequence[str],
    *,
    rounds: int,
    warm_up: int,
    seed: int,
    say: Callable[[str], None],
    tell: Callable[[str, int, int], None],
) -> tuple[list[float], list[Rival]]:
    """Run the contest.

    Returns
    -------
    the plan's seconds by round, and the rivals. While one program runs, the others' processes are stopped.
    """
    ours = {name: np.asarray(array) for name, array in plan.run(inputs).items()}
    out = ours if not plan.host_inputs else None
    rivals = [Rival(name) for name in peers]
    with tempfile.TemporaryDirectory(prefix="voxelrt-bench-") as temporary:
        folder = Path(temporary)
        if rivals:
            _write_graph(plan, inputs, folder)
        processes = {}
        try:
            for rival in rivals:
                say(f"preparing {rival.name}")
                processes[rival.name] = _Process(rival.name, folder, plan.threads)
                processes[rival.name].enter(rival, ours)
            seconds = _rounds(plan, inputs, out, rivals, processes, rounds, warm_up, seed, tell)
        finally:
            for process in processes.values():
                process.close()
    for rival in rivals:
        if not rival.error:
            rival.ratio = ratio_of(rival.seconds, seconds)
    return seconds, rivals


def _rounds(
    plan: Plan,
    inputs: Arrays,
    out: dict[str, NDArray[Any]] | None,
    rivals: Sequence[Rival],
    processes: Mapping[str, _Process],
    rounds: int,
    warm_up: int,
    seed: int,
    tell: Callable[[str, int, int], None],
) -> list[float]:
    """Every round takes all in a new order, so that a busy moment hits all alike."""

    def our_run() -> float:
        start = time.perf_counter()
        plan.run(inputs, out=out)
        return time.perf_counter() - start

    order, seconds = random.Random(seed), []
    for _ in range(warm_up):
        our_run()
    for rival in rivals:
        for _ in range(warm_up):
            processes[rival.name].turn(rival)
    for number in range(rounds):
        tell("run", number, rounds)
        racing = [None, *(rival for rival in rivals if not rival.error)]
        for racer in order.sample(racing, len(racing)):
            if racer is None:
                # A process that was stopped comes back to cold caches; so do we after its turn.
                seconds.append(our_run() if len(racing) == 1 else _warmed(our_run))
                continue
            took = _warmed(functools.partial(processes[racer.name].turn, racer))
            if not racer.error:
                racer.seconds.append(took)
    return seconds


def _warmed(run: Callable[[], float]) -> float:
    """The time of a short run once its caches are warm again; of a long one the first."""
    first = run()
    return first if first > 0.1 else statistics.median(run() for _ in range(3))


def _write_graph(plan: Plan, inputs: Arrays, folder: Path) -> None:
    """The plan's own graph, shapes fixed, with its weights, as a file every program reads."""
    import onnx_ir as ir  # costs a third of a second, which `voxelrt --help` should not pay

    from voxelrt.plan.file import SectionKind
    from voxelrt.plan.portable import read_graph

    graph = read_graph(bytes(plan.section(SectionKind.GRAPH)), plan.section(SectionKind.WEIGHTS))
    ir.save(graph, folder / "model.onnx", external_data="model.bin")
    save_arrays(folder / "inputs.npz", inputs)


class _Process:
    """One rival's process."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self._folder = folder
        self._log = (folder / f"{name}.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "voxelrt.measure.peer", name, str(folder), str(threads)],
            env={**os.environ, **dict.fromkeys(_THREADS, str(threads)), **_ALLOCATOR},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def enter(self, rival: Rival, ours: Arrays) -> None:
        """Wait until it is ready and compare its answer with the plan's."""
        self._read(rival)
        if not rival.error:
            self._ask("answer", rival)
        if rival.error:
            return
        theirs = load_arrays(self._folder / f"{rival.name}.npz")
        if missing := sorted(set(ours) - set(theirs)):
            rival.error = f"it gives no {', '.join(missing)}"
            return
        found = [compare(theirs[name], ours[name]) for name in ours]
        rival.relative, rival.maximum = max(d.relative for d in found), max(d.maximum for d in found)
        if not rival.relative <= TOLERANCE:
            rival.error = f"its answer differs: relative {rival.relative:.2g}, allowed is {TOLERANCE:g}"
        self._signal(signal.SIGSTOP)

    def turn(self, rival: Rival) -> float:
        """One run; the seconds by its own clock."""
        self._signal(signal.SIGCONT)
        answer = self._ask("run", rival)
        self._signal(signal.SIGSTOP)
        return float(answer.get("seconds", 0.0))

    def close(self) -> None:
        """End it and wait for its end."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()

    def _ask(self, what: str, rival: Rival) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{what}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            rival.error = "its process died"
            return {}
        return self._read(rival)

    def _read(self, rival: Rival) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            rival.error = f"its process ended with exit code {code}"
            return {}
        answer: dict[str, Any] = json.loads(line)
        rival.error = answer.get("error", "")
        return answer

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)
