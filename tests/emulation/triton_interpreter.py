"""Run a Triton program in Triton's own interpreter, on host memory with guards around each buffer.

The interpreter follows raw addresses, so a store out of bounds would land in this process: the guards show it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.emulation.shim_runner import start_bytes
from voxelrt.kernels.common.gpu.program import Buffer, Launch, Program, Tensor

_GUARD = 4096
_MARK = 0xA5


class GuardError(AssertionError):
    """A kernel wrote beside its buffers."""


class _Pointer:
    """What the interpreter asks of a tensor: an address and a dtype."""

    def __init__(self, address: int, dtype: str) -> None:
        self._address = address
        self.dtype = dtype

    def data_ptr(self) -> int:
        return self._address


class _Memory:
    """A buffer between two guards."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.bytes = np.full(buffer.nbytes + 2 * _GUARD + 64, _MARK, np.uint8)
        self.start = _GUARD + -(self.bytes.ctypes.data + _GUARD) % 64
        self.bytes[self.start : self.start + buffer.nbytes] = np.frombuffer(start_bytes(buffer), np.uint8)
        self.address = self.bytes.ctypes.data + self.start

    def array(self) -> Any:
        return self.bytes[self.start : self.start + self.buffer.nbytes].view(self.buffer.dtype)

    def check(self, launch: Launch) -> None:
        end = self.start + self.buffer.nbytes
        if (self.bytes[: self.start] != _MARK).any() or (self.bytes[end:] != _MARK).any():
            raise GuardError(f"{launch.name} wrote outside a buffer of {self.buffer.elements} {self.buffer.dtype}")


def run(program: Program) -> Any:
    """Run a program; needs ``TRITON_INTERPRET=1`` since before Triton was imported.

    Raises
    ------
    GuardError : a store outside a buffer.
    """
    memory = {id(buffer): _Memory(buffer) for buffer in program.buffers}
    for launch in program.launches:
        values = [
            _Pointer(memory[id(a.buffer)].address + a.offset * a.dtype.itemsize, kind[1:])
            if isinstance(a, Tensor)
            else a.item()
            for a, kind in zip(launch.arguments, launch.types(), strict=True)
        ]
        _Executor.make(launch)(*values, **launch.constants)
        for each in memory.values():
            each.check(launch)
    return program.result(lambda buffer: memory[id(buffer)].array())


class _Executor:
    """Triton's grid executor, told to take host memory as it is: its own copies want PyTorch tensors."""

    @staticmethod
    def make(launch: Launch) -> Any:
        from triton.runtime.interpreter import GridExecutor

        class Executor(GridExecutor):  # type: ignore[misc]
            def _init_args_hst(self, args_dev: Any, kwargs: Any) -> Any:
                return args_dev, kwargs

            def _restore_args_dev(self, args_dev: Any, args_hst: Any, kwargs: Any, kwargs_hst: Any) -> None:
                pass

        function = launch.kernel
        return Executor(function.fn, function.arg_names, launch.grid)
