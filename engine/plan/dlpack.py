"""Arrays of other libraries that lie on a GPU, taken and given without a copy: DLPack and ``__cuda_array_interface__``.

Both say whose stream must wait for whom. Who takes a DLPack array names the stream that will read it, as a number, and
who gives it makes that stream wait: 1 is CUDA's legacy default stream, which None means too, 2 the default stream of
each thread, larger ones are handles, −1 asks for no waiting, 0 is not allowed. ``__cuda_array_interface__`` names the
stream that the reader has to wait for itself. Sources: DLPack's ``dlpack.h`` (the struct before version 1), the Python
array API standard (``array.__dlpack__``), Numba's CUDA array interface, version 3.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from voxelrt.errors import UsageError

CUDA, CUDA_MANAGED = 2, 13  # DLDeviceType
LEGACY, NO_SYNC = 1, -1  # streams
ANY_GPU = -1
MOST_AXES = 64
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_BFLOAT16 = (4, 16)
_KINDS: dict[tuple[int, int], np.dtype[Any]] = {
    (code, 8 * size): np.dtype(f"{kind}{size}")
    for kind, code in _CODES.items()
    for size in ((1, 2, 4, 8) if kind in "iu" else (2, 4, 8) if kind == "f" else (1,))
} | {_BFLOAT16: np.dtype(ml_dtypes.bfloat16)}


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("index", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # takes the interpreter's lock by itself
_DESTRUCTOR = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_NEW, _USED = b"dltensor", b"used_dltensor"
_api = ctypes.pythonapi
_capsule_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _DESTRUCTOR)(
    ("PyCapsule_New", _api)
)
# A capsule that is being destroyed has no reference left, and is spoken of by its address.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_at = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_set_name = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _api))


# ---- given ----

_given: dict[int, tuple[Any, ...]] = {}  # by address: the struct, its arrays, and what keeps the memory


def _delete(address: int) -> None:
    _given.pop(address, None)


def _destroy(capsule: int) -> None:
    """A capsule that nobody took lets go of its memory."""
    if _is_valid(capsule, _NEW):
        _delete(_pointer_at(capsule, _NEW))


_deleter, _destructor = _DELETER(_delete), _DESTRUCTOR(_destroy)


def capsule(owner: Any, address: int, shape: tuple[int, ...], dtype: Any, device: tuple[int, int]) -> Any:
    """A DLPack capsule of memory in C order.

    Parameters
    ----------
    owner : what keeps the memory, for as long as the capsule or who took it lives.
    device : (DLDeviceType, number).
    """
    kind = np.dtype(dtype)
    code, bits = _BFLOAT16 if kind == ml_dtypes.bfloat16 else (_CODES[kind.kind], 8 * kind.itemsize)
    sizes = (ctypes.c_int64 * max(1, len(shape)))(*shape)
    steps = (ctypes.c_int64 * max(1, len(shape)))(*(math.prod(shape[axis + 1 :]) for axis in range(len(shape))))
    tensor = _Tensor(address, _Device(*device), len(shape), _Type(code, bits, 1), sizes, steps, 0)
    made = _Managed(tensor, None, ctypes.cast(_deleter, ctypes.c_void_p).value)
    place = ctypes.addressof(made)
    _given[place] = (made, sizes, steps, owner)
    return _capsule_new(place, _NEW, _destructor)


def stream_number(stream: Any) -> int:
    """What a reader gave as its stream, checked. Raises TypeError, ValueError."""
    if stream is None:
        return LEGACY
    if isinstance(stream, bool) or not isinstance(stream, int):
        raise TypeError(f"a stream is given by its number, not as a {type(stream).__name__}")
    if stream == 0 or stream < NO_SYNC:
        raise ValueError(f"{stream} is no stream: 1 is the legacy default stream, 2 that of each thread, -1 none")
    return stream


# ---- taken ----


@dataclass(eq=False)
class Borrowed:
    """Another library's array on a GPU, until ``release``.

    Parameters
    ----------
    address, shape, dtype : of its first element; strides count elements.
    device : the GPU's number.
    awaits : a stream that a reader has to wait for first, by number; None where there is nothing to wait for.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    device: int
    awaits: int | None = None
    read_only: bool = False
    let_go: Callable[[], None] = lambda: None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether its elements lie in C order without gaps."""
        if math.prod(self.shape) == 0:
            return True
        wanted = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        return all(n == 1 or s == w for n, s, w in zip(self.shape, self.strides, wanted, strict=True))

    def release(self) -> None:
        """Say that it is not used any more."""
        let_go, self.let_go = self.let_go, lambda: None
        let_go()

    def __del__(self) -> None:
        self.release()


def gpu_of(given: Any) -> int | None:
    """The number of the GPU that an array lies on, ``ANY_GPU`` where it does not say; None where it is on none."""
    if hasattr(given, "__dlpack_device__"):
        kind, number = given.__dlpack_device__()
        return int(number) if int(kind) in (CUDA, CUDA_MANAGED) else None
    return ANY_GPU if getattr(given, "__cuda_array_interface__", None) is not None else None


def borrow(given: Any, stream: int, device: int) -> Borrowed:
    """Take an array that ``gpu_of`` knows.

    Parameters
    ----------
    stream : the number of the stream that will read or write it; who gives the array makes it wait.
    device : the reader's GPU.

    Raises
    ------
    UsageError : its library refused, or it has a type, a mask or axes that none of ours has.
    """
    try:
        if hasattr(given, "__dlpack__"):
            return _taken(given.__dlpack__(stream=stream))
        return _described(given.__cuda_array_interface__, given, device)
    except (BufferError, TypeError, ValueError, RuntimeError, KeyError) as error:
        raise UsageError(f"a {type(given).__name__} cannot be taken from its library: {error}") from error


def _taken(handed: Any) -> Borrowed:
    place = _pointer_of(handed, _NEW)  # raises ValueError for another kind of capsule, or one that was taken
    _set_name(handed, _USED)
    managed = _Managed.from_address(place)
    deleter = ctypes.cast(managed.deleter, _DELETER) if managed.deleter else None
    let_go = (lambda: deleter(place)) if deleter is not None else (lambda: None)
    tensor, kind = managed.tensor, managed.tensor.dtype
    made = Borrowed(0, (), (), np.dtype(np.uint8), int(tensor.device.index), let_go=let_go)
    if not 0 <= tensor.ndim <= MOST_AXES or kind.lanes != 1 or (kind.code, kind.bits) not in _KINDS:
        raise ValueError(f"it has {tensor.ndim} axes of the DLPack type {kind.code}:{kind.bits}:{kind.lanes}")
    made.shape, made.dtype = tuple(tensor.shape[: tensor.ndim]), _KINDS[kind.code, kind.bits]
    plain = tuple(math.prod(made.shape[axis + 1 :]) for axis in range(tensor.ndim))
    made.strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else plain
    made.address = (tensor.data or 0) + int(tensor.byte_offset)
    return made


def _described(words: dict[str, Any], owner: Any, device: int) -> Borrowed:
    if words.get("mask") is not None:
        raise ValueError("it is masked")
    dtype, shape = np.dtype(words["typestr"]), tuple(int(n) for n in words["shape"])
    address, read_only = words["data"]
    steps = words.get("strides")
    if steps is None:
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    elif any(step % dtype.itemsize for step in steps):
        raise ValueError("its strides are no multiples of its elements")
    else:
        strides = tuple(step // dtype.itemsize for step in steps)
    awaits = words.get("stream")
    if awaits is not None:
        awaits = stream_number(awaits)
    held = [owner]
    return Borrowed(int(address or 0), shape, strides, dtype, device, awaits, bool(read_only), held.clear)


# ---- ours ----


class Lease:
    """Memory that is out of a pool for as long as anybody refers to this.

    Parameters
    ----------
    back : called once with the numbers of the streams that were told of it, by whatever thread lets go of it last.
    """

    def __init__(self, back: Callable[[set[int]], None]) -> None:
        self._back, self.readers = back, set[int]()

    def __del__(self) -> None:
        self._back(self.readers)


class DeviceArray:
    """An output that stays on a GPU: CuPy, torch, Numba and others take it by DLPack or the CUDA array interface.

    Parameters
    ----------
    lease : keeps the memory.
    address, shape, dtype : C order.
    device : the GPU's number.
    stream : that writes it, by number.
    wait : makes the stream of a number wait until it is written.
    """

    def __init__(
        self,
        lease: Lease,
        address: int,
        shape: tuple[int, ...],
        dtype: Any,
        device: int,
        stream: int,
        wait: Callable[[int], None],
    ) -> None:
        self.shape, self.dtype, self.device = shape, np.dtype(dtype), device
        self._lease, self._address, self._stream, self._wait = lease, address, stream, wait

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule, for a reader on a stream (see the module); that stream waits until the array is written.

        Raises
        ------
        BufferError : another device or a copy is asked for. TypeError, ValueError : that is no stream.
        """
        del max_version  # the struct that every version takes
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError("an output of a plan is given as it lies: no copy, and on its own GPU")
        number = stream_number(stream)
        if number != NO_SYNC:
            self._wait(number)
        self._lease.readers.add(number)
        return capsule(self._lease, self._address, self.shape, self.dtype, self.__dlpack_device__())

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.dtype == ml_dtypes.bfloat16:
            raise AttributeError("the CUDA array interface has no bfloat16: use DLPack")
        self._lease.readers.add(NO_SYNC)  # it is not said who reads
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._address, False),
            "strides": None,
            "version": 3,
            "stream": self._stream,
        }

    def __array__(self, *given: Any, **options: Any) -> Any:
        """Raises TypeError: nothing is brought to the host behind anybody's back."""
        raise TypeError(f"{self!r} is no array of the host: take it with torch.from_dlpack or cupy.from_dlpack")

    def __repr__(self) -> str:
        return f"<voxelrt.DeviceArray {self.dtype} {self.shape} on GPU {self.device}>"
