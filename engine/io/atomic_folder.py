"""Write a folder of many files whole or not at all: under a temporary name beside it, then one rename."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voxelrt.errors import OutputError
from voxelrt.io.atomic import flush


def refuse_folder(path: Path) -> None:
    """Raise OutputError for a folder that cannot be written whole: one that holds something, or a file's name."""
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path.name!r} is a file; give the name of a new folder")
    try:
        if path.is_dir() and any(path.iterdir()):
            raise OutputError(
                f"the folder {path.name!r} holds something; results of one study are written into a new or empty one"
            )
    except PermissionError as error:
        raise OutputError(f"cannot look into the folder {path.name!r}: {error.strerror}") from error
    if not path.absolute().parent.is_dir():
        raise OutputError(f"cannot write {path.name!r}: there is no folder {str(path.parent)!r}; make it first")


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder to fill; on leaving, rename it to `path`, which must not exist or be empty.

    If the body raises anything, KeyboardInterrupt included, the temporary folder goes with all it holds, and `path` is
    left as it was: nobody ever finds half a series.

    Raises
    ------
    OutputError : `path` holds something, its parent does not exist or cannot be written to, the disk is full.
    """
    target = Path(path)
    refuse_folder(target)
    temporary = target.parent / f".{target.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.partial"
    try:
        os.mkdir(temporary)
        yield temporary
        for file in temporary.iterdir():
            flush(file)
        flush(temporary)
        # A rename onto an empty folder replaces it; if somebody has filled it meanwhile, it fails and nothing is lost.
        os.rename(temporary, target)
    except OSError as error:
        raise OutputError(f"cannot write {target.name!r}: {error.strerror or type(error).__name__}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
