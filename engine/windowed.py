"""A case through an nnU-Net model: crop, scale, resample, windows, and back to labels on the study's grid.

    crop to what is not zero → scale intensities → resample (cubic) → windows, mirrored → planes of logits
    → resample (linear) and decide, plane by plane → put back into the crop → keep the largest components

The order, the rules and their corner cases are nnU-Net v2's (``DefaultPreprocessor``, ``nnUNetPredictor``); sums of
logits are kept in float32, where nnU-Net keeps them in half precision.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.native import CancelFlag
from voxelrt.case import Case
from voxelrt.errors import UsageError
from voxelrt.models.nnunet_settings import INPUT, settings_from_json
from voxelrt.observed import ObservedWindows, Observer
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.components import largest_touching
from voxelrt.runtime.cpu_device import CpuDevice
from voxelrt.runtime.cpu_threads import ThreadedCpuDevice
from voxelrt.runtime.cpu_windows import CpuWindows
from voxelrt.runtime.rounded_windows import RoundedWindows, folds_apart
from voxelrt.runtime.scheduler import Scheduler
from voxelrt.runtime.window_job import Job
from voxelrt.shortcuts import Shortcuts, SparseWindows, leave_out
from voxelrt.volume import Volume
from voxelrt.window_plan import Say, Tell, answer_of, make_job, rows_of

Floats = NDArray[np.float32]
Labels = NDArray[np.unsignedinteger]

NO_SHORTCUTS = Shortcuts()


def _or_on_gpu(run: Callable[..., Labels]) -> Callable[..., Labels]:
    """A case of a plan that is on GPUs runs there, for labels alone."""

    @wraps(run)
    def either(plan: Plan, case: Case, tell: Tell, cancel: CancelFlag | None = None, **options: Any) -> Labels:
        if plan.gpu is None:
            return run(plan, case, tell, cancel, **options)
        known: dict[str, Any] = {"mirroring": True, "step": None, "memory": None, "say": None, "deadline": math.inf}
        known |= {name: options.pop(name) for name in known if name in options}
        refused = [name for name, value in options.items() if value]
        if refused:
            raise UsageError(f"{', '.join(refused)}: on the CPU only; on GPUs there are labels alone")
        how = {"mirroring": known["mirroring"], "step": known["step"]}
        job = make_job(plan, case, tell, memory=None, say=None, **how)
        job.time_limit = known["deadline"] - time.monotonic()
        plan.gpu.run_windows(job, memory=known["memory"], cancel=cancel, say=known["say"])
        return job.labels

    return either


@_or_on_gpu
def run_case(
    plan: Plan,
    case: Case,
    tell: Tell,
    cancel: CancelFlag | None = None,
    *,
    mirroring: bool = True,
    step: float | None = None,
    memory: int | None = None,
    say: Say | None = None,
    source_rounding: bool = False,
    deadline: float = math.inf,
    observer: Observer | None = None,
    shortcuts: Shortcuts = NO_SHORTCUTS,
) -> Labels:
    """The labels of a case on its cropped grid, axes in the network's order.

    Parameters
    ----------
    plan : of the model, for one window.
    case : see prepare_case.
    tell : called with ("run", window, windows).
    cancel : stops the run between two steps.
    mirroring : average over mirrored windows along the axes that the model allows.
    step : of the windows, as a share of their size; default the model's.
    memory : what the process may hold at most, in bytes; where the windows' sums do not fit they go to a scratch file.
        On a GPU of its memory: the batch shrinks, then the sums go to the host.
    say : called with a sentence that says what memory is expected, before the first window.
    source_rounding : repeat nnU-Net's own half-precision sums, to compare with its predictor.
    deadline : of ``time.monotonic``; past it the case is given up.
    observer : sees the logits of each plane that is decided; see ``engine/observed.py``.
    shortcuts : windows that may be left out, see ``engine/shortcuts.py``.

    Returns
    -------
    labels : (Z, Y, X) uint8 or uint16.

    Raises
    ------
    UsageError : the budget is below what the study and the network need in any case.
    OutputError : there is no room for the scratch file. TimeLimitError : the deadline has passed.
    """
    observed = None
    if observer is not None:
        observer.begin(case, mirroring, source_rounding)
        observed = ObservedWindows(plan, cancel, case, observer)
    job = make_job(
        plan,
        case,
        tell,
        mirroring=mirroring,
        step=step,
        memory=memory,
        say=say,
        source_rounding=source_rounding,
        observer=observer,
        logits=bool(shortcuts),
    )
    if shortcuts:
        if observer is not None or source_rounding:
            raise UsageError("shortcuts go with labels alone: no maps, no probabilities, no source_rounding")

        def coarse() -> Labels:
            options: dict[str, Any] = {"mirroring": False, "step": 1.0, "memory": memory, "deadline": deadline}
            return run_case(plan, case, lambda stage, done, total: None, cancel, **options)

        leave_out(job, shortcuts, coarse)
    job.time_limit = deadline - time.monotonic()
    with closing(
        make_scheduler(
            plan,
            cancel,
            source_rounding=source_rounding,
            overlap=memory is None,
            observed=observed,
            sparse=bool(shortcuts),
        )
    ) as scheduler:
        for ended in scheduler.run(One(job)):
            if ended.error is not None:
                raise ended.error
    return job.labels


class One:
    """A source of one study."""

    def __init__(self, job: Job) -> None:
        self._job: Job | None = job

    def wait(self) -> None:
        """All of it is there."""

    def next(self, wait: bool) -> Job | None:
        del wait
        job, self._job = self._job, None
        return job


def make_scheduler(
    plan: Plan,
    cancel: CancelFlag | None,
    *,
    source_rounding: bool = False,
    overlap: bool = True,
    observed: ObservedWindows | None = None,
    sparse: bool = False,
) -> Scheduler:
    """A scheduler for the windows of a plan, on the CPU; as many windows at once as the plan was compiled for.

    Parameters
    ----------
    plan : of one stage.
    cancel : stops everything.
    source_rounding : keep the folds apart, for nnU-Net's own rounding.
    observed : does the work of windows instead, one at a time.
    sparse : some voxels are in no window.
    overlap : sum one batch while the network runs the next, where holding two batches' logits takes little memory.
    """
    cancel = cancel or CancelFlag()
    (given,) = plan.inputs
    answer, _ = answer_of(plan, logits=source_rounding or observed is not None or sparse)
    batch, in_flight = rows_of(plan, answer, overlap=overlap and not source_rounding)

    def network(inputs: Floats, outputs: Floats) -> None:
        plan.run({INPUT: inputs}, {answer.name: outputs}, cancel=cancel)

    if observed is not None:
        answers = (observed.row_channels, *answer.dims[2:])
        return Scheduler(CpuDevice(), observed, given.dims[1:], answers, batch=1, cancel=cancel)
    if source_rounding:
        folds = len(settings_from_json(plan.info.model_settings).folds)
        rounded = RoundedWindows(folds_apart(plan, folds, cancel), folds)
        answers = (folds * answer.dims[1], *answer.dims[2:])
        # One window at a time: the plan that keeps folds apart is for one.
        return Scheduler(CpuDevice(), rounded, given.dims[1:], answers, batch=1, cancel=cancel)
    device = ThreadedCpuDevice() if in_flight > 1 else CpuDevice()
    kernels = SparseWindows(network) if sparse else CpuWindows(network)
    return Scheduler(device, kernels, given.dims[1:], answer.dims[1:], batch=batch, cancel=cancel)


def labels_of(case: Case, cropped: Labels, *, postprocessing: bool = True) -> Volume:
    """Labels on the study's own grid, with the model's names; the model's postprocessing done."""
    settings = case.settings
    whole = cropped
    if cropped.shape != case.size_zyx:
        whole = np.zeros(case.size_zyx, cropped.dtype)
        whole[case.box] = cropped
    for rule in settings.postprocessing if postprocessing else ():
        union = np.isin(whole, rule.values)
        whole[union & ~largest_touching(union)] = rule.background
    array: NDArray[Any] = whole.transpose(settings.transpose_backward)[None]
    if case.turn is not None:
        array = case.turn.undo_array(array)
    values = settings.region_order or tuple(range(1, len(settings.labels) + 1))
    names = {0: "background"} | {v: label.name for v, label in zip(values, settings.labels, strict=True)}
    return case.volume.with_array(np.ascontiguousarray(array), names)
