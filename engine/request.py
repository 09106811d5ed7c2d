"""What is asked for one study, and what is refused before the work begins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from voxelrt.case import Case
from voxelrt.composite import Gridded
from voxelrt.errors import TimeLimitError, UsageError
from voxelrt.models.recipe_schema import Recipe
from voxelrt.observed import Observer
from voxelrt.outputs import BY_NAME, NIFTI, PICTURE, TABLE, Form, refuse_output, refuse_place
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.grid import GridMap
from voxelrt.preprocess.study import ANY, Opened, Pick, Study
from voxelrt.shortcuts import Shortcuts
from voxelrt.slides import TIFF
from voxelrt.tasks.registration import Pair

Array = NDArray[Any]
Progress = Callable[[str, int, int], None]
NO_SHORTCUTS = Shortcuts()


@dataclass(frozen=True)
class Request:
    """What was asked for one study."""

    study: Study
    out: Path | None = None
    picture: Path | None = None
    force: bool = False
    mirroring: bool = True
    step: float | None = None
    memory: int | None = None
    pick: Pick = ANY
    source_rounding: bool = False
    table: Path | None = None
    form: Form = BY_NAME
    time_limit: float = math.inf
    maps: Mapping[str, Path | None] = field(default_factory=dict)
    probabilities: Path | None = None
    uncertainty: bool = False
    shortcuts: Shortcuts = NO_SHORTCUTS
    report_cost: bool = False

    def wants(self, name: str) -> bool:
        """Whether the map of this name, the task's first, is to be made."""
        written = self.out is not None and self.out.name.endswith(NIFTI)
        return written or self.picture is not None or name in self.maps


@dataclass(frozen=True, eq=False)
class Ready:
    """A study that was read and brought to the network's input."""

    request: Request
    recipe: Recipe
    opened: Opened
    way: GridMap | Case | Gridded
    tensor: Array
    timings: dict[str, float] = field(default_factory=dict)
    pair: Pair | None = None  # of a registration
    observer: Observer | None = None  # of an nnU-Net model that is watched

    @property
    def time_left(self) -> float:
        """Of the limit, in seconds. Raises TimeLimitError where it has passed."""
        left = self.request.time_limit - sum(self.timings.values())
        if left <= 0:
            raise late(self.request.time_limit)
        return left


def check_windows(
    plan: Plan, mirroring: bool, step: float | None, memory: int | None, source_rounding: bool = False
) -> None:
    """Raise UsageError for wrong options of windows, and for a model that has none."""
    if step is not None and not 0 < step <= 1:
        raise UsageError(f"step {step}: the windows' step is a share of their size, above 0 and at most 1")
    if plan.info.model_settings is None and (step, memory, mirroring, source_rounding) != (None, None, True, False):
        raise UsageError(
            f"step, memory, mirroring and source_rounding are for models of nnU-Net; {plan.info.name} runs a volume "
            "as a whole"
        )


def checked_limit(seconds: float | None) -> float:
    """A time limit; infinite without one. Raises UsageError."""
    if seconds is not None and not seconds > 0:
        raise UsageError(f"time_limit {seconds}: a study needs some seconds")
    return math.inf if seconds is None else seconds


def late(seconds: float) -> TimeLimitError:
    """What a study that took too long is told."""
    return TimeLimitError(f"the study was not finished within its time limit of {seconds:g} s")


def refuse_unwritable(request: Request) -> None:
    """Say at once what would otherwise fail after minutes of work."""
    suffixes: tuple[tuple[Path | None, tuple[str, ...]], ...] = (
        (request.picture, PICTURE),
        (request.table, TABLE),
    )
    suffixes += tuple((path, NIFTI) for path in request.maps.values())
    for path, allowed in suffixes:
        if path is not None:
            refuse_place(path, allowed, request.study)
    if request.out is not None and request.form.format is None and request.out.name.endswith(TIFF):
        refuse_place(request.out, TIFF, request.study)
    else:
        refuse_output(request.out, request.form, request.study)


@contextmanager
def stage(name: str, timings: dict[str, float], tell: Progress) -> Iterator[None]:
    """Time a stage, and tell of its beginning and end."""
    tell(name, 0, 1)
    start = time.perf_counter()
    yield
    timings[name] = time.perf_counter() - start
    tell(name, 1, 1)
