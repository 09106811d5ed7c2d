"""Slides and large pictures through a network of 2-D windows: read, run and written tile by tile, never as a whole.

    level that the recipe means → overlapping windows → network → the middle of each answer → a tile of the output

The middle is kept, not a mean over windows: so a tile is done with its window, and memory does not grow with the slide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.native import CancelFlag
from voxelrt.errors import InputError, UnsupportedError, UsageError
from voxelrt.io import PictureSource, kind_of, open_dicom, read_image
from voxelrt.io.atomic import atomic_path
from voxelrt.io.dicom.slide import open_dicom_slide
from voxelrt.io.slide import ArraySlide, Slide
from voxelrt.io.tiff_slide import open_tiff_slide
from voxelrt.kernels.common.capi import numpy_dtype
from voxelrt.models.recipe_schema import Recipe
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.labels import decide, label_values
from voxelrt.preprocess.intensity import scale
from voxelrt.preprocess.layout import from_layout, to_layout, zyx_of
from voxelrt.preprocess.study import Pick, fit_channels
from voxelrt.result import Result
from voxelrt.runtime.process import peak_memory_bytes
from voxelrt.volume import Volume

Array = NDArray[Any]
Progress = Callable[[str, int, int], None]

TIFF = (".tif", ".tiff")
# Scalings that need no look at the whole slide first.
SCALINGS = ("none", "window")
OUTPUT_TILE = 16  # sides of a TIFF's tiles are multiples of this


def is_tiled(recipe: Recipe, study: Any, out: Path | None) -> bool:
    """Whether a run goes tile by tile: a network of 2-D windows, and a slide, or a TIFF to be written."""
    if recipe.input.window != "sliding" or "Z" in recipe.input.layout:
        return False
    return (out is not None and out.name.lower().endswith(TIFF)) or is_slide(study)


def is_slide(study: Any) -> bool:
    """Whether a study is a slide in TIFF or DICOM."""
    if not isinstance(study, (str, Path)) or not Path(study).exists():
        return False
    kind = kind_of(Path(study))
    if kind == "picture":
        return open_tiff_slide(Path(study)) is not None
    return kind == "DICOM" and any(series.slide for series in open_dicom(Path(study)).series)


@dataclass(frozen=True)
class Windows:
    """Where a network's windows lie on a level.

    Parameters
    ----------
    size
        (rows, columns) of a window.
    margin
        (rows, columns) around a window's middle that are not kept.
    level
        (rows, columns) of the whole.
    """

    size: tuple[int, int]
    margin: tuple[int, int]
    level: tuple[int, int]

    @property
    def middle(self) -> tuple[int, int]:
        """(rows, columns) that are kept of each."""
        return self.size[0] - 2 * self.margin[0], self.size[1] - 2 * self.margin[1]

    @property
    def counts(self) -> tuple[int, int]:
        """How many rows and columns of them."""
        return -(-self.level[0] // self.middle[0]), -(-self.level[1] // self.middle[1])

    def corners(self) -> Iterator[tuple[int, int]]:
        """The first row and column of each middle, in reading order."""
        rows, columns = self.counts
        for row in range(rows):
            for column in range(columns):
                yield row * self.middle[0], column * self.middle[1]


def lay_windows(size: tuple[int, int], overlap: float, level: tuple[int, int]) -> Windows:
    """Windows whose middles are whole tiles of a TIFF and cover a level.

    Raises
    ------
    UnsupportedError : a window that is too small for its overlap.
    """
    middles = [int(side * (1 - overlap)) // OUTPUT_TILE * OUTPUT_TILE for side in size]
    if overlap == 0 and any(side % OUTPUT_TILE for side in size):
        middles = [side // OUTPUT_TILE * OUTPUT_TILE for side in size]
    # An odd rest would put the middle half a pixel off.
    middles = [middle if (side - middle) % 2 == 0 else 0 for middle, side in zip(middles, size, strict=True)]
    if min(middles) < OUTPUT_TILE:
        raise UnsupportedError(
            f"a network of {size[0]} × {size[1]} windows with an overlap of {overlap:g} keeps less than {OUTPUT_TILE} "
            f"× {OUTPUT_TILE} of each, or an odd rest; give input.sliding.overlap a smaller value"
        )
    margins = [(side - middle) // 2 for side, middle in zip(size, middles, strict=True)]
    return Windows(size, (margins[0], margins[1]), level)


def open_slide(study: Any, pick: Pick) -> Slide:
    """A TIFF slide, a DICOM slide, or a picture that is held whole.

    Raises
    ------
    UsageError : several inputs. InputError, MissingExtraError : as the readers.
    """
    if isinstance(study, Volume):
        return _in_memory(study)
    if not isinstance(study, (str, Path)):
        raise UsageError("a network of 2-D windows takes one picture or slide")
    place = Path(study)
    kind = kind_of(place) if place.exists() else ""
    if kind == "DICOM":
        found = open_dicom(place)
        series = found.choose(pick.series, modality="SM")
        if series.slide:
            return open_dicom_slide(series.headers)
    elif kind == "picture":
        slide = open_tiff_slide(place)
        if slide is not None:
            return slide
    plain = kind == "picture" and pick.volume is None
    image = read_image(place) if plain else read_image(place, series=pick.series, volume=pick.volume)
    if image.volume.shape_zyx[0] != 1 and not isinstance(image.source, PictureSource):
        raise InputError("a network of 2-D windows takes one picture or slide, and this is a volume")
    return _in_memory(image.volume)


def _in_memory(volume: Volume) -> Slide:
    _, y, x = volume.known_spacing_mm
    return ArraySlide(volume.array[:, 0], None if y is None or x is None else (y, x))


def predict_slide(
    plan: Plan,
    recipe: Recipe,
    study: Any,
    out: Path | None,
    *,
    pick: Pick,
    tell: Progress,
    cancel: CancelFlag | None = None,
) -> Result:
    """Run a network of 2-D windows over a slide.

    Parameters
    ----------
    plan, recipe
        Of the network; ``input.window`` is "sliding" and the layout has no Z.
    study
        A slide or picture.
    out
        .tif: of labels a tiled BigTIFF on the level's own grid, with its resolution; of classes their scores, a pixel a
        window. None for scores and areas alone.
    pick
        ``volume`` names a level by its number.
    tell
        Called with ("run", window, windows).
    cancel
        Stops between two windows.

    Returns
    -------
    result : pixels of labels and their areas (``voxels``, ``areas_mm2``), or mean scores of classes; no volume.

    Raises
    ------
    UsageError, UnsupportedError, InputError, MissingExtraError, OutputError : as the readers and writers.
    """
    if out is not None and not out.name.lower().endswith(TIFF):
        raise UsageError(f"{out.name!r}: of a slide the name must end in {' or '.join(TIFF)}")
    if recipe.input.intensity.scaling not in SCALINGS:
        raise UnsupportedError(
            f"recipe {recipe.name} scales by {recipe.input.intensity.scaling}, which looks at the whole picture; of a "
            f"slide only {' and '.join(SCALINGS)} are done"
        )
    start = time.perf_counter()
    slide = open_slide(study, pick)
    wanted = recipe.input.grid.spacing_mm_xyz
    which = pick.volume if len(slide.levels) > 1 else None
    level = slide.chosen(which, (wanted[1], wanted[0]) if wanted else None)
    given = next(io for io in plan.inputs if io.name == recipe.input.name)
    _, height, width = zyx_of(given.dims, recipe.input.layout)
    if height is None or width is None:
        raise UsageError(f"{recipe.name} leaves the size of its windows open: give input.sliding.roi_zyx")
    overlap = 0.0 if recipe.output.kind == "classes" else recipe.input.sliding.overlap[-1]
    windows = lay_windows((height, width), overlap, slide.levels[level].size)
    job = _Job(plan, recipe, slide, level, windows, tell, cancel)
    read = time.perf_counter() - start
    scores = job.classes(out) if recipe.output.kind == "classes" else {}
    voxels = job.labels(out) if recipe.output.kind != "classes" else {}
    spacing = slide.levels[level].spacing_mm
    areas = {} if spacing is None else {name: count * spacing[0] * spacing[1] for name, count in voxels.items()}
    said = (f"level {level + 1} of {len(slide.levels)}: {slide.levels[level].words}", *slide.warnings, *job.notes)
    timings = {"read": read, "run": time.perf_counter() - start - read}
    return Result(
        scores=scores,
        voxels=voxels,
        areas_mm2=areas,
        timings=timings,
        warnings=said,
        peak_memory_bytes=peak_memory_bytes(),
        out=out,
    )


class _Job:
    """One level through the network."""

    def __init__(
        self, plan: Plan, recipe: Recipe, slide: Slide, level: int, windows: Windows, tell: Progress, cancel: Any
    ) -> None:
        self._plan, self._recipe, self._slide, self._level = plan, recipe, slide, level
        self._windows, self._tell, self._cancel = windows, tell, cancel
        self._given = next(io for io in plan.inputs if io.name == recipe.input.name)
        self.notes: list[str] = []

    def labels(self, out: Path | None) -> dict[str, int]:
        """Write the labels; how many pixels each has."""
        counts: dict[int, int] = {}

        def tiles() -> Iterator[Array]:
            for part in self._decided():
                values, found = np.unique(part, return_counts=True)
                for value, count in zip(values, found, strict=True):
                    counts[int(value)] = counts.get(int(value), 0) + int(count)
                yield part

        if out is None:
            for _ in tiles():
                pass
        else:
            self._write(out, tiles(), self._windows.level, self._windows.middle)
        # Tiles at the edge reach over it, where their labels are 0.
        if self._slide.levels[self._level].spacing_mm is None:
            self.notes.append("the slide tells no lengths: areas are in pixels")
        names = {label.value: label.name for label in self._recipe.output.labels if label.value != 0}
        names |= {value: f"label {value}" for value in counts if value != 0 and value not in names}
        return {name: counts.get(value, 0) for value, name in sorted(names.items())}

    def classes(self, out: Path | None) -> dict[str, float]:
        """Write a map of scores, a pixel a window; their means."""
        rows, columns = self._windows.counts
        scores = np.array([answer.reshape(-1) for _, answer in self._answers()], np.float32)
        names = {label.value: label.name for label in self._recipe.output.labels}
        if out is not None:
            import tifffile

            with atomic_path(out) as temporary:
                planes = scores.T.reshape(-1, rows, columns)
                tifffile.imwrite(temporary, planes, photometric="minisblack", metadata=None, software="VoxelRT")
        means = scores.mean(axis=0)
        return {names.get(k, f"class {k}"): float(score) for k, score in enumerate(means)}

    def _answers(self) -> Iterator[tuple[tuple[int, int], Array]]:
        """The network's answer to each window, in reading order."""
        windows, recipe = self._windows, self._recipe
        names = [channel.name for channel in recipe.input.channels]
        total = windows.counts[0] * windows.counts[1]
        for number, (row, column) in enumerate(windows.corners()):
            self._tell("run", number, total)
            top, left = row - windows.margin[0], column - windows.margin[1]
            seen = self._slide.read(self._level, top, left, *windows.size)
            if number == 0:
                self.notes += fit_channels(_volume(seen), 0, names)[1]
            if len(seen) != len(names):
                seen = np.stack([fit_channels(_volume(seen), k, names)[0].array[0, 0] for k in range(len(names))])
            tensor = to_layout(scale(seen[:, None], recipe.input.intensity), recipe.input.layout)
            made = self._plan.run(
                {self._given.name: tensor.astype(numpy_dtype(self._given.dtype), copy=False)}, cancel=self._cancel
            )
            yield (row, column), made[recipe.output.name]
        self._tell("run", total, total)

    def _decided(self) -> Iterator[Array]:
        """The labels of each middle; 0 past the level's edge."""
        windows, output = self._windows, self._recipe.output
        top, left = windows.margin
        for (row, column), answer in self._answers():
            scores = from_layout(answer, output.layout)[:, 0]
            if scores.shape[1:] != windows.size:
                raise UnsupportedError(f"the network answers {scores.shape[1:]} pixels to {windows.size} of a slide")
            scores = scores[:, top : top + windows.middle[0], left : left + windows.middle[1]]
            if output.kind == "labels":
                part = np.rint(scores[0])
            else:
                part = decide(scores, output, label_values(scores, output))
            made = part.astype(self._dtype())
            made[max(0, windows.level[0] - row) :] = 0
            made[:, max(0, windows.level[1] - column) :] = 0
            yield made

    def _dtype(self) -> type[np.uint8] | type[np.uint16]:
        return np.uint8 if max((label.value for label in self._recipe.output.labels), default=1) < 256 else np.uint16

    def _write(self, out: Path, tiles: Iterator[Array], size: tuple[int, int], tile: tuple[int, int]) -> None:
        import tifffile

        spacing = self._slide.levels[self._level].spacing_mm
        known = {} if spacing is None else {"resolution": (10 / spacing[1], 10 / spacing[0]), "resolutionunit": 3}
        with atomic_path(out) as temporary:
            tifffile.imwrite(
                temporary,
                tiles,
                shape=size,
                dtype=self._dtype(),
                tile=tile,
                compression="zlib",
                compressionargs={"level": 4},
                photometric="minisblack",
                bigtiff=True,
                metadata=None,
                software="VoxelRT",
                maxworkers=1,
                **known,
            )


def _volume(colours: Array) -> Volume:
    return Volume(colours[:, None], np.eye(4))
