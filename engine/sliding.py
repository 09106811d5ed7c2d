"""A volume through a network in overlapping windows, as a recipe's ``[input.sliding]`` says: MONAI's inferer.

The windows go through the one scheduler; sums are kept in a slab of one window's depth, and each finished plane is
divided and handed on.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.native import CancelFlag
from voxelrt.errors import ModelError
from voxelrt.kernels.resample_argmax.taps import Taps
from voxelrt.models.recipe_schema import Recipe
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.layout import from_layout, to_layout, zyx_of
from voxelrt.runtime.cpu_device import CpuDevice, array_of
from voxelrt.runtime.cpu_windows import CpuWindows
from voxelrt.runtime.device import Array, Buffer, Stream
from voxelrt.runtime.scheduler import Scheduler
from voxelrt.runtime.window_job import Decision, Job, Sums, Window
from voxelrt.tiling.overlapping import each, padded, starts, weights
from voxelrt.tiling.stitcher import Stitcher
from voxelrt.tiling.windows import mirrorings

Floats = NDArray[np.float32]
Triple = tuple[int, int, int]
Tell = Callable[[str, int, int], None]


def window_of(plan: Plan, recipe: Recipe) -> Triple:
    """The window in voxels (z, y, x): the network's input. A plane's is one voxel deep."""
    io = next(io for io in plan.inputs if io.name == recipe.input.name)
    z, y, x = zyx_of(io.dims, recipe.input.layout)
    return (z or 1, y or 1, x or 1)


def window_places(size: Triple, window: Triple, recipe: Recipe) -> list[Triple]:
    """Where windows begin, in the order of their first plane; of a network of planes each plane has its own."""
    overlap = each(recipe.input.sliding.overlap, 3 if "Z" in recipe.input.layout else 2)
    along = [starts(*axis) for axis in zip(size, window, overlap, strict=True)]
    return [(z, y, x) for z in along[0] for y in along[1] for x in along[2]]


def sliding_answer(
    plan: Plan,
    recipe: Recipe,
    volume: Floats,
    tell: Tell,
    cancel: CancelFlag | None = None,
    *,
    axes: tuple[int, ...] = (),
) -> Floats:
    """The network's answer (C, Z, Y, X) for a volume of any size.

    Parameters
    ----------
    plan : for one window; its output is an image of the window's size.
    recipe : says how windows lie and what they weigh.
    volume : (C, Z, Y, X) float32 on the network's grid.
    tell : called with ("run", windows done, windows).
    cancel : stops the run between two steps.
    axes : mirror the windows along every set of these axes (0 to 2) and average.

    Raises
    ------
    ModelError : the answer is no image of the window's size.
    InputError : the volume is too small for its padding.
    """
    window = window_of(plan, recipe)
    data, inside = padded(np.asarray(volume, np.float32), window, recipe.input.sliding)
    channels = _channels(plan, recipe, window)
    size: Triple = (data.shape[1], data.shape[2], data.shape[3])
    sets = list(mirrorings(axes))
    windows = [Window(corner, one, 1 / len(sets)) for corner in window_places(size, window, recipe) for one in sets]
    answer = np.empty((channels, *size), np.float32)
    kernels = MeanWindows(_network(plan, recipe, cancel), answer)
    job = Job(
        np.ascontiguousarray(data),
        windows,
        channels,
        weights(window, recipe.input.sliding),
        _as_it_is(size),
        np.zeros(size, np.uint8),
        tell=lambda done, total: tell("run", done, total),
    )
    rows = (data.shape[0], *window), (channels, *window)
    scheduler = Scheduler(CpuDevice(), kernels, *rows, batch=1, cancel=cancel)
    for ended in scheduler.run(_One(job)):
        if ended.error is not None:
            raise ended.error
    return answer[(slice(None), *inside)]


class MeanWindows(CpuWindows):
    """As CpuWindows; a finished plane's mean goes into ``answer`` (C, Z, Y, X), and nothing is decided."""

    def __init__(self, network: Callable[[Array, Array], None], answer: Floats) -> None:
        super().__init__(network)
        self._answer = answer

    def decide(self, sums: Sums, job: Job, z: int, into: Buffer, stream: Stream) -> None:
        del job, stream
        if not isinstance(sums, Stitcher):
            raise TypeError(f"a {type(sums).__name__} is no sums of the CPU")
        total, counts = sums.plane(z)
        np.divide(total, counts, out=self._answer[:, z])
        array_of(into)[...] = 0


class _One:
    def __init__(self, job: Job) -> None:
        self._job: Job | None = job

    def wait(self) -> None:
        """All of it is there."""

    def next(self, wait: bool) -> Job | None:
        del wait
        job, self._job = self._job, None
        return job


def _network(plan: Plan, recipe: Recipe, cancel: CancelFlag | None) -> Callable[[Array, Array], None]:
    """Rows (1, C, *window) in and out, whatever the network's own layouts are."""

    def network(inputs: Array, outputs: Array) -> None:
        tensor = to_layout(inputs[0], recipe.input.layout)
        made = plan.run({recipe.input.name: tensor}, cancel=cancel)[recipe.output.name]
        outputs[0] = from_layout(made, recipe.output.layout)

    return network


def _channels(plan: Plan, recipe: Recipe, window: Triple) -> int:
    io = next(io for io in plan.outputs if io.name == recipe.output.name)
    layout = recipe.output.layout
    made = zyx_of(io.dims, layout)
    if len(io.dims) != len(layout) or tuple(size or 1 for size in made) != window:
        raise ModelError(
            f"recipe {recipe.name}: the network answers {io.dims} for a window of {window}; sliding windows need an "
            "answer of the window's size"
        )
    return int(io.dims[layout.index("C")])


def _as_it_is(size: Triple) -> Decision:
    """Each plane on its own grid."""
    z, y, x = (Taps(np.stack([np.arange(n, dtype=np.int32)] * 2), np.zeros(n, np.float32)) for n in size)
    everywhere = (slice(0, size[0]), slice(0, size[1]), slice(0, size[2]))
    return Decision(z, y, x, everywhere, np.zeros(1, np.int32), False)
