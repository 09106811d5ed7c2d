"""The native library's kernels on NumPy arrays, and its thread pool; ``capi`` is the library itself."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import re
import struct
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt import environment
from voxelrt.errors import ShapeError
from voxelrt.kernels.common.capi import MAX_RANK, CKernelInfo, COperand, CTensor, check, dtype_code, library

BLOCK = 16
LINEAR, BLOCKED16 = 0, 1
Array = NDArray[Any]


class Pool:
    """Compute threads. Pools are cheap; the threads start with the first work."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads if threads is not None else environment.threads()
        self.handle = ctypes.c_void_p()
        error = ctypes.c_void_p()
        check(library().voxelrt_pool_create(self.threads, ctypes.byref(self.handle), ctypes.byref(error)), error)
        weakref.finalize(self, library().voxelrt_pool_release, self.handle)


@functools.cache
def default_pool() -> Pool:
    """The pool of calls that name none."""
    return Pool()


class _Chosen(threading.local):
    pool: Pool | None = None


_chosen = _Chosen()


@contextlib.contextmanager
def on_pool(pool: Pool) -> Iterator[None]:
    """Kernels that this thread calls, and that name no pool, run on this one."""
    before, _chosen.pool = _chosen.pool, pool
    try:
        yield
    finally:
        _chosen.pool = before


@dataclass(frozen=True)
class Parameters:
    """A kernel of the library: its version and how its parameters are laid out (declared by the C++ source)."""

    name: str
    version: int
    fields: tuple[tuple[str, str, int], ...]  # (struct letter, name, count; 0 for a scalar)

    def pack(self, values: Mapping[str, Any]) -> bytes:
        """The parameter struct. Raises TypeError on a missing or unknown name: a mistake in the program."""
        unknown = set(values) - {name for _, name, _ in self.fields}
        if unknown:
            raise TypeError(f"{self.name} has no parameter {', '.join(sorted(unknown))}")
        parts = []
        for letter, name, count in self.fields:
            if name not in values:
                raise TypeError(f"{self.name} needs the parameter {name}")
            value = values[name]
            numbers = [value] if count == 0 else list(value)
            if len(numbers) != (count or 1):
                raise TypeError(f"{self.name}.{name} has {count} numbers, not {len(numbers)}")
            convert = float if letter in "fd" else int
            parts.append(struct.pack(f"<{len(numbers)}{letter}", *map(convert, numbers)))
        return b"".join(parts)

    def unpack(self, data: bytes) -> dict[str, Any]:
        """The parameters by name."""
        values: dict[str, Any] = {}
        offset = 0
        for letter, name, count in self.fields:
            layout = f"<{count or 1}{letter}"
            numbers = struct.unpack_from(layout, data, offset)
            values[name] = numbers if count else numbers[0]
            offset += struct.calcsize(layout)
        return values


_LETTERS = {"i32": "i", "i64": "q", "f32": "f", "f64": "d"}


@functools.cache
def kernels() -> dict[str, Parameters]:
    """All kernels of the library by name."""
    found: dict[str, Parameters] = {}
    info = CKernelInfo(struct_size=ctypes.sizeof(CKernelInfo))
    error = ctypes.c_void_p()
    while library().voxelrt_kernel_at(len(found), ctypes.byref(info), ctypes.byref(error)) == 0:
        fields = tuple(
            (_LETTERS[kind], name, int(count or 0))
            for kind, name, count in re.findall(r"(\w+) (\w+)(?:\[(\d+)\])?;", info.parameters.decode())
        )
        name = info.name.decode()
        found[name] = Parameters(name, info.version, fields)
    library().voxelrt_error_release(error)
    return found


@dataclass(frozen=True)
class Operand:
    """An array with what a kernel cannot see in a NumPy array.

    ``array`` holds BLOCKED16 data as (N, ceil(C/16), Z, Y, X, 16); ``channels`` is then C.
    ``pending`` = (scale (N, C), shift (N, C), slope): applied by the kernel when it loads.
    """

    array: Array
    layout: int = LINEAR
    channels: int = 0
    pending: tuple[Array, Array, float] | None = None


