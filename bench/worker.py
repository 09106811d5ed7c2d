"""One contestant's process: commands come as JSON lines on standard input, replies go back as JSON lines.

Started as ``python -m bench.worker``. Arrays travel as .npy files. It ends when its input ends.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from bench.runners import RUNNERS, Runner

_PR_SET_PDEATHSIG = 1


class Worker:
    """What the commands act on."""

    def __init__(self) -> None:
        self.runner: Runner | None = None

    def load(self, *, runner: str, model: str, x: str, threads: int, options: dict[str, Any]) -> dict[str, Any]:
        """Load the network and its input, and run once."""
        start = time.perf_counter()
        self.runner = RUNNERS[runner](Path(model), np.load(x), threads, options)
        self.runner.run()
        gc.collect()
        gc.freeze()
        return {"load_s": time.perf_counter() - start, "peak_load_bytes": peak_bytes(reset=True)}

    def answer(self, *, to: str) -> dict[str, Any]:
        """Write the last answer."""
        np.save(to, self._loaded().answer())
        return {}

    def time(self, *, warm: int, runs: int) -> dict[str, Any]:
        """Run ``warm`` times without and ``runs`` times with the clock."""
        run = self._loaded().run
        gc.disable()
        try:
            for _ in range(warm):
                run()
            times = []
            for _ in range(runs):
                start = time.perf_counter_ns()
                counted = run()
                times.append((time.perf_counter_ns() - start) * 1e-9 if counted is None else counted)
        finally:
            gc.enable()
        return {"times_s": times}

    def memory(self) -> dict[str, Any]:
        """The peak since the network was loaded."""
        return {"peak_run_bytes": peak_bytes()}

    def _loaded(self) -> Runner:
        if self.runner is None:
            raise RuntimeError("no network is loaded")
        return self.runner


def peak_bytes(*, reset: bool = False) -> int:
    """The most memory this process held (VmHWM); with ``reset`` the counting starts anew where the kernel allows."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    if reset:
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        except OSError:
            return peak  # the peak while running is then that of loading too: never less than the truth
    return peak


def serve(commands: TextIO, replies: TextIO) -> None:
    """Answer commands until there are no more."""
    worker = Worker()
    for line in commands:
        command = json.loads(line)
        try:
            reply = getattr(worker, command.pop("do"))(**command)
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its row's result
            reply = {"error": f"{type(error).__name__}: {str(error).strip()[:600] or 'no message'}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    """Keep the replies' channel to ourselves: what libraries print goes to standard error."""
    if sys.platform == "linux":  # even a stopped worker must not outlive the bench
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
