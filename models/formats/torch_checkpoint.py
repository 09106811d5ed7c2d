"""Checkpoints of ``torch.save`` read without torch and without running anything that they say.

A checkpoint is a zip archive: ``data.pkl`` names and nests, the tensors lie raw beside it. A pickle is a program; this
reader lets it build plain containers, numbers, texts, and *descriptions* of tensors. Every other class or function that
it names becomes an inert ``Opaque`` of that name, which takes whatever the pickle does to it and does nothing, so that
optimiser states, loggers and arguments of a trainer may lie beside the weights. Whoever reads weights refuses those.
"""

from __future__ import annotations

import io
import lzma
import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import ModelError, UnsupportedError
from voxelrt.models.formats.pickle_limits import check_content, check_program

Array = NDArray[Any]

MAX_PICKLE_BYTES = 64 << 20
MAX_RANK = 8
# What zipfile and the decompressors throw at hostile bytes (a method that is not supported is a RuntimeError).
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError)
STORAGES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class Opaque:
    """What a pickle called something that this reader does not know: a name, and nothing that can be done with it."""

    global_name = "an unknown object"

    def __new__(cls, *arguments: Any, **options: Any) -> Opaque:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **options: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None:
        """Take an item of a list and forget it."""

    def extend(self, items: Any) -> None:
        """Take items of a list and forget them."""


@dataclass(frozen=True)
class Storage:
    """A stretch of numbers in the archive: its record's name, NumPy dtype, and number of elements."""

    record: str
    dtype: Any
    elements: int


@dataclass(frozen=True)
class TensorPlace:
    """A tensor that has not been read yet: a view of a storage. Offset and strides are in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Dict(dict[Any, Any]):
    """A dict whose attributes (``_metadata`` of a state dict) are taken and forgotten."""

    def __setstate__(self, state: Any) -> None: ...


class Checkpoint:
    """An open checkpoint. A context manager.

    Parameters
    ----------
    path : the file.

    Raises
    ------
    ModelError : no such file, damaged, or not what torch.save writes.
    UnsupportedError : torch's old format, from before version 1.6.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        try:
            with path.open("rb") as stream:
                start = stream.read(4)
            if start[:1] == b"\x80":
                raise UnsupportedError(
                    f"{self.name} is in torch's format from before 1.6: save it again with a newer torch"
                )
            self._archive = zipfile.ZipFile(path)
            self._sizes = _listing(self._archive, path)
            found = [name for name in self._sizes if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(found) != 1:
                raise ModelError(f"{self.name} is no checkpoint of torch: it has no data.pkl")
            self._root = found[0].removesuffix("data.pkl")
            if self._root + "byteorder" in self._sizes and self._read("byteorder", 16) != b"little":
                raise UnsupportedError(f"{self.name} was written on a big-endian machine")
            self.content: Any = _unpickle(self._read("data.pkl", MAX_PICKLE_BYTES), self.name)
        except OSError as error:
            raise ModelError(f"{self.name} cannot be read: {error.strerror or 'it is damaged'}") from error
        except DAMAGE as error:
            raise ModelError(f"{self.name} is damaged or no checkpoint of torch") from error

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()

    def _read(self, record: str, limit: int) -> bytes:
        size = self._sizes.get(self._root + record, -1)
        if size < 0:
            raise ModelError(f"{self.name}: the part {record!r} is missing")
        if size > limit:
            raise ModelError(f"{self.name}: the part {record!r} has {size} bytes; at most {limit} are read")
        return self._archive.read(self._root + record)

    def tensor(self, place: TensorPlace, what: str) -> Array:
        """Read a tensor; `what` names it in errors.

        Returns
        -------
        array : contiguous, of the stored dtype.

        Raises
        ------
        ModelError : it does not lie inside its storage, or the storage is not in the file.
        """
        storage, count = place.storage, math.prod(place.shape)
        element = np.dtype(storage.dtype).itemsize
        record = f"data/{storage.record}"
        size = self._sizes.get(self._root + record, -1)
        if size < 0 or size != storage.elements * element:
            raise ModelError(f"{self.name}: {what} says it has {storage.elements} numbers; the file has not")
        last = place.offset + sum((n - 1) * step for n, step in zip(place.shape, place.strides, strict=True))
        if count and (last >= storage.elements or count > storage.elements):
            raise ModelError(f"{self.name}: {what} of shape {place.shape} does not lie inside its {size} bytes")
        try:
            flat = np.frombuffer(self._archive.read(self._root + record), storage.dtype)
        except (*DAMAGE, OSError) as error:
            raise ModelError(f"{self.name}: {what} is damaged") from error
        steps = tuple(step * element for step in place.strides)
        view = np.lib.stride_tricks.as_strided(flat[place.offset :], place.shape, steps) if count else flat[:0]
        return np.ascontiguousarray(view).reshape(place.shape)


def _listing(archive: zipfile.ZipFile, path: Path) -> dict[str, int]:
    """The size of every part. Parts are stored, not compressed, so none is larger than the file."""
    total = path.stat().st_size
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    for info in archive.infolist():
        packed = info.compress_type != zipfile.ZIP_STORED
        if info.file_size > total or (packed and info.file_size > MAX_PICKLE_BYTES):
            raise ModelError(f"{path.name}: a part says it has {info.file_size} bytes, the file has {total}")
    if len(sizes) != len(archive.infolist()):
        raise ModelError(f"{path.name} has two parts of one name")
    return sizes


def read_pickle(path: Path) -> Any:
    """A small pickle beside a checkpoint, by the same rules. Raises ModelError."""
    try:
        if path.stat().st_size > MAX_PICKLE_BYTES:
            raise ModelError(f"{path.name} is larger than {MAX_PICKLE_BYTES} bytes")
        return _unpickle(path.read_bytes(), path.name)
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror}") from error


