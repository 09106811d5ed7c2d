"""Probabilities of all classes on disk, written row by row as they are made: (C, Z, Y, X) never exists in memory.

``.nii`` and ``.nii.gz`` are NIfTI with the classes as fourth axis; ``.zarr`` is a Zarr array (C, Z, Y, X) with its
affine and the classes' names among its attributes (extra ``zarr``). A gzipped NIfTI file is one gzip member a class,
which every reader of gzip joins, so that classes can be compressed side by side.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import MissingExtraError, OutputError, UsageError
from voxelrt.io import nifti_header
from voxelrt.io.atomic import atomic_path
from voxelrt.io.atomic_folder import atomic_folder
from voxelrt.volume import Volume

Floats = NDArray[np.float32]
SUFFIXES = (".nii", ".nii.gz", ".zarr")
LEVEL = 1  # of gzip: probabilities are mostly 0 and 1, and what is between hardly shrinks
ROWS = 64  # that are written at a time, and of a Zarr chunk
DTYPE = np.dtype("<f4")


class _Target(Protocol):
    def write(self, z: int, row: int, block: Floats) -> None: ...

    def close(self) -> None: ...


class ProbabilityFile:
    """A file, or Zarr folder, of probabilities in the making; a context manager that renames it into place at the end.

    Parameters
    ----------
    path : ends in one of ``SUFFIXES``.
    shape : (C, Z, Y, X).
    affine : voxel (x, y, z) to LPS mm.
    names : of the classes.

    Raises
    ------
    UsageError : another suffix. MissingExtraError : Zarr is not installed. OutputError : it cannot be written.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int, int, int], affine: NDArray[np.float64], names: list[str]
    ) -> None:
        refuse_probabilities(path)
        self._path, self._shape, self._affine, self._names = path, shape, affine, names
        self._stack = ExitStack()
        self._target: _Target | None = None

    def __enter__(self) -> ProbabilityFile:
        if self._path.suffix == ".zarr":
            place = self._stack.enter_context(atomic_folder(self._path))
            self._target = _Zarr(place, self._shape, self._affine, self._names)
        else:
            place = self._stack.enter_context(atomic_path(self._path))
            zipped = self._path.suffix == ".gz"
            self._target = (_Zipped if zipped else _Plain)(place, self._shape, self._affine)
        return self

    def write(self, z: int, row: int, block: Floats) -> None:
        """Rows of a plane, (C, rows, X), the first of which is `row`; planes and rows come in order."""
        if self._target is None:
            raise OutputError("the file of probabilities is not open")
        try:
            self._target.write(z, row, block)
        except OSError as error:
            raise OutputError(f"cannot write {self._path.name!r}: {error.strerror or type(error).__name__}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._target is not None:
                self._target.close()
        except OSError as failed:
            self._stack.__exit__(type(failed), failed, failed.__traceback__)
            raise OutputError(f"cannot write {self._path.name!r}: {failed.strerror}") from failed
        self._stack.__exit__(kind, error, trace)


def refuse_probabilities(path: Path) -> None:
    """Say before the work what would fail after it. Raises UsageError, MissingExtraError."""
    if not path.name.endswith(SUFFIXES):
        raise UsageError(f"{path.name!r}: the name of a file of probabilities ends in {', '.join(SUFFIXES)}")
    if path.suffix == ".zarr" and importlib.util.find_spec("zarr") is None:
        raise MissingExtraError("zarr", "zarr", "writing probabilities as Zarr")
    if path.suffix == ".zarr" and path.exists():
        raise OutputError(f"{path.name!r} is there already; a folder is not replaced")


def _header(shape: tuple[int, int, int, int], affine: NDArray[np.float64]) -> bytes:
    flat = np.broadcast_to(np.float32(0), shape)  # takes no memory
    header = nifti_header.for_result(Volume(flat, affine), DTYPE, None)
    return bytes(header.binaryblock) + b"\0\0\0\0"


class _Plain:
    """A NIfTI file, written where each row belongs."""

    def __init__(self, place: Path, shape: tuple[int, int, int, int], affine: NDArray[np.float64]) -> None:
        self._shape = shape
        self._file = open(place, "wb")  # noqa: SIM115 - closed by close()
        self._start = self._file.write(_header(shape, affine))

    def write(self, z: int, row: int, block: Floats) -> None:
        _, depth, height, width = self._shape
        for number, rows in enumerate(block):
            self._file.seek(self._start + 4 * width * ((number * depth + z) * height + row))
            self._file.write(np.ascontiguousarray(rows, DTYPE).data.cast("B"))

    def close(self) -> None:
        self._file.close()


class _Zipped:
    """A gzipped NIfTI file: each class is compressed into a scratch file of its own; they are joined at the end."""

    def __init__(self, place: Path, shape: tuple[int, int, int, int], affine: NDArray[np.float64]) -> None:
        self._place, self._head = place, _header(shape, affine)
        self._files: list[IO[bytes]] = [tempfile.TemporaryFile() for _ in range(shape[0])]  # noqa: SIM115
        self._members = [zlib.compressobj(LEVEL, zlib.DEFLATED, 31) for _ in range(shape[0])]

    def write(self, z: int, row: int, block: Floats) -> None:
        del z, row
        for rows, member, file in zip(block, self._members, self._files, strict=True):
            file.write(member.compress(np.ascontiguousarray(rows, DTYPE).data.cast("B")))

    def close(self) -> None:
        head = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
        with open(self._place, "wb") as whole:
            whole.write(head.compress(self._head) + head.flush())
            for member, file in zip(self._members, self._files, strict=True):
                file.write(member.flush())
                file.seek(0)
                shutil.copyfileobj(file, whole, 1 << 20)
                file.close()


class _Zarr:
    """A Zarr array; a chunk is what is written at once."""

    def __init__(
        self, place: Path, shape: tuple[int, int, int, int], affine: NDArray[np.float64], names: list[str]
    ) -> None:
        import zarr

        chunks = (shape[0], 1, min(ROWS, shape[2]), shape[3])
        self._array: Any = zarr.create_array(
            store=str(place), shape=shape, chunks=chunks, dtype="float32", overwrite=True, dimension_names=list("czyx")
        )
        self._array.attrs["affine_lps"] = affine.tolist()
        self._array.attrs["classes"] = names

    def write(self, z: int, row: int, block: Floats) -> None:
        self._array[:, z, row : row + block.shape[1]] = block

    def close(self) -> None:
        pass
