"""Write a file whole or not at all: a temporary name in the same folder, then a rename. Every writer uses this."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from voxelrt.errors import OutputError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path to write to; on leaving, rename it to `path`, replacing what was there.

    If the body raises anything, KeyboardInterrupt included, the temporary file is removed and `path` is left as it
    was: nobody ever finds half a result. The temporary name keeps the suffixes of `path`, so writers that choose a
    format by suffix choose the right one.

    Parameters
    ----------
    path
        Where the file shall be. Its folder must exist (the rename is atomic only within one file system).

    Raises
    ------
    OutputError : the folder does not exist or cannot be written to, `path` is a folder, the disk is full.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{target.name!r} is a folder; give the name of a file to write")
    # The name is cut so that a target of the longest allowed length still gets a valid temporary name.
    suffix = "".join(target.suffixes[-2:])[-32:]
    temporary = target.parent / f".{target.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.partial{suffix}"
    try:
        # O_EXCL: never write through a link that someone laid in a shared folder. 0o666: the umask decides.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        flush(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"cannot write {target.name!r}: {error.strerror or type(error).__name__}") from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def flush(path: Path) -> None:
    """Bring the content to the disk before the rename, or a power cut could leave a whole name on an empty file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
