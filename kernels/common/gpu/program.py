"""A GPU backend's answer to a call, as data: buffers and launches. Whoever runs kernels reads this and nothing else.

``kernels/<op>/cuda.py`` and ``kernels/<op>/triton.py`` each have ``program(*arguments, **options) -> Program`` with the
arguments of the op's oracle. A device launches the program; the tests run the same program through the CUDA-on-CPU
shim, Triton's interpreter and the PTX interpreter; the compiler takes from it what to make cubins of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.errors import UsageError
from voxelrt.kernels.common.kernel import Array

# How Triton and the compilers call a type, for everything that may be an argument or behind a pointer.
TYPE_NAMES: dict[Any, str] = {
    np.dtype(np.float32): "fp32",
    np.dtype(np.float64): "fp64",
    np.dtype(np.float16): "fp16",
    np.dtype(ml_dtypes.bfloat16): "bf16",
    np.dtype(np.int8): "i8",
    np.dtype(np.uint8): "u8",
    np.dtype(np.int16): "i16",
    np.dtype(np.uint16): "u16",
    np.dtype(np.int32): "i32",
    np.dtype(np.uint32): "u32",
    np.dtype(np.int64): "i64",
    np.dtype(np.uint64): "u64",
}


def _type_name(dtype: Any) -> str:
    if np.dtype(dtype) not in TYPE_NAMES:
        raise UsageError(f"kernels take no {np.dtype(dtype)}; they take {', '.join(TYPE_NAMES.values())}")
    return TYPE_NAMES[np.dtype(dtype)]


@dataclass(frozen=True, eq=False)
class Buffer:
    """Device memory of one program.

    Parameters
    ----------
    dtype, elements : what it holds; nothing lies before or behind, and every executor checks that.
    initial : (elements,) what an input holds; None where only launches write.
    defined : (elements,) bool, which elements of ``initial`` belong to the input (the others are gaps of a strided
        view, which no kernel may read); None means all.
    given : the array that an input was made of, for those who look where it lies instead of copying it.
    """

    dtype: Any
    elements: int
    initial: Array | None = None
    defined: Array | None = None
    given: Array | None = None

    @property
    def nbytes(self) -> int:
        return self.elements * int(np.dtype(self.dtype).itemsize)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A strided view of a buffer. As a kernel's argument it is a pointer to its first element; pass strides beside it.

    ``offset`` and ``strides`` count elements; strides may be negative or zero.
    """

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> Any:
        return self.buffer.dtype

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def view(self, memory: Array) -> Array:
        """The tensor's elements in ``memory``, the buffer's (elements,) array."""
        if self.size == 0:
            return np.empty(self.shape, memory.dtype)
        strides = [s * memory.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(memory[self.offset :], self.shape, strides)


@dataclass(frozen=True, eq=False)
class Launch:
    """One kernel launch.

    Parameters
    ----------
    kernel : the exported name in ``cuda.cu``, or the function that ``triton.jit`` made.
    grid : blocks along x, y, z.
    arguments : in the kernel's order: a ``Tensor`` (a pointer), an int (int64), a float (float32) or a NumPy scalar
        (its own type). Sizes and strides are int64, so that indices are safe past 2³¹ elements.
    block : threads along x, y, z; for Triton (32 · num_warps, 1, 1).
    shared : dynamic shared memory in bytes; Triton's compiler decides for itself.
    constants : Triton's constexpr arguments, by name; empty for CUDA.
    stages : Triton's ``num_stages``.
    registers : of a thread, that Triton's code may use; 0 leaves it to ptxas, which may aim at more blocks and spill.
    """

    kernel: Any
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]
    block: tuple[int, int, int] = (128, 1, 1)
    shared: int = 0
    constants: Mapping[str, Any] = field(default_factory=dict)
    stages: int = 2
    registers: int = 0

    @property
    def name(self) -> str:
        return self.kernel if isinstance(self.kernel, str) else str(self.kernel.__name__)

    @property
    def threads(self) -> int:
        return int(np.prod(self.grid)) * int(np.prod(self.block))

    def types(self) -> tuple[str, ...]:
        """The arguments' types as Triton writes them: ``*fp32``, ``i64``, ``fp32`` ..."""
        return tuple(
            f"*{_type_name(a.dtype)}" if isinstance(a, Tensor) else _type_name(a.dtype) for a in self.arguments
        )


