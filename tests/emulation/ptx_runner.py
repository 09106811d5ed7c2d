"""Run a program's PTX, as nvcc or Triton made it, in the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from tests.emulation.ptx.instructions import Kernel
from tests.emulation.ptx.machine import Machine
from tests.emulation.ptx.memory import GlobalMemory
from tests.emulation.ptx.parse import parse
from tests.emulation.shim_runner import start_bytes
from voxelrt.kernels.common.gpu.cuda_compiler import compile_ptx
from voxelrt.kernels.common.gpu.program import Buffer, Launch, Program, Tensor
from voxelrt.kernels.common.gpu.triton_compiler import compile_triton

Mutation = Callable[[str], str]


@lru_cache(maxsize=64)
def _kernel(ptx: str, name: str) -> Kernel:
    return Kernel(parse(ptx, name), name)


def code_of(program: Program, launch: Launch, target: int) -> tuple[str, str, int]:
    """The PTX of a launch, the entry's name, and the dynamic shared memory that it is launched with."""
    if isinstance(launch.kernel, str):
        return compile_ptx(program.source.with_suffix(".cu"), target), launch.kernel, launch.shared
    compiled, metadata = compile_triton(launch, target)
    return compiled.ptx, metadata["name"], metadata["shared"]


def run(
    program: Program, target: int, seed: int = 0, mutate: Mutation | None = None, only: Mapping[int, int] | None = None
) -> Any:
    """Run a program's launches on ``sm_<target>`` code; ``seed`` draws the order of warps and blocks.

    ``only`` : launch -> the one block of it to run.

    Raises
    ------
    PtxError : an access, a race, a barrier or an instruction that is wrong (see ``ptx.errors``).
    """
    memory = GlobalMemory([(start_bytes(b), _defined(b)) for b in program.buffers])
    place = {id(buffer): index for index, buffer in enumerate(program.buffers)}
    for number, launch in enumerate(program.launches):
        ptx, name, dynamic = code_of(program, launch, target)
        kernel = _kernel(mutate(ptx) if mutate else ptx, name)
        arguments = [_bytes(memory, place, value) for value in launch.arguments]
        # Triton adds pointers to memory of its own, which kernels without scratch memory never touch.
        arguments += [bytes(8)] * (0 if isinstance(launch.kernel, str) else 2)
        Machine(kernel, memory, seed * 1000 + number).launch(
            launch.grid, launch.block, dynamic, arguments, (only or {}).get(number)
        )
    return program.result(lambda b: memory.contents(place[id(b)]).view(b.dtype))


def same_code(program: Program, target: int, other: int) -> bool:
    """Whether every launch has the same PTX on two targets but for their names, so that one run proves both."""

    def body(launch: Launch, which: int) -> str:
        lines = code_of(program, launch, which)[0].splitlines()
        return "\n".join(line for line in lines if not line.startswith((".target", ".version", "//")))

    return all(body(launch, target) == body(launch, other) for launch in program.launches)


def _defined(buffer: Buffer) -> Any:
    if buffer.initial is None:
        return np.zeros(buffer.nbytes, bool)
    if buffer.defined is None:
        return np.ones(buffer.nbytes, bool)
    return np.repeat(buffer.defined, buffer.dtype.itemsize)


def _bytes(memory: GlobalMemory, place: dict[int, int], value: Any) -> bytes:
    if isinstance(value, Tensor):
        address = memory.address(place[id(value.buffer)]) + value.offset * value.dtype.itemsize
        return np.uint64(address).tobytes()
    return bytes(value.tobytes())
