"""What a session wrote into a folder, so that a later one may go on where it stopped.

A study is known by a digest of its content: no names, no paths. A mask is kept only if it was made from this very study
by this very plan; a list of studies that has changed in between cannot give one patient another's mask.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from voxelrt.errors import InputError, OutputError
from voxelrt.io.atomic import atomic_path
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.study import Study
from voxelrt.volume import Volume

FILE = "voxelrt-session.json"

# Both ends of each file and its size: quick on a network drive, and no two studies agree in all of them.
END_BYTES = 1 << 18


class Manifest:
    """The record of one folder.

    Parameters
    ----------
    folder
        Where the results are.
    plan
        Results of another plan do not count as done.
    how
        Options that change the answer, where they are not the usual ones; results of others do not count as done.
    """

    def __init__(self, folder: Path, plan: Plan, how: Mapping[str, object] | None = None) -> None:
        self._path = folder / FILE
        said = json.dumps(how, sort_keys=True, default=str).encode() if how else b""
        self._plan = hashlib.sha256(plan.info.to_json() + said).hexdigest()
        self._entries: dict[str, dict[str, str]] = {}
        if self._path.is_file():
            try:
                read = json.loads(self._path.read_text("utf-8"))
                self._entries = {str(k): {"study": str(v["study"]), "plan": str(v["plan"])} for k, v in read.items()}
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise OutputError(f"{FILE} is damaged; remove it, and use overwrite=True") from error

    def has(self, name: str, study: str) -> bool:
        """Whether the file was made from this study with this plan."""
        return self._entries.get(name) == {"study": study, "plan": self._plan}

    def add(self, name: str, study: str) -> None:
        """Note a file that was written."""
        self._entries[name] = {"study": study, "plan": self._plan}
        with atomic_path(self._path) as temporary:
            temporary.write_text(json.dumps(self._entries, indent=1, sort_keys=True), "utf-8")


def fingerprint(study: Study) -> str:
    """A digest of a study's content. Raises InputError where it cannot be read."""
    digest = hashlib.sha256()
    for part in _digests(study):
        digest.update(part)
    return digest.hexdigest()


def _digests(study: Study) -> Iterator[bytes]:
    if isinstance(study, Mapping):
        for name in sorted(study):
            yield name.encode()
            yield from _digests(study[name])
    elif isinstance(study, Volume):
        yield study.affine.tobytes()
        yield hashlib.sha256(study.array.tobytes()).digest()
    else:
        path = Path(study)
        try:
            files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
            # By content, so that files that were renamed or moved are the same study.
            yield from sorted(_ends(file) for file in files)
        except OSError as error:
            raise InputError(f"cannot read {path.name!r}: {error.strerror or type(error).__name__}") from error


def _ends(file: Path) -> bytes:
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        digest = hashlib.sha256(str(size).encode())
        for start in (0, max(0, size - END_BYTES)):
            stream.seek(start)
            digest.update(stream.read(END_BYTES))
    return digest.digest()
