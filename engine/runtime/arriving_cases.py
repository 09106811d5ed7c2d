"""Cases as they arrive in a folder, for a machine that runs all that is sent to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from voxelrt.errors import InputError
from voxelrt.io.arriving_files import POLL_SECONDS, Settled, Signature, files_below, refuse_no_folder, signature_of
from voxelrt.preprocess.case_folder import cases_in
from voxelrt.preprocess.study import Study

UNFINISHED = (".part", ".partial", ".tmp", ".filepart", ".crdownload")  # how programs name what they still write


class ArrivingCases:
    """Iterates over the cases of a folder, None where there is no new one yet; ends with ``stop_after`` or never.

    A case is a file of the folder, a subfolder with all that is in it, or of an nnU-Net model the files
    ``<case>_0000.nii.gz`` and so on, one for each channel. One that changes after it was given is given again.

    Parameters
    ----------
    folder : watched.
    quiet : seconds that nothing of a case may have changed for it to be whole.
    stop_after : seconds without a new case after which it ends; None for never.
    channels : of an nnU-Net model, else none.
    without : a folder to leave out, where results go.

    Raises
    ------
    InputError : no such folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        quiet: float,
        stop_after: float | None = None,
        channels: Sequence[str] = (),
        without: Path | None = None,
    ) -> None:
        refuse_no_folder(folder)
        self._folder, self._quiet, self._stop_after = folder, quiet, stop_after
        self.channels = tuple(channels)
        self._without = None if without is None else without.resolve()

    def __iter__(self) -> Iterator[Study | None]:
        settled, since = Settled(self._quiet), 0.0
        while True:
            cases, signatures = self._there()
            whole = settled.look(signatures)
            for name in sorted(whole, key=lambda one: _newest(signatures[one])):
                since = settled.clock
                yield cases[name]
            if self._stop_after is not None and settled.clock - since > self._stop_after:
                if not settled.waits(signatures):
                    return
                since = settled.clock  # something is still being written
            if not whole:
                time.sleep(POLL_SECONDS)
            yield None

    def first(self, tell: Callable[[str], None] = lambda text: None) -> Study:
        """Waits for the first case, which is given again by iterating. Raises InputError: none came."""
        tell(f"waiting for the first case in {self._folder.name}")
        for case in self:
            if case is not None:
                return case
        raise InputError(f"no case came into {self._folder.name!r} within {self._stop_after:g} s")

    def _there(self) -> tuple[dict[str, Study], dict[str, Signature]]:
        """The cases that are there by name, and what of each changes while it is written."""
        cases: dict[str, Study] = {}
        signatures: dict[str, Signature] = {}
        try:
            with os.scandir(self._folder) as found:
                entries = {entry.name: entry for entry in found if not entry.name.startswith(".")}
        except OSError as error:
            raise InputError(f"cannot look into the watched folder: {error.strerror}") from None
        entries = {name: entry for name, entry in entries.items() if not name.endswith(UNFINISHED)}
        for case in cases_in(self._folder, self.channels) if self.channels else []:
            taken = [entries.pop(path.name) for path in case.values() if path.name in entries]
            if len(taken) == len(case) and not set(self.channels) - set(case):
                cases[taken[0].name], signatures[taken[0].name] = dict(case), tuple(map(signature_of, taken))
        for name, entry in entries.items():
            if entry.is_dir():
                files = () if self._is_left_out(entry) else tuple(map(signature_of, files_below(Path(entry.path))))
            else:
                files = (signature_of(entry),)
            if files:
                cases[name], signatures[name] = Path(entry.path), files
        return cases, signatures

    def _is_left_out(self, entry: os.DirEntry[str]) -> bool:
        return self._without is not None and Path(entry.path).resolve() == self._without


def _newest(signature: Signature) -> int:
    return max(changed for _, _, changed in signature)
