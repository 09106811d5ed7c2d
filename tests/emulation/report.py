"""What ptxas says of every CUDA kernel for every target: registers, spills, shared memory. ``make gpu-report``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from voxelrt.kernels.common.gpu.cuda_compiler import compile_cuda
from voxelrt.kernels.common.gpu.targets import TARGETS
from voxelrt.kernels.common.kernel import entries

_FOLDER = Path(__file__).resolve().parents[2] / "kernels"
_ENTRY = re.compile(
    r"Function properties for (?P<name>voxelrt_\w+)\s+(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill "
    r"stores, (?P<loads>\d+) bytes spill loads\s+ptxas info\s*: Used (?P<registers>\d+) registers(?P<rest>[^\n]*)"
)
_REGISTERS, _WARP_UNIT = 65536, 256  # of a multiprocessor, all targets alike; a warp gets a multiple of the unit


@dataclass(frozen=True)
class Usage:
    """One entry for one target; bytes a thread, but shared memory a block (what is not dynamic)."""

    op: str
    target: int
    entry: str
    registers: int
    spills: int
    stack: int
    shared: int

    @property
    def warps(self) -> int:
        """How many warps of a multiprocessor the registers have room for."""
        return _REGISTERS // (-(-self.registers * 32 // _WARP_UNIT) * _WARP_UNIT)


def parse(op: str, target: int, log: str) -> list[Usage]:
    """The entries of a log of ``ptxas -v``, in the order of their names."""
    found = []
    for entry in _ENTRY.finditer(log):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        spills = int(entry["stores"]) + int(entry["loads"])
        size = int(shared[1]) if shared else 0
        found.append(Usage(op, target, entry["name"], int(entry["registers"]), spills, int(entry["stack"]), size))
    return sorted(found, key=lambda usage: usage.entry)


def usages(op: str, target: int) -> list[Usage]:
    """What the entries of an op's ``cuda.cu`` need on a target."""
    return parse(op, target, compile_cuda(_FOLDER / op / "cuda.cu", target).log)


def lines() -> Iterator[str]:
    """The report, Markdown."""
    yield "# CUDA kernels, as ptxas compiled them"
    yield ""
    yield "Written by `make gpu-report`. Spills and stack in bytes a thread, static shared memory in bytes a block; the"
    yield "warps of a multiprocessor are those that its 65536 registers have room for. No kernel was timed."
    yield ""
    yield "| entry | target | registers | warps | spills | stack | shared |"
    yield "|---|---|---|---|---|---|---|"
    for op, kernel in entries().items():
        if "cuda" not in kernel.backends:
            continue
        for u in sorted((u for target in TARGETS for u in usages(op, target)), key=lambda u: (u.entry, u.target)):
            numbers = (f"sm_{u.target}", u.registers, u.warps, u.spills, u.stack, u.shared)
            yield f"| {u.entry} | {' | '.join(map(str, numbers))} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
