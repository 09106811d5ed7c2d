"""What a folder or zip holds, without trusting it: nothing is written, links stay inside, sizes are bounded.

An entry of a zip is read where it lies; names of files are never shown, because they may name a patient.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from voxelrt.errors import InputError

# More files than any study has, and more bytes in one file than any object; what declares more is refused.
MAX_FILES = 200_000
MAX_FILE_BYTES = 16 * 2**30
MAX_ZIP_BYTES = 64 * 2**30
# A deflated file is inflated as a whole, so it is held to less.
MAX_INFLATED_BYTES = 512 * 2**20
PIECE = 4 * 2**20
START = 132  # bytes that tell DICOM


class Content(Protocol):
    """One file, in a folder or in a zip."""

    @property
    def path(self) -> Path:
        """The file on disk that holds it: itself, or the zip."""

    @property
    def key(self) -> str:
        """Its name, for sorting only."""

    def size(self) -> int:
        """Bytes."""

    def open(self) -> IO[bytes]:
        """A stream from the start, that can seek."""

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset`."""


@dataclass(frozen=True)
class FileContent:
    """A file on disk."""

    path: Path = field(repr=False)

    @property
    def key(self) -> str:
        return str(self.path)

    def size(self) -> int:
        return self.path.stat().st_size

    def open(self) -> IO[bytes]:
        return open(self.path, "rb", buffering=1 << 15)

    def read(self, offset: int, count: int) -> bytes:
        with open(self.path, "rb", buffering=0) as stream:
            stream.seek(offset)
            return stream.read(max(0, min(count, os.fstat(stream.fileno()).st_size - offset)))


@dataclass(frozen=True)
class ZipContent:
    """An entry of a zip. It is never read past the size that the zip's directory declares."""

    archive: _Archive = field(repr=False)
    entry: zipfile.ZipInfo = field(repr=False)

    @property
    def path(self) -> Path:
        return self.archive.path

    @property
    def key(self) -> str:
        return self.entry.filename

    def size(self) -> int:
        return self.entry.file_size

    def open(self) -> IO[bytes]:
        return self.archive.open(self.entry)

    def read(self, offset: int, count: int) -> bytes:
        try:
            with self.open() as stream:
                stream.seek(offset)
                data = stream.read(max(0, min(count, self.entry.file_size - offset)))
                if self.entry.file_size - offset - len(data) <= PIECE:
                    while stream.read(PIECE):  # zipfile compares the checksum at the end only
                        pass
                return data
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise InputError(f"a file inside the zip is damaged ({type(error).__name__})") from None


@dataclass(frozen=True)
class DeflatedContent:
    """A deflated file as the explicit little endian one that it holds (PS3.5 A.5), inflated anew at each look.

    Parameters
    ----------
    inner
        The file as it is.
    start
        Where the deflated part begins: behind the meta information.
    """

    inner: Content = field(repr=False)
    start: int

    @property
    def path(self) -> Path:
        return self.inner.path

    @property
    def key(self) -> str:
        return self.inner.key

    def size(self) -> int:
        return len(self._inflate().getbuffer())

    def open(self) -> IO[bytes]:
        return self._inflate()

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self._inflate().getbuffer()[offset : offset + max(0, count)])

    def _inflate(self) -> io.BytesIO:
        """Piece by piece: a single call would hold what it makes twice."""
        unpacker, plain = zlib.decompressobj(-zlib.MAX_WBITS), io.BytesIO()
        code = self.inner.read(self.start, MAX_INFLATED_BYTES)
        try:
            while code and not unpacker.eof:
                plain.write(unpacker.decompress(code, PIECE))
                code = unpacker.unconsumed_tail
                if plain.tell() > MAX_INFLATED_BYTES:
                    raise InputError(
                        f"a deflated DICOM file holds more than the {MAX_INFLATED_BYTES >> 20} MiB that are read"
                    )
            plain.write(unpacker.flush(PIECE))
        except zlib.error:
            raise InputError("a deflated DICOM file is damaged") from None
        plain.seek(0)
        return plain


