"""A case through an nnU-Net model: crop, scale, resample, windows, and back to labels on the study's grid.

    crop to what is not zero → scale intensities → resample (cubic) → windows, mirrored → planes of logits
    → resample (linear) and decide, plane by plane → put back into the crop → keep the largest components

The order, the rules and their corner cases are nnU-Net v2's (``DefaultPreprocessor``, ``nnUNetPredictor``); sums of
logits are kept in float32, where nnU-Net keeps them in half precision.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import closing
from functools import partial, wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.native import CancelFlag
from voxelrt.case import Case, coarse_axis
from voxelrt.errors import UnsupportedError, UsageError
from voxelrt.kernels.resample_argmax.taps import Taps, taps
from voxelrt.memory_size import in_words
from voxelrt.models.nnunet_settings import INPUT, OUTPUT, NnunetSettings, Resampling, settings_from_json
from voxelrt.observed import ObservedWindows, Observer
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.components import largest_touching
from voxelrt.runtime.cpu_device import CpuDevice
from voxelrt.runtime.cpu_threads import ThreadedCpuDevice
from voxelrt.runtime.cpu_windows import CpuWindows
from voxelrt.runtime.process import memory_bytes
from voxelrt.runtime.rounded_windows import RoundedSums, RoundedWindows, folds_apart
from voxelrt.runtime.scheduler import Scheduler
from voxelrt.runtime.window_job import Decision, Job, Window
from voxelrt.shortcuts import Shortcuts, SparseWindows, leave_out
from voxelrt.tiling.repeats import most_repeated, repeated
from voxelrt.tiling.slab import FileSlab, MemorySlab, Slab
from voxelrt.tiling.stitcher import Stitcher, planes_of
from voxelrt.tiling.windows import importance, mirrorings, starts
from voxelrt.volume import Volume

Floats = NDArray[np.float32]
Triple = tuple[int, int, int]
Box = tuple[slice, slice, slice]
Labels = NDArray[np.unsignedinteger]
Tell = Callable[[str, int, int], None]
Say = Callable[[str], None]

NO_SHORTCUTS = Shortcuts()
OVERLAP_BYTES = 256 * 2**20  # of a second batch's logits, for the network not to wait until the first is summed


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
    (given,), (answer,) = plan.inputs, plan.outputs
    batch, in_flight = _rows(plan, overlap=overlap and not source_rounding)

    def network(inputs: Floats, outputs: Floats) -> None:
        plan.run({INPUT: inputs}, {OUTPUT: outputs}, cancel=cancel)

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


def _rows(plan: Plan, *, overlap: bool) -> tuple[int, int]:
    """Windows in one run of the network, and how many such batches are held."""
    (given,), (answer,) = plan.inputs, plan.outputs
    batch = max(1, given.dims[0]) * plan.variants[0][2][1] if given.batched else 1
    return batch, 2 if overlap and 4 * batch * math.prod(answer.dims[1:]) <= OVERLAP_BYTES else 1


def make_job(
    plan: Plan,
    case: Case,
    tell: Tell,
    *,
    mirroring: bool,
    step: float | None,
    memory: int | None,
    say: Say | None,
    source_rounding: bool = False,
    arriving: tuple[Floats, Box] | None = None,
    observer: Observer | None = None,
) -> Job:
    """A case as the scheduler takes it.

    Parameters
    ----------
    plan, case, tell, mirroring, step, memory, say, source_rounding : as of ``run_case``.
    arriving : of a case whose planes still come: the padded array that they come into, and where in it.
    """
    settings = case.settings
    window: Triple = (1, *settings.patch_size) if settings.dimensions == 2 else settings.patch_size  # type: ignore[assignment]
    padded, inside = arriving or _padded(case.data, window)
    size: Triple = (padded.shape[1], padded.shape[2], padded.shape[3])
    places = _places(size, window, settings, settings.step if step is None else step)
    corners = [(z, y, x) for z in places[0] for y in places[1] for x in places[2]]
    sets = list(mirrorings(settings.mirror_axes if mirroring else ()))
    keys = {} if arriving else repeated(padded, window, corners)
    windows = _windows(corners, sets, keys, flat=settings.dimensions == 2)
    kept_key = most_repeated([one.key for one in windows])
    channels = settings.outputs * (len(settings.folds) if source_rounding else 1)
    rows = math.prod(_rows(plan, overlap=memory is None and not source_rounding and observer is None))
    parts = _parts(plan, case, size, window, rows)
    if observer is not None:
        channels += observer.extra_channels()
        parts["maps and rows of logits"] = observer.bytes_for(case)
    kept = 4 * settings.outputs * math.prod(window)
    if memory is None or sum(parts.values()) + kept + _sums_bytes(channels, size, window) <= memory:
        parts["logits that are kept"] = kept if kept_key is not None else 0
    else:
        kept_key = None
    make_slab, sentence = _slab(channels, parts, size, window, places, memory)
    if say is not None:
        say(sentence)
    weights = importance(settings.patch_size, settings.gaussian_sigma).reshape(window)
    decision = decision_of(case, inside)
    kind = np.uint8 if decision.values.max() < 256 else np.uint16
    return Job(
        padded,
        windows,
        channels,
        weights,
        decision,
        np.zeros(case.cropped_zyx, kind),
        kept_key,
        sums=lambda: _sums(make_slab, size, weights, source_rounding),
        tell=lambda done, total: tell("run", done, total),
    )


def _sums(
    make_slab: Callable[..., Slab], size: Triple, weights: Floats, source_rounding: bool
) -> Stitcher | RoundedSums:
    stitcher = Stitcher(make_slab(half=source_rounding), size, weights, half=source_rounding)
    return RoundedSums(stitcher) if source_rounding else stitcher


def _padded(data: Floats, window: Triple) -> tuple[Floats, tuple[slice, slice, slice]]:
    """Data at least as large as a window, zeros around, and where the data lie in it."""
    pads = []
    for size, wanted in zip(data.shape[1:], window, strict=True):
        missing = max(0, wanted - size)
        pads.append((missing // 2, missing - missing // 2))
    inside = tuple(slice(low, low + size) for (low, _), size in zip(pads, data.shape[1:], strict=True))
    padded = np.pad(data, [(0, 0), *pads]) if any(pad != (0, 0) for pad in pads) else data
    return padded, (inside[0], inside[1], inside[2])


def _places(size: Triple, window: Triple, settings: NnunetSettings, step: float) -> list[list[int]]:
    """Where windows begin along each axis."""
    places = [starts(whole, wanted, step) for whole, wanted in zip(size, window, strict=True)]
    return [list(range(size[0])), *places[1:]] if settings.dimensions == 2 else places


def _windows(
    corners: list[Triple], sets: list[tuple[int, ...]], keys: Mapping[Triple, Hashable], *, flat: bool
) -> list[Window]:
    """Every window in every mirrored form."""
    made = []
    for corner in corners:
        key = keys.get(corner)
        for mirrored in sets:
            axes = tuple(axis + 1 for axis in mirrored) if flat else mirrored  # of the volume, not of a slice
            one = key if key is None or isinstance(key, bytes) else (key, axes)
            made.append(Window(corner, axes, 1 / len(sets), one))
    return made


def _parts(plan: Plan, case: Case, size: Triple, window: Triple, rows: int) -> dict[str, int]:
    """What a run holds in any case, in bytes."""
    planes = planes_of(window[0], size[0])
    return {
        "this process with the study": memory_bytes(),
        "the network": plan.memory_bytes,
        "windows and their logits": 4 * rows * (len(case.data) + case.settings.outputs) * math.prod(window),
        "weights and labels": 4 * planes * size[1] * size[2] + 3 * case.cropped_voxels,
    }


def _sums_bytes(channels: int, size: Triple, window: Triple) -> int:
    """What the sums of windows take in memory."""
    return 4 * planes_of(window[0], size[0]) * channels * size[1] * size[2]


def _slab(
    channels: int, parts: dict[str, int], size: Triple, window: Triple, places: list[list[int]], memory: int | None
) -> tuple[Callable[..., Slab], str]:
    """What makes the place where the windows' sums are kept, and a sentence about memory."""
    planes = planes_of(window[0], size[0])
    floor = sum(parts.values())
    sums = _sums_bytes(channels, size, window)
    if memory is None or floor + sums <= memory:
        memory_slab = partial(MemorySlab, planes, channels, (size[1], size[2]))
        return memory_slab, f"expecting to hold {in_words(floor + sums)}, {in_words(sums)} of it sums of windows"
    parts["planes of sums"] = FileSlab.bytes_for(channels, (size[1], size[2]), (window[1], window[2]))
    least = sum(parts.values())
    if least > memory:
        table = ", ".join(f"{name} {in_words(count)}" for name, count in parts.items())
        raise UsageError(f"memory: {in_words(memory)} is less than this case needs, {in_words(least)}: {table}")
    edges = [
        sorted({0, n, *(p for s in at for p in (s, s + w))}) for n, w, at in zip(size, window, places, strict=True)
    ]
    return (
        partial(FileSlab, planes, channels, (size[1], size[2]), edges[1], edges[2]),
        f"expecting to hold {in_words(least)}; {in_words(sums)} of sums of windows are kept in a scratch file in "
        f"{tempfile.gettempdir()}, for a budget of {in_words(memory)}",
    )


