"""Programs on an NVIDIA GPU: cubins loaded with CuPy, one launch after the other on the current stream."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxelrt.errors import DeviceError, MissingExtraError, ShapeError
from voxelrt.kernels.common.gpu.cuda_compiler import compile_cuda
from voxelrt.kernels.common.gpu.program import Buffer, Launch, Program, Tensor
from voxelrt.kernels.common.gpu.triton_compiler import compile_triton, specialisation
from voxelrt.kernels.common.kernel import Array


@functools.cache
def open_device(purpose: str) -> Device:
    """The current GPU.

    Raises
    ------
    MissingExtraError : CuPy is not installed.
    DeviceError : there is no driver or no GPU.
    """
    if importlib.util.find_spec("cupy") is None:
        raise MissingExtraError("cupy", "gpu", purpose)
    import cupy

    if not cupy.is_available():
        raise DeviceError(f"{purpose} needs an NVIDIA GPU and its driver, and none was found: use backend='cpu'")
    return Device(cupy)


@dataclass(frozen=True)
class Resident:
    """A program on the device: ``run`` launches it and waits, ``answer`` brings back what the last run left."""

    run: Callable[[], None]
    answer: Callable[[], Any]


class Device:
    """Runs programs. Loaded code is kept for the life of the process, by source, target and specialisation."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self.target = int(cupy.cuda.Device().compute_capability)
        self._loaded: dict[Any, tuple[Any, int, int]] = {}

    def call(self, program: Callable[..., Program], *arguments: Any, out: Array | None = None, **options: Any) -> Any:
        """Make the program of a call, run it and bring its answer back (into ``out`` where one is given)."""
        answer = self.run(program(*arguments, **options))
        if out is None:
            return answer
        if out.shape != answer.shape or out.dtype != answer.dtype:
            raise ShapeError(f"out is {out.dtype} {out.shape}; the answer is {answer.dtype} {answer.shape}")
        out[...] = answer
        return out

    def run(self, program: Program) -> Any:
        """Copy inputs in, launch, copy answers out. Memory starts as NaN bit patterns where nothing was copied."""
        resident = self.resident(program)
        resident.run()
        return resident.answer()

    def resident(self, program: Program) -> Resident:
        """A program whose buffers are on the device, its inputs copied."""
        memory = {id(buffer): self._allocate(buffer) for buffer in program.buffers}

        def run() -> None:
            for launch in program.launches:
                self.launch(program, launch, lambda buffer: int(memory[id(buffer)].data.ptr))
            self._cupy.cuda.get_current_stream().synchronize()

        return Resident(run, lambda: program.result(lambda buffer: self._fetch(buffer, memory[id(buffer)])))

    def launch(self, program: Program, launch: Launch, address: Callable[[Buffer], int]) -> None:
        """Put one launch on the current stream; ``address`` says where each buffer is."""
        function, shared, scratch_pointers = self._function(program, launch)
        values = [
            np.uint64(address(a.buffer) + a.offset * a.dtype.itemsize) if isinstance(a, Tensor) else a
            for a in launch.arguments
        ]
        values += [np.uint64(0)] * scratch_pointers
        function(launch.grid, launch.block, tuple(values), shared_mem=shared)

    def _allocate(self, buffer: Buffer) -> Any:
        size = max(buffer.nbytes, 1)
        memory = self._cupy.empty(size, self._cupy.uint8)
        memory.data.memset(0xFF, size)  # not cupy.full, which compiles a kernel and wants a toolkit for it
        if buffer.initial is not None and buffer.elements:
            memory.set(np.ascontiguousarray(buffer.initial).view(np.uint8))
        return memory

    @staticmethod
    def _fetch(buffer: Buffer, memory: Any) -> Array:
        host: Array = memory.get()[: buffer.nbytes].view(buffer.dtype)
        return host

    def _function(self, program: Program, launch: Launch) -> tuple[Any, int, int]:
        if isinstance(launch.kernel, str):
            key: Any = (program.source, launch.kernel, launch.shared)
        else:
            notes = tuple(sorted(specialisation(launch)))
            key = (launch.kernel, launch.types(), tuple(launch.constants.items()), notes, launch.block, launch.stages)
        if key not in self._loaded:
            self._loaded[key] = self._load(program, launch)
        return self._loaded[key]

    def _load(self, program: Program, launch: Launch) -> tuple[Any, int, int]:
        if isinstance(launch.kernel, str):
            compiled = compile_cuda(program.source.with_suffix(".cu"), self.target)
            name, shared, pointers = launch.kernel, launch.shared, 0
        else:
            compiled, metadata = compile_triton(launch, self.target)
            name, shared = metadata["name"], metadata["shared"]
            if metadata.get("global_scratch_size", 0):
                raise DeviceError(f"{launch.name} wants scratch memory of Triton's, which programs do not give")
            pointers = 2  # Triton's own: scratch memory and its profile's
        module = self._cupy.cuda.function.Module()
        module.load(compiled.cubin)
        function = self._cupy.cuda.function.Function(module, name)
        if shared > 48 * 1024:
            driver = self._cupy.cuda.driver
            driver.funcSetAttribute(function.ptr, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
        return function, shared, pointers
