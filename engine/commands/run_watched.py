"""voxelrt run --watch: a scan that is still being made, or cases as they are sent."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from voxelrt.commands.console import Screen
from voxelrt.errors import UsageError
from voxelrt.io.arriving_files import POLL_SECONDS, Settled, files_below, refuse_no_folder, signature_of
from voxelrt.io.dicom.arriving import ArrivingSeries
from voxelrt.outputs import VOLUMES, format_of, refuse_output
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.study import Pick, Study
from voxelrt.result import Result
from voxelrt.runtime.arriving_cases import ArrivingCases
from voxelrt.runtime.session import Session

QUIET_SECONDS = 5.0  # nothing of a case has changed for so long
SCAN_SECONDS = 60.0  # no slice of a scan has come for so long

WatchOption = Annotated[
    Path | None,
    typer.Option(
        "--watch",
        metavar="FOLDER",
        help="Run what arrives here: with -o FILE one scan, with -o FOLDER every case, until Ctrl-C.",
    ),
]
SlicesOption = Annotated[
    int | None,
    typer.Option(
        "--slices",
        metavar="N",
        min=1,
        help="Of --watch and an nnU-Net model: how many slices the scan will have; windows run while it is made.",
    ),
]
QuietTimeOption = Annotated[
    float | None,
    typer.Option(
        "--quiet-time",
        metavar="SECONDS",
        help=f"Of --watch: without a change for so long a case is whole (default {QUIET_SECONDS:g}), or the scan of "
        f"--slices has ended ({SCAN_SECONDS:g}).",
    ),
]
StopAfterOption = Annotated[
    float | None,
    typer.Option(
        "--stop-after", metavar="SECONDS", help="Of --watch with -o FOLDER: end when no case came for so long."
    ),
]
StatisticsOption = Annotated[
    str | None,
    typer.Option(
        "--statistics",
        metavar="MEAN,DEVIATION",
        help="Of --slices and a model that scales by a z-score: of an earlier scan of the protocol.",
    ),
]


@dataclass(frozen=True)
class Watch:
    """What --watch and its options say."""

    folder: Path
    slices: int | None
    quiet: float | None
    stop_after: float | None
    statistics: tuple[float, float] | None

    def cases(self, plan: Plan | None, out: Path) -> ArrivingCases:
        """The cases that come; of a plan not yet known, of a model with one image."""
        settings = None if plan is None else plan.info.model_settings
        channels = [] if settings is None else [channel["name"] for channel in settings["channels"]]
        quiet = QUIET_SECONDS if self.quiet is None else self.quiet
        return ArrivingCases(self.folder, quiet=quiet, stop_after=self.stop_after, channels=channels, without=out)

    def scan(self, screen: Screen) -> list[Study]:
        """Waits until a scan of unknown length has ended: the folder, as a study."""
        quiet = QUIET_SECONDS if self.quiet is None else self.quiet
        settled = Settled(quiet)
        with screen.progress() as (_, say):
            say(f"waiting for the scan in {self.folder.name}")
            while True:
                files = tuple(signature_of(entry) for entry in files_below(self.folder))
                if files and settled.look({"": files}):
                    return [self.folder]
                time.sleep(POLL_SECONDS)


def watch_of(
    folder: Path | None,
    slices: int | None,
    quiet: float | None,
    stop_after: float | None,
    statistics: str | None,
    *,
    studies: object,
    out: Path | None,
) -> Watch | None:
    """The options together. Raises UsageError, InputError."""
    if folder is None:
        if (slices, quiet, stop_after, statistics) != (None, None, None, None):
            raise UsageError("--slices, --quiet-time, --stop-after and --statistics are for --watch FOLDER")
        return None
    if studies:
        raise UsageError("give studies, or --watch FOLDER, not both")
    refuse_no_folder(folder)
    for name, value in (("--quiet-time", quiet), ("--stop-after", stop_after)):
        if value is not None and not value > 0:
            raise UsageError(f"{name} {value:g}: give some seconds")
    if slices is None and statistics is not None:
        raise UsageError("--statistics is for --slices: of whole volumes they are known")
    if slices is not None and stop_after is not None:
        raise UsageError("--stop-after is for a folder of cases; a scan of --slices ends with its last slice")
    return Watch(folder, slices, quiet, stop_after, _statistics(statistics))


def _statistics(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        mean, deviation = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--statistics {text!r}: write MEAN,DEVIATION") from None
    return mean, deviation


def run_scan(
    plan: Plan, watch: Watch, out: Path | None, session: Session, series: int | str | None, screen: Screen
) -> Result:
    """A scan while it is made. Raises as ``ArrivingSeries`` and ``Session.stream``."""
    channels = [] if plan.info.model_settings is None else plan.info.model_settings["channels"]
    if len(channels) > 1:
        raise UsageError(
            f"the model needs {len(channels)} images, and a scan gives one: run the folders when all are there"
        )
    read_again = out is not None and format_of(out, session.form) not in VOLUMES
    if read_again:
        refuse_output(out, session.form, watch.folder)
    quiet = SCAN_SECONDS if watch.quiet is None else watch.quiet
    assert watch.slices is not None
    arriving = ArrivingSeries(watch.folder, watch.slices, quiet=quiet, series=series)
    with screen.progress() as (_, say):
        say(f"waiting for the first slices in {watch.folder.name}")
        grid = arriving.grid()
        stream = session.stream(
            _told(arriving, watch.slices, say),
            grid.shape_zyx,
            grid.affine,
            descending=grid.descending,
            statistics=None if watch.statistics is None else [watch.statistics],
            out=out,
            study=watch.folder if read_again else None,
            pick=Pick(series=arriving.uid),
        )
        with closing(stream):
            result = stream.result()
    for warning in arriving.warnings:
        screen.warn(warning)
    return result


def _told(slices: Iterable[NDArray[np.generic]], count: int, say: object) -> Iterator[NDArray[np.generic]]:
    assert callable(say)
    for number, one in enumerate(slices, start=1):
        say(f"slice {number} of {count} has come")
        yield one