def _unpickle(data: bytes, name: str) -> Any:
    try:
        check_program(data)
        content = _Reader(io.BytesIO(data)).load()
        check_content(content)
        return content
    except ModelError as error:
        raise type(error)(f"{name}: {error}") from None
    except Exception as error:  # noqa: BLE001 - a damaged pickle fails in any way; none of them is more than damage
        raise ModelError(f"{name} is damaged: its pickle stops at {type(error).__name__}") from None


class _Reader(pickle.Unpickler):
    """Names what a pickle may build; ``persistent_load`` gives the storages."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if module == "torch" and name in STORAGES:
            return type(name, (), {"dtype": STORAGES[name]})
        return _KNOWN.get(full) or type("Opaque", (Opaque,), {"global_name": full})

    def persistent_load(self, pid: Any) -> Storage:
        kind, storage, record, _, elements = pid
        dtype = getattr(storage, "dtype", None)
        if kind != "storage" or dtype is None or not isinstance(record, str) or not record.isdigit():
            raise ModelError(f"a storage of an unknown kind: {getattr(storage, 'global_name', kind)!r:.80}")
        return Storage(record, dtype, _size(elements))


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 48:
        raise ModelError(f"a tensor has a size or stride of {value!r:.40}")
    return value


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TensorPlace:
    if not isinstance(storage, Storage) or len(shape) != len(strides) or len(shape) > MAX_RANK:
        raise ModelError("a tensor without a storage, or of too many axes")
    return TensorPlace(storage, _size(offset), tuple(map(_size, shape)), tuple(map(_size, strides)))


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _ordered(items: Any = ()) -> _Dict:
    return _Dict(items if isinstance(items, Mapping | list) else {})


def _text(value: Any, *_: Any) -> bytes:
    """How protocol 2 writes bytes."""
    return value.encode("latin1") if isinstance(value, str) else b""


def _device(*parts: Any) -> str:
    return ":".join(str(part) for part in parts)[:80]


class _Dtype:
    """A NumPy dtype by its short name; the state that follows sets the byte order, which scalars take as little."""

    def __init__(self, text: Any = "", *_: Any) -> None:
        self.text = text if isinstance(text, str) else ""

    def __setstate__(self, state: Any) -> None: ...


class NumpyArray:
    """An array of numbers that a pickle holds; ``value`` is it once its state has come."""

    def __init__(self, *_: Any) -> None:
        self.value: Array = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, data = state
        self.value = _array(data, dtype, shape, "F" if by_columns else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any = "C") -> Array:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray) or dtype.text[:1] not in "fiub":
        return np.empty(0)  # of objects or texts: forgotten, as all that is not a number
    flat = np.frombuffer(data, np.dtype(dtype.text).newbyteorder("<"))
    return flat.reshape(tuple(map(_size, shape)), order="F" if order == "F" else "C")


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes) or dtype.text[:1] not in ("f", "i", "u", "b"):
        return Opaque()
    return np.frombuffer(data, np.dtype(dtype.text).newbyteorder("<"), 1)[0].item()


_KNOWN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda *_: _Dict(),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.device": _device,
    "_codecs.encode": _text,
    "__builtin__.bytes": lambda *_: b"",  # how protocol 2 writes none
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": NumpyArray,
    "numpy._core.multiarray._reconstruct": NumpyArray,
    "numpy.core.numeric._frombuffer": _array,
    "numpy._core.numeric._frombuffer": _array,
}