def decision_of(case: Case, inside: tuple[slice, slice, slice]) -> Decision:
    """How planes of logits are brought to the cropped grid and decided."""
    settings, size = case.settings, case.cropped_zyx
    old = (case.data.shape[1], case.data.shape[2], case.data.shape[3])
    along, rows, columns = _taps(settings.resample_logits, old, size, case.network_spacing_mm, case.spacing_mm)
    values = np.array(settings.region_order or range(settings.outputs), np.int32)
    return Decision(along, rows, columns, inside, values, settings.regions)


def _taps(
    how: Resampling, old: Triple, new: Triple, spacing: tuple[float, ...], target: tuple[float, ...]
) -> list[Taps]:
    """How logits are read along each axis."""
    if how.order > 1 or how.order_z > 1:
        raise UnsupportedError(f"resampling logits by splines of order {how.order} (z {how.order_z}) is not run")
    apart = coarse_axis(how, spacing, target)
    made = []
    for axis, (n, m) in enumerate(zip(old, new, strict=True)):
        order = how.order_z if axis == apart else how.order
        made.append(taps((np.arange(m) + 0.5) * (n / m) - 0.5, n, linear=order == 1))
    return made


def labels_of(case: Case, cropped: Labels, *, postprocessing: bool = True) -> Volume:
    """Labels on the study's own grid, with the model's names; the model's postprocessing done."""
    settings = case.settings
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
