"""The C API of ``voxelrt.h`` from Python: the library's structs and signatures, loading it, and its errors as ours."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt import environment
from voxelrt.errors import (
    CancelledError,
    NativeLibraryError,
    PlanError,
    ShapeError,
    UnsupportedError,
    UsageError,
    VoxelRTError,
)

MAX_RANK = 8
VERSION = "0.1.0"

DTYPES: dict[str, int] = {
    "float32": 1,
    "float64": 2,
    "float16": 3,
    "bfloat16": 4,
    "int8": 5,
    "uint8": 6,
    "int16": 7,
    "uint16": 8,
    "int32": 9,
    "uint32": 10,
    "int64": 11,
    "uint64": 12,
    "bool": 13,
}
_NUMPY = {code: np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name) for name, code in DTYPES.items()}


def dtype_code(dtype: Any) -> int:
    """The library's number of a NumPy dtype. Raises UsageError for one it does not have."""
    name = np.dtype(dtype).name
    if name not in DTYPES:
        raise UsageError(f"dtype {name} is not supported; supported are {', '.join(DTYPES)}")
    return DTYPES[name]


def numpy_dtype(code: int) -> np.dtype[Any]:
    """The NumPy dtype of a number of the library."""
    return _NUMPY[code]


class CTensor(ctypes.Structure):
    """voxelrt_tensor"""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("dtype", ctypes.c_uint8),
        ("layout", ctypes.c_uint8),
        ("rank", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
        ("data", ctypes.c_void_p),
        ("dims", ctypes.c_int64 * MAX_RANK),
        ("strides", ctypes.c_int64 * MAX_RANK),
    )


class COperand(ctypes.Structure):
    """voxelrt_operand"""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("pending_slope", ctypes.c_float),
        ("tensor", CTensor),
        ("pending_scale", ctypes.c_void_p),
        ("pending_shift", ctypes.c_void_p),
    )


class CKernelInfo(ctypes.Structure):
    """voxelrt_kernel_info"""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
        ("parameters", ctypes.c_char_p),
        ("parameter_bytes", ctypes.c_uint32),
    )


_PointerPointer = ctypes.POINTER(ctypes.c_void_p)
# name -> (result, arguments); a final error argument is added to those whose result is a status (c_int).
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "voxelrt_error_status": (ctypes.c_int, [ctypes.c_void_p]),
    "voxelrt_error_message": (ctypes.c_char_p, [ctypes.c_void_p]),
    "voxelrt_error_release": (None, [ctypes.c_void_p]),
    "voxelrt_version": (ctypes.c_char_p, []),
    "voxelrt_isa": (ctypes.c_char_p, [_PointerPointer]),
    "voxelrt_target": (ctypes.c_char_p, [_PointerPointer]),
    "voxelrt_crc32c": (ctypes.c_uint32, [ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t]),
    "voxelrt_record_size": (ctypes.c_uint32, [ctypes.c_char_p]),
    "voxelrt_kernel_at": (ctypes.c_int, [ctypes.c_uint32, ctypes.POINTER(CKernelInfo), _PointerPointer]),
    "voxelrt_kernel_check": (
        ctypes.c_int,
        [
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.POINTER(COperand),
            ctypes.c_uint32,
            ctypes.POINTER(COperand),
            ctypes.c_uint32,
            _PointerPointer,
        ],
    ),
    "voxelrt_kernel_run": (
        ctypes.c_int,
        [
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.POINTER(COperand),
            ctypes.c_uint32,
            ctypes.POINTER(COperand),
            ctypes.c_uint32,
            ctypes.c_void_p,
            _PointerPointer,
        ],
    ),
    "voxelrt_pack_bytes": (
        ctypes.c_int,
        [
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.POINTER(CTensor),
            ctypes.POINTER(ctypes.c_uint64),
            _PointerPointer,
        ],
    ),
    "voxelrt_pack": (
        ctypes.c_int,
        [
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.POINTER(CTensor),
            ctypes.c_void_p,
            ctypes.c_uint64,
            _PointerPointer,
        ],
    ),
    "voxelrt_pool_create": (ctypes.c_int, [ctypes.c_uint32, _PointerPointer, _PointerPointer]),
    "voxelrt_pool_threads": (ctypes.c_uint32, [ctypes.c_void_p]),
    "voxelrt_pool_release": (None, [ctypes.c_void_p]),
}

_ERRORS: dict[int, type[VoxelRTError]] = {
    1: ShapeError,
    2: PlanError,
    3: PlanError,
    4: UnsupportedError,
    6: CancelledError,
    8: PlanError,
}


@functools.cache
def library() -> ctypes.CDLL:
    """The native library, loaded once.

    Raises
    ------
    NativeLibraryError : it was not built, is of another version, or cannot run on this processor.
    UsageError : the environment has a ``VOXELRT_*`` name or value that does not exist.
    """
    environment.check_names()
    path = environment.library_path() or Path(__file__).with_name("libvoxelrt.so")
    if not path.exists():
        raise NativeLibraryError(f"the native library {path.name} was not built: run `pip install .` or `make native`")
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeLibraryError(f"the native library {path.name} cannot be loaded: {error}") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    version = loaded.voxelrt_version().decode()
    if version != VERSION:
        raise NativeLibraryError(f"the native library is version {version}, the package {VERSION}: build it again")
    refusal = ctypes.c_void_p()
    if loaded.voxelrt_isa(ctypes.byref(refusal)) is None:
        message = loaded.voxelrt_error_message(refusal).decode()
        loaded.voxelrt_error_release(refusal)
        raise NativeLibraryError(message)
    return loaded


def check(status: int, error: ctypes.c_void_p) -> None:
    """Raise the exception of a failed call of the library and release its error object."""
    if status == 0:
        return
    message = library().voxelrt_error_message(error).decode(errors="replace") or f"status {status}"
    library().voxelrt_error_release(error)
    if status == 5:
        raise MemoryError(message)
    raise _ERRORS.get(status, VoxelRTError)(message)


def isa() -> str:
    """The instruction set in use: ``avx2``, ``avx512`` or ``neon``."""
    return str(library().voxelrt_isa(None).decode())


def target() -> str:
    """The name of the compiled sections that run here, e.g. ``x86-avx512``."""
    return str(library().voxelrt_target(None).decode())


def crc32c(data: Any, seed: int = 0) -> int:
    """CRC-32C of a bytes-like object."""
    view = np.frombuffer(data, np.uint8)
    return int(library().voxelrt_crc32c(seed, view.ctypes.data, view.size))
