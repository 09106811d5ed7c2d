"""The folder that a session writes to: how its files are named, and what may be kept of an earlier session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voxelrt.errors import OutputError, UsageError
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.case_folder import case_name
from voxelrt.preprocess.study import Place, Study
from voxelrt.runtime.manifest import Manifest, fingerprint

Names = Literal["number", "input"]


@dataclass(frozen=True)
class Placed:
    """Where a study's result goes; ``kept`` if it is there already; ``note`` records it."""

    out: Path
    kept: bool
    note: Callable[[], None]


class Shelf:
    """The folder of one session.

    Parameters
    ----------
    folder
        Made if it does not exist.
    plan
        Only results of this plan are kept.
    names, resume, overwrite
        As for ``Session.map``.
    ending
        Of the files' names.
    how
        As for ``Manifest``.

    Raises
    ------
    OutputError : the folder cannot be made, or its record is damaged.
    """

    def __init__(
        self,
        folder: Place,
        plan: Plan,
        names: Names,
        resume: bool,
        overwrite: bool,
        ending: str,
        how: Mapping[str, object] | None = None,
    ) -> None:
        if names not in ("number", "input"):
            raise UsageError(f'names is {names!r}; choose "number" or "input"')
        self._folder, self._names, self._resume, self._overwrite = Path(folder), names, resume, overwrite
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {self._folder.name!r}: {error.strerror}") from error
        self._manifest = Manifest(self._folder, plan, how)
        self._ending = ending
        self._taken: set[str] = set()

    def place(self, number: int, study: Study) -> Placed:
        """The place for a study.

        Raises
        ------
        UsageError : two studies would get the same name. InputError : the study cannot be read.
        OutputError : the file is there and is neither kept nor replaced.
        """
        name = f"study-{number:04d}" if self._names == "number" else _input_name(study)
        name += self._ending
        if name in self._taken:
            raise UsageError(f"study {number} would be written to the file of one before; use names='number'")
        self._taken.add(name)
        out, content = self._folder / name, fingerprint(study)
        kept = out.exists() and not self._overwrite
        if kept and not self._resume:
            raise OutputError(
                f"the output of study {number} is there already; use resume=True (--resume) to keep what is there, or "
                "overwrite=True (--overwrite) to replace it"
            )
        if kept and not self._manifest.has(name, content):
            raise OutputError(
                f"the output of study {number} was made from another study, with another plan or other options, so it "
                "is not kept; use overwrite=True (--overwrite), or another folder"
            )
        return Placed(out, kept, lambda: self._manifest.add(name, content))

    def picture(self, out: Path) -> Path:
        """Where the picture of a result goes, which is no label picture."""
        stem = out.name.removesuffix(self._ending)
        return out.with_name(f"{stem}.overlay.png" if self._ending == ".png" else f"{stem}.png")


def _input_name(study: Study) -> str:
    """The name of the study's file, without its ending."""
    if isinstance(study, Mapping) and (case := case_name(study)) is not None:
        return case
    if not isinstance(study, (str, Path)):
        raise UsageError("names='input' needs studies that are paths, or images named <case>_0000.nii.gz and so on")
    stem = Path(study).name
    for suffix in (".gz", ".nii", ".hdr", ".dcm"):
        stem = stem.removesuffix(suffix)
    return stem
