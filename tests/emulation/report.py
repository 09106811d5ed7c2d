"""What ptxas says of every CUDA kernel for every target: registers, spills, shared memory. ``make gpu-report``."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxelrt.errors import DeviceError, UnsupportedError
from voxelrt.kernels.common.gpu.cuda_compiler import compile_cuda
from voxelrt.kernels.common.gpu.program import Launch, Program
from voxelrt.kernels.common.gpu.targets import TARGETS
from voxelrt.kernels.common.gpu.triton_compiler import compile_triton
from voxelrt.kernels.common.kernel import Case, Kernel, entries

_FOLDER = Path(__file__).resolve().parents[2] / "kernels"
_ENTRY = re.compile(
    r"Function properties for (?P<name>voxelrt_\w+)\s+(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill "
    r"stores, (?P<loads>\d+) bytes spill loads\s+ptxas info\s*: Used (?P<registers>\d+) registers(?P<rest>[^\n]*)"
)
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)")
_TENSOR_CORES = re.compile(r"(?<![.\w])(?:HG|Q?G|I?G|H|I|D|B|Q|UTC\w*|OM)MMA(?:\.\S+)?\b")  # and not HFMA2.MMA
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


# By NVIDIA's data sheets, dense: TFLOP/s of float32, of TF32 on tensor cores, and GB/s of memory.
_GPUS = {"A100": (19.5, 156.0, 2039.0), "H100": (66.9, 494.7, 3350.0), "RTX 4090": (82.6, 82.6, 1008.0)}
_GPUS["AGX Orin"] = (5.3, 21.3, 204.8)


def floor_ms(case: Case, gpu: str, tensor_cores: bool) -> float:
    """No kernel is faster: the case's arithmetic or its memory traffic alone; float32 is three passes of TF32."""
    vector, tensor, memory = _GPUS[gpu]
    rate = tensor / 3 if tensor_cores else vector
    return max(case.flops / (rate * 1e9), case.bytes / (memory * 1e6))


def bench_programs(kernel: Kernel, backend: str) -> Iterator[tuple[Case, Program]]:
    """The programs of the realistic cases that a backend takes."""
    for case in kernel.cases:
        if case.bench:
            given, options = case.make(np.random.default_rng(1))
            with contextlib.suppress(UnsupportedError):
                yield case, kernel.program(backend)(*given, **options)


def _forms(kernel: Kernel) -> dict[str, Launch]:
    """The first form of each Triton kernel of the realistic cases."""
    found: dict[str, Launch] = {}
    for case, made in bench_programs(kernel, "triton"):
        for launch in made.launches:
            found.setdefault(launch.name if kernel.name != "conv3d" else f"{launch.name}, {case.name}", launch)
    return found


def lines() -> Iterator[str]:
    """The report, Markdown."""
    yield "# GPU kernels, as ptxas compiled them"
    yield ""
    yield "Written by `make gpu-report`. Spills and stack in bytes a thread, shared memory in bytes a block; the warps"
    yield "of a multiprocessor are those that its 65536 registers have room for. No kernel was timed."
    yield ""
    yield "## CUDA"
    yield ""
    yield "| entry | target | registers | warps | spills | stack | static shared |"
    yield "|---|---|---|---|---|---|---|"
    for op, kernel in entries().items():
        if "cuda" not in kernel.backends:
            continue
        for u in sorted((u for target in TARGETS for u in usages(op, target)), key=lambda u: (u.entry, u.target)):
            numbers = (f"sm_{u.target}", u.registers, u.warps, u.spills, u.stack, u.shared)
            yield f"| {u.entry} | {' | '.join(map(str, numbers))} |"
    yield from _triton_lines()
    yield from _floor_lines()


def _triton_lines() -> Iterator[str]:
    yield ""
    yield "## Triton, in the forms of the realistic cases"
    yield ""
    yield "All of a kernel's stack holds spilled registers. Tensor-core instructions are those of the disassembly."
    for (op, target), reason in UNFIT.items():
        yield f"{op} is not for sm_{target}: {reason}."
    yield ""
    yield "| op | kernel | target | registers | warps | spills | shared | tensor-core instructions |"
    yield "|---|---|---|---|---|---|---|---|"
    for op, kernel in entries().items():
        if "triton" not in kernel.backends:
            continue
        for name, launch in _forms(kernel).items():
            for target in TARGETS:
                u = triton_usage(op, launch, target)
                numbers = (f"sm_{target}", u.registers, u.warps, u.stack, u.shared, u.tensor_cores)
                yield f"| {op} | {name.lstrip('_')} | {' | '.join(map(str, numbers))} |"


def _floor_lines() -> Iterator[str]:
    yield ""
    yield "## Predicted floors"
    yield ""
    yield "Predicted, not measured: for each realistic case the milliseconds below which no kernel can be, by its"
    yield "arithmetic or its memory traffic and the data sheets' figures. conv3d in float32 is three passes of TF32."
    yield ""
    yield f"| op | case | GFLOP | MB | {' | '.join(_GPUS)} |"
    yield "|---|---|---|---|" + "---|" * len(_GPUS)
    for op, kernel in entries().items():
        if not {"cuda", "triton"} & set(kernel.backends):
            continue
        for case in kernel.cases:
            if case.bench and (case.flops or case.bytes):
                floors = (f"{floor_ms(case, gpu, op == 'conv3d'):.4f}" for gpu in _GPUS)
                yield f"| {op} | {case.name} | {case.flops / 1e9:.3f} | {case.bytes / 1e6:.2f} | {' | '.join(floors)} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