def _tensor(array: Array, layout: int = LINEAR, channels: int = 0) -> CTensor:
    made = CTensor(struct_size=ctypes.sizeof(CTensor), dtype=dtype_code(array.dtype), layout=layout)
    made.data = array.ctypes.data
    dims = array.shape
    strides = tuple(s // array.itemsize for s in array.strides)
    if layout == BLOCKED16:
        if array.ndim != 6 or array.shape[5] != BLOCK or not array.flags.c_contiguous:
            raise ShapeError(f"a blocked array has the shape (N, C/16, Z, Y, X, 16), not {array.shape}")
        z, y, x = dims[2:5]
        row = x * BLOCK
        strides = (dims[1] * z * y * row, z * y * row, y * row, row, BLOCK)
        dims = (dims[0], channels, z, y, x)
    if len(dims) > MAX_RANK:
        raise ShapeError(f"an array of {len(dims)} axes; at most {MAX_RANK} are supported")
    made.rank = len(dims)
    made.dims[: len(dims)] = dims
    made.strides[: len(dims)] = strides
    return made


def tensor(array: Array) -> CTensor:
    """A descriptor of a NumPy array; the array must outlive it."""
    return _tensor(array)


def _operands(given: Sequence[Array | Operand | None], keep: list[Any]) -> Any:
    made = (COperand * max(1, len(given)))()
    for i, item in enumerate(given):
        made[i].struct_size = ctypes.sizeof(COperand)
        made[i].pending_slope = 1.0
        if item is None:
            made[i].tensor.struct_size = ctypes.sizeof(CTensor)
            continue
        operand = item if isinstance(item, Operand) else Operand(item)
        made[i].tensor = _tensor(operand.array, operand.layout, operand.channels)
        keep.append(operand.array)
        if operand.pending is not None:
            scale, shift = (np.ascontiguousarray(v, np.float32) for v in operand.pending[:2])
            if scale.shape != shift.shape or scale.shape != tuple(made[i].tensor.dims[:2]):
                raise ShapeError(f"a pending scale has the shape (N, C), not {scale.shape}")
            keep += [scale, shift]
            made[i].pending_scale, made[i].pending_shift = scale.ctypes.data, shift.ctypes.data
            made[i].pending_slope = operand.pending[2]
    return made


def run_kernel(
    name: str,
    inputs: Sequence[Array | Operand | None],
    outputs: Sequence[Array | Operand],
    pool: Pool | None = None,
    **parameters: Any,
) -> None:
    """Run one kernel on arrays: the same checks and code as a step of a plan.

    Raises
    ------
    ShapeError : the kernel does not take these operands; its message says why.
    """
    keep: list[Any] = []
    packed = kernels()[name].pack(parameters)
    error = ctypes.c_void_p()
    status = library().voxelrt_kernel_run(
        name.encode(),
        packed,
        len(packed),
        _operands(inputs, keep),
        len(inputs),
        _operands(outputs, keep),
        len(outputs),
        (pool or _chosen.pool or default_pool()).handle,
        ctypes.byref(error),
    )
    check(status, error)


Description = tuple[int, int, Sequence[int], Sequence[int], bool]  # dtype, layout, dims, strides, pending


def _described(given: Sequence[Description | None]) -> Any:
    made = (COperand * max(1, len(given)))()
    mark = ctypes.c_float(0.0)  # an address that says "pending"; a check does not read it
    for i, item in enumerate(given):
        made[i].struct_size = ctypes.sizeof(COperand)
        made[i].pending_slope = 1.0
        made[i].tensor.struct_size = ctypes.sizeof(CTensor)
        if item is None:
            continue
        dtype, layout, dims, strides, pending = item
        made[i].tensor.dtype, made[i].tensor.layout, made[i].tensor.rank = dtype, layout, len(dims)
        made[i].tensor.dims[: len(dims)] = dims
        made[i].tensor.strides[: len(dims)] = strides
        if pending:
            made[i].pending_scale = made[i].pending_shift = ctypes.addressof(mark)
    return made


def check_kernel(
    name: str, packed: bytes, inputs: Sequence[Description | None], outputs: Sequence[Description | None]
) -> None:
    """Raise ShapeError with the kernel's reason where it does not take operands of these descriptions."""
    error = ctypes.c_void_p()
    status = library().voxelrt_kernel_check(
        name.encode(),
        packed,
        len(packed),
        _described(inputs),
        len(inputs),
        _described(outputs),
        len(outputs),
        ctypes.byref(error),
    )
    check(status, error)


def packed_bytes(name: str, raw: Array, packed_params: bytes) -> int:
    """The size of a raw weight packed for a kernel. Raises ShapeError where the kernel cannot pack it."""
    description, size, error = _tensor(np.ascontiguousarray(raw)), ctypes.c_uint64(), ctypes.c_void_p()
    status = library().voxelrt_pack_bytes(
        name.encode(),
        packed_params,
        len(packed_params),
        ctypes.byref(description),
        ctypes.byref(size),
        ctypes.byref(error),
    )
    check(status, error)
    return size.value


def pack_weight(name: str, raw: Array, **parameters: Any) -> NDArray[np.float32]:
    """A weight as the kernel wants it, as a flat float32 array (whatever the packed bytes mean)."""
    return pack_weight_bytes(name, raw, kernels()[name].pack(parameters))


def pack_weight_bytes(
    name: str, raw: Array, packed_params: bytes, out: NDArray[np.uint8] | None = None
) -> NDArray[np.float32]:
    """``pack_weight`` with parameters that are packed already; ``out``: memory for just the packed bytes."""
    raw = np.ascontiguousarray(raw)
    size = packed_bytes(name, raw, packed_params)
    result = aligned_empty((size // 4,), np.float32) if out is None else out.view(np.float32)
    if result.nbytes != size:
        raise ShapeError(f"out has {result.nbytes} bytes; the packed weight takes {size}")
    error = ctypes.c_void_p()
    status = library().voxelrt_pack(
        name.encode(),
        packed_params,
        len(packed_params),
        ctypes.byref(_tensor(raw)),
        result.ctypes.data,
        size,
        ctypes.byref(error),
    )
    check(status, error)
    return result


def aligned_empty(shape: Sequence[int], dtype: Any) -> Array:
    """An uninitialised C-contiguous array whose data is aligned to 64 bytes."""
    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    memory = np.empty(count + 64, np.uint8)
    start = -memory.ctypes.data % 64
    result: Array = memory[start : start + count].view(kind).reshape(shape)
    return result


def to_blocked(array: Array) -> Array:
    """(N, C, Z, Y, X) as (N, ceil(C/16), Z, Y, X, 16) with zeros past C: the BLOCKED16 layout."""
    n, c, *space = array.shape
    blocks = -(-c // BLOCK)
    padded = np.zeros((n, blocks * BLOCK, *space), array.dtype)
    padded[:, :c] = array
    return np.ascontiguousarray(np.moveaxis(padded.reshape(n, blocks, BLOCK, *space), 2, -1))


def from_blocked(array: Array, channels: int) -> Array:
    """The inverse of ``to_blocked``."""
    n, blocks, *space, _ = array.shape
    return np.ascontiguousarray(np.moveaxis(array, -1, 2).reshape(n, blocks * BLOCK, *space)[:, :channels])