def _argument(value: Any) -> Any:
    if isinstance(value, Tensor | np.generic):
        return value
    if isinstance(value, bool):
        return np.int32(value)
    if isinstance(value, int):
        return np.int64(value)
    if isinstance(value, float):
        return np.float32(value)
    raise UsageError(
        f"a kernel takes no {type(value).__name__} as an argument; give a Tensor, a number or NumPy scalar"
    )


def _three(size: int | Sequence[int]) -> tuple[int, int, int]:
    given = (size,) if isinstance(size, int | np.integer) else tuple(size)
    x, y, z = (*(int(v) for v in given), 1, 1, 1)[:3]
    return x, y, z


class Program:
    """What a backend does for one call: buffers, launches in order, and which tensors are the answer.

    Parameters
    ----------
    source : ``__file__`` of the backend's module; CUDA kernels are in the ``cuda.cu`` beside it.
    """

    def __init__(self, source: str) -> None:
        self.source = Path(source)
        self.buffers: list[Buffer] = []
        self.launches: list[Launch] = []
        self.answers: list[Tensor] = []
        self._finish: Callable[..., Any] | None = None

    def input(self, array: Array, dtype: Any = None) -> Tensor:
        """An input of any strides, mirrored views included; its gaps stay undefined on the device."""
        given = np.asarray(array) if dtype is None else np.asarray(array, dtype)
        _type_name(given.dtype)
        item = given.itemsize
        if given.size == 0 or any(s % item for s in given.strides):
            given = np.ascontiguousarray(given)
        steps = tuple(s // item for s in given.strides)
        reach = [(n - 1) * s for n, s in zip(given.shape, steps, strict=True)] if given.size else []
        first, last = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
        elements = (last - first + 1) if given.size else 0
        initial = np.zeros(elements, given.dtype)
        defined = np.zeros(elements, bool)
        shell = Tensor(Buffer(given.dtype, elements), -first, given.shape, steps)
        if given.size:
            shell.view(initial)[...] = given
            shell.view(defined)[...] = True
        buffer = Buffer(given.dtype, elements, initial, None if defined.all() else defined, given)
        self.buffers.append(buffer)
        return Tensor(buffer, -first, given.shape, steps)

    def scratch(self, shape: Sequence[int], dtype: Any = np.float32) -> Tensor:
        """Memory between launches, C order, undefined until a launch writes it."""
        sizes = tuple(int(n) for n in shape)
        strides = tuple(int(np.prod(sizes[a + 1 :], dtype=np.int64)) for a in range(len(sizes)))
        buffer = Buffer(np.dtype(dtype), int(np.prod(sizes, dtype=np.int64)))
        self.buffers.append(buffer)
        return Tensor(buffer, 0, sizes, strides)

    def output(self, shape: Sequence[int], dtype: Any = np.float32) -> Tensor:
        """Memory that launches write whole and the call returns; several come back as a tuple, in this order."""
        tensor = self.scratch(shape, dtype)
        self.answers.append(tensor)
        return tensor

    def launch(
        self,
        kernel: Any,
        grid: int | Sequence[int],
        *arguments: Any,
        block: int | Sequence[int] = 128,
        shared: int = 0,
        stages: int = 2,
        registers: int = 0,
        **constants: Any,
    ) -> None:
        """Add a launch; one with an empty grid does nothing. ``constants`` are Triton's constexpr arguments.

        Raises
        ------
        UsageError : a grid or block past the limits of every GPU, or an argument of a type that kernels do not take.
        """
        blocks, threads = _three(grid), _three(block)
        if min(blocks) == 0:
            return
        if blocks[0] > 2**31 - 1 or max(blocks[1:]) > 65535 or int(np.prod(threads)) > 1024 or min(threads) < 1:
            raise UsageError(f"no GPU has a grid of {blocks} blocks of {threads} threads; split the work")
        passed = tuple(_argument(a) for a in arguments)
        self.launches.append(Launch(kernel, blocks, passed, threads, shared, constants, stages, registers))

    def finish(self, function: Callable[..., Any]) -> None:
        """Turn the answers' arrays into what the op returns, on the host: a transposed view, never arithmetic."""
        self._finish = function

    def result(self, memory: Callable[[Buffer], Array]) -> Any:
        """What the op returns, once the launches ran; ``memory`` gives each buffer's (elements,) array."""
        arrays = [tensor.view(memory(tensor.buffer)) for tensor in self.answers]
        if self._finish is not None:
            return self._finish(*arrays)
        return arrays[0] if len(arrays) == 1 else tuple(arrays)