class _Archive:
    """A zip that several threads read: its one file handle is shared under zipfile's own lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._zip: zipfile.ZipFile | None = None

    def open(self, entry: zipfile.ZipInfo) -> IO[bytes]:
        """A stream of one entry."""
        with self._lock:
            if self._zip is None:
                self._zip = zipfile.ZipFile(self.path)
            return self._zip.open(entry)

    def entries(self) -> list[zipfile.ZipInfo]:
        """Its files. Raises InputError."""
        try:
            with zipfile.ZipFile(self.path) as opened:
                found = [entry for entry in opened.infolist() if not entry.is_dir()]
        except OSError as error:
            raise InputError(f"cannot read the zip: {error.strerror or type(error).__name__}") from None
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, IndexError, struct.error):
            raise InputError("the zip is damaged: its directory cannot be read") from None
        declared = sum(entry.file_size for entry in found)
        if declared > MAX_ZIP_BYTES or len(found) > MAX_FILES:
            raise InputError(
                f"the zip declares {len(found)} files of {declared / 2**30:.1f} GiB; at most {MAX_FILES} files of "
                f"{MAX_ZIP_BYTES / 2**30:.0f} GiB are read: unpack it, and give the folder"
            )
        return found


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip does."""
    with open(path, "rb") as stream:
        return stream.read(4) in (b"PK\3\4", b"PK\5\6")


def list_contents(paths: Path | list[Path]) -> tuple[list[Content], Counter[str]]:
    """The files of a folder with its subfolders, of a zip, or these files; sorted by name.

    Parameters
    ----------
    paths
        A folder, a zip, a file, or files.

    Returns
    -------
    found : the files that can be looked at.
    skipped : why others were not -> how many.

    Raises
    ------
    InputError : a folder that cannot be listed, a damaged zip, more files than are read.
    """
    skipped: Counter[str] = Counter()
    if not isinstance(paths, Path):
        return sorted((FileContent(Path(path)) for path in paths), key=lambda c: c.key), skipped
    if paths.is_dir():
        return _of_folder(paths, skipped), skipped
    if is_zip(paths):
        return _of_zip(paths, skipped), skipped
    return [FileContent(paths)], skipped


def _of_folder(folder: Path, skipped: Counter[str]) -> list[Content]:
    # A folder that cannot be listed must not look like an empty one.
    failures: list[OSError] = []
    root = folder.resolve()
    found: list[Content] = []
    for parent, folders, names in os.walk(folder, onerror=failures.append):
        linked = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        if linked:
            skipped["links to folders, which are not followed"] += len(linked)
        for name in names:
            path = Path(parent, name)
            reason = _not_a_file(path, root)
            if reason:
                skipped[reason] += 1
            else:
                found.append(FileContent(path))
        if len(found) > MAX_FILES:
            raise InputError(f"the folder holds more than {MAX_FILES} files; give the folder of one study")
    if failures:
        raise InputError(f"cannot list the folder or one below it: {failures[0].strerror}")
    return sorted(found, key=lambda content: content.key)


def _not_a_file(path: Path, root: Path) -> str:
    """Why this is not to be opened, "" if it is."""
    if path.is_symlink():
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return "broken links"
        if not target.is_relative_to(root):
            return "links that lead out of the folder"
    return "" if path.is_file() else "neither file nor folder"


def _of_zip(path: Path, skipped: Counter[str]) -> list[Content]:
    archive = _Archive(path)
    found: list[Content] = []
    for entry in archive.entries():
        if entry.flag_bits & 1:
            skipped["encrypted in the zip"] += 1
        elif entry.file_size > MAX_FILE_BYTES:
            skipped["larger than any image"] += 1
        else:
            found.append(ZipContent(archive, entry))
    return sorted(found, key=lambda content: content.key)
