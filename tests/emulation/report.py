"""What ptxas says of every CUDA kernel for every target: registers, spills, shared memory. ``make gpu-report``."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from voxelrt.errors import DeviceError
from voxelrt.kernels.common.gpu.cuda_compiler import compile_cuda
from voxelrt.kernels.common.gpu.program import Launch
from voxelrt.kernels.common.gpu.targets import TARGETS
from voxelrt.kernels.common.gpu.triton_compiler import compile_triton
from voxelrt.kernels.common.kernel import entries

_FOLDER = Path(__file__).resolve().parents[2] / "kernels"
_ENTRY = re.compile(
    r"Function properties for (?P<name>voxelrt_\w+)\s+(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill "
    r"stores, (?P<loads>\d+) bytes spill loads\s+ptxas info\s*: Used (?P<registers>\d+) registers(?P<rest>[^\n]*)"
)
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)")
_TENSOR_CORES = re.compile(r"\b(?:HG|Q?G|H|I|D|B|UTC\w*|OM)?MMA(?:\.\S+)?\b")
# (op, target) -> why a Triton kernel is not for it: it compiles and is right, but nobody should run it.
UNFIT = {("conv3d", 75): "Triton has no tensor-core products for sm_75; TensorRT or the CPU convolves there"}
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
    tensor_cores: int = 0

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


def triton_usage(op: str, launch: Launch, target: int) -> Usage:
    """What a Triton launch's cubin needs on a target; its stack holds what is spilled and nothing else."""
    compiled, metadata = compile_triton(launch, target)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "cubin")
        cubin.write_bytes(compiled.cubin)
        found = _RESOURCES.search(_tool("cuobjdump", "-res-usage", cubin))
        code = _tool("nvdisasm", "-c", cubin)
    if found is None:
        raise DeviceError(f"cuobjdump says nothing of {launch.name} for sm_{target}")
    registers, stack, static = (int(n) for n in found.groups())
    count = len(_TENSOR_CORES.findall(code))
    return Usage(op, target, launch.name, registers, stack, stack, max(static, metadata["shared"]), count)


def _tool(name: str, *arguments: object) -> str:
    """What a tool of Triton's CUDA toolkit prints."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


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
