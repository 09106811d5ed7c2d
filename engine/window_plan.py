"""A case as the scheduler takes it: its windows, what it will hold, and how planes of logits become labels."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Hashable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from voxelrt.case import Case
from voxelrt.errors import UnsupportedError, UsageError
from voxelrt.kernels.resample_argmax.taps import Taps, taps
from voxelrt.memory_size import in_words
from voxelrt.models.nnunet_settings import NnunetSettings, Resampling
from voxelrt.observed import Observer
from voxelrt.plan.head import Head
from voxelrt.plan.plan import Plan
from voxelrt.plan.schedule import Io
from voxelrt.preprocess.resampling import coarse_axis
from voxelrt.runtime.process import memory_bytes, peak_memory_bytes
from voxelrt.runtime.rounded_windows import RoundedSums
from voxelrt.runtime.window_job import Decision, Job, Window
from voxelrt.tiling.repeats import most_repeated, repeated
from voxelrt.tiling.slab import FileSlab, MemorySlab, Slab
from voxelrt.tiling.stitcher import Stitcher, planes_of
from voxelrt.tiling.windows import importance, mirrorings, starts

Floats = NDArray[np.float32]
Triple = tuple[int, int, int]
Box = tuple[slice, slice, slice]
Tell = Callable[[str, int, int], None]
Say = Callable[[str], None]

KEPT_EIGHTHS = 7  # of what a budget leaves: for sums that stay out of the scratch file. The rest is the allocator's.
OVERLAP_BYTES = 256 * 2**20  # of a second batch's logits, for the network not to wait until the first is summed


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
    logits: bool = False,
) -> Job:
    """A case as the scheduler takes it.

    Parameters
    ----------
    plan, case, tell, mirroring, step, memory, say, source_rounding : as of ``run_case``.
    logits : sum logits, whatever the plan has.
    arriving : of a case whose planes still come: the padded array that they come into, and where in it.
    """
    settings = case.settings
    window: Triple = (1, *settings.patch_size) if settings.dimensions == 2 else settings.patch_size  # type: ignore[assignment]
    padded, inside = arriving or _padded(case.data, window)
    size: Triple = (padded.shape[1], padded.shape[2], padded.shape[3])
    places = _places(size, window, settings, settings.step if step is None else step)
    corners = [(z, y, x) for z in places[0] for y in places[1] for x in places[2]]
    sets = list(mirrorings(settings.mirror_axes if mirroring else ()))
    keys = {} if arriving else repeated(padded, window, corners, case.let_go)
    case.let_go()
    windows = _windows(corners, sets, keys, flat=settings.dimensions == 2)
    kept_key = most_repeated([one.key for one in windows])
    logits = logits or source_rounding or observer is not None
    answer, head = answer_of(plan, logits=logits)
    channels = answer.dims[1] * (len(settings.folds) if source_rounding else 1)
    rows = math.prod(rows_of(plan, answer, overlap=memory is None and not logits))
    parts = _parts(plan, case, size, window, rows * (len(case.data) + answer.dims[1]))
    if observer is not None:
        channels += observer.extra_channels()
        parts["maps and rows of logits"] = observer.bytes_for(case)
    kept = 4 * answer.dims[1] * math.prod(window)
    if memory is None or sum(parts.values()) + kept + _sums_bytes(channels, size, window) <= memory:
        parts["an answer that is kept"] = kept if kept_key is not None else 0
    else:
        kept_key = None
    make_slab, sentence = _slab(channels, parts, size, window, places, memory)
    if case.scratch is not None:
        sentence += f"; the study and what the network sees of it, {in_words(case.scratch.nbytes)}, are in another"
    if say is not None:
        say(sentence)
    weights = importance(settings.patch_size, settings.gaussian_sigma).reshape(window)
    decision = decision_of(case, inside, head)
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
        tell=lambda done, total: _told(case, tell, done, total),
    )


def _sums(
    make_slab: Callable[..., Slab], size: Triple, weights: Floats, source_rounding: bool
) -> Stitcher | RoundedSums:
    stitcher = Stitcher(make_slab(half=source_rounding), size, weights, half=source_rounding)
    return RoundedSums(stitcher) if source_rounding else stitcher


def _told(case: Case, tell: Tell, done: int, total: int) -> None:
    case.let_go()
    tell("run", done, total)


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


def _parts(plan: Plan, case: Case, size: Triple, window: Triple, channels: int) -> dict[str, int]:
    """What a run holds in any case, in bytes."""
    planes = planes_of(window[0], size[0])
    return {
        "this process with the study": memory_bytes(),
        "the network": plan.memory_bytes,
        "windows and the network's answers": 4 * channels * math.prod(window),
        "weights and labels": 4 * planes * size[1] * size[2] + _labels_bytes(case),
    }


def _labels_bytes(case: Case) -> int:
    """What labels take until they are written: ``labels_of`` copies them only where it must."""
    settings, whole = case.settings, math.prod(case.size_zyx)
    copies = (case.cropped_voxels != whole) + 3 * bool(settings.postprocessing)
    copies += case.turn is not None or settings.transpose_forward != (0, 1, 2)
    highest = max(settings.region_order or (settings.outputs,), default=0)
    return (1 if highest < 256 else 2) * (case.cropped_voxels + copies * whole)


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
        most = max(floor + sums, peak_memory_bytes())  # preparing a case may have taken more than running it will
        return memory_slab, f"expecting to hold {in_words(most)}, {in_words(sums)} of it sums of windows"
    parts["planes of sums"] = FileSlab.bytes_for(channels, (size[1], size[2]), (window[1], window[2]))
    least = sum(parts.values())
    if least > memory:
        table = ", ".join(f"{name} {in_words(count)}" for name, count in parts.items())
        raise UsageError(f"memory: {in_words(memory)} is less than this case needs, {in_words(least)}: {table}")
    kept = (memory - least) * KEPT_EIGHTHS // 8
    make_slab = partial(FileSlab, planes, channels, (size[1], size[2]), places[1], places[2], window[1:])
    return (
        partial(make_slab, kept_bytes=kept),
        f"expecting to hold {in_words(least + kept)}, {in_words(kept)} of it sums of windows; {in_words(sums)} of them "
        f"need a scratch file in {tempfile.gettempdir()}, for a budget of {in_words(memory)}",
    )


def decision_of(case: Case, inside: tuple[slice, slice, slice], head: Head | None) -> Decision:
    """How planes of sums are brought to the cropped grid and decided."""
    settings, size = case.settings, case.cropped_zyx
    old = (case.data.shape[1], case.data.shape[2], case.data.shape[3])
    along, rows, columns = _taps(settings.resample_logits, old, size, case.network_spacing_mm, case.spacing_mm)
    values = np.array(settings.region_order or range(settings.outputs), np.int32)
    matrix = None if head is None else head.matrix
    return Decision(along, rows, columns, inside, values, settings.regions, matrix)


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


def answer_of(plan: Plan, *, logits: bool) -> tuple[Io, Head | None]:
    """What windows are run for: features of the network and the head that is taken of their sums; or its logits.

    logits : of every window, whatever the plan has.
    """
    trunk = None if logits or plan.gpu is not None else plan.trunk
    return trunk or (plan.outputs[0], None)


def rows_of(plan: Plan, answer: Io, *, overlap: bool) -> tuple[int, int]:
    """Windows in one run of the network, and how many such batches are held."""
    (given,) = plan.inputs
    batch = max(1, given.dims[0]) * plan.variants[0][2][1] if given.batched else 1
    return batch, 2 if overlap and 4 * batch * math.prod(answer.dims[1:]) <= OVERLAP_BYTES else 1
