"""Denoise a study: an image in, the same image with less noise out, on the same grid and in the same dtype."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import OutputError, UsageError
from voxelrt.finding import algorithm_of, write_derived_image
from voxelrt.finding import method as method_made_of
from voxelrt.io import DicomSource, read_image
from voxelrt.io.dicom.derived import UidKind
from voxelrt.io.dicom.derived_series import BY_NETWORK, DENOISED, refuse_derived
from voxelrt.io.image import Image
from voxelrt.kernels.denoise import Choice, choose, to_dtype
from voxelrt.kernels.denoise.cpu import run
from voxelrt.kernels.denoise.methods import method_of
from voxelrt.outputs import format_of, refuse_image
from voxelrt.pipeline import predict
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.comparison import comparison_picture
from voxelrt.preprocess.contract import recipe_of
from voxelrt.preprocess.study import ANY, Pick
from voxelrt.volume import Volume

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Denoised:
    """What :func:`denoise_study` returns.

    Parameters
    ----------
    volume : the filtered image, on the study's grid, in its dtype.
    choice : what was decided; None where a network did it.
    difference_deviation : of before less after, in image units: what was taken away.
    timings : stage -> seconds.
    warnings : of the reader.
    """

    volume: Volume
    choice: Choice | None
    difference_deviation: float
    timings: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def denoise_study(
    study: Path,
    out: Path | None = None,
    *,
    method: str = "nlm",
    plan: Plan | None = None,
    noise: str = "auto",
    sigma: float | Literal["auto"] = "auto",
    modality: str = "",
    unit: str = "voxels",
    options: Mapping[str, Any] | None = None,
    picture: Path | None = None,
    volume_index: int | Literal["all"] | None = None,
    pick: Pick = ANY,
    uids: UidKind = "fresh",
    progress: Progress | None = None,
) -> Denoised:
    """Read, filter, write, draw.

    Parameters
    ----------
    study : a NIfTI file, a folder with a DICOM series, or a DICOM file.
    out : where to write, whole or not at all: .nii or .nii.gz, or of DICOM a new folder for a derived series.
    method, noise, sigma, unit, options : as ``voxelrt.kernels.denoise``.
    plan : a network that denoises, instead of a method: its recipe says ``kind = "image"``.
    modality : where the file does not say (NIfTI never does) or says it wrongly.
    picture : a PNG of before, after and difference.
    volume_index : which volume of a 4-D NIfTI file; "all" filters each on its own.
    pick : which series and volume of a DICOM study, and whether its slices may be mended.
    uids : of a derived series: "fresh", or "reproducible" from a hash of the content.
    progress : called with (stage, step, steps).

    Raises
    ------
    UsageError : as ``voxelrt.kernels.denoise``, a plan without an image as output, an output of another name.
    InputError : a study that cannot be read.
    OutputError : a result that cannot be written.
    """
    tell = progress or (lambda stage, step, steps: None)
    _refuse_unwritable(study, out, picture)
    timings: dict[str, float] = {}
    stage = _Stages(timings, tell)
    image = stage("read", lambda: _read(study, volume_index, pick))
    if out is not None and format_of(out) == "folder" and isinstance(image.source, DicomSource):
        refuse_derived(image.volume, image.source)
    choice = None
    if plan is not None:
        network = plan
        filtered = stage("run", lambda: _by_network(network, image, tell))
    else:
        choice = stage("estimate", lambda: _choose(image.volume, method, noise, sigma, modality, unit, options or {}))
        decided = choice
        filtered = stage(
            "denoise", lambda: run(image.volume.array, decided, progress=lambda i, n: tell("denoise", i, n))
        )
    volume = image.volume.with_array(to_dtype(filtered, image.volume.array.dtype))
    if out is not None:
        made_by = algorithm_of(plan) if plan is not None else method_made_of(method, choice)
        what = DENOISED if plan is None else BY_NETWORK
        stage("write", lambda: write_derived_image(volume, out, image.source, made_by, what, uids=uids))
    if picture is not None:
        title = method_of(method).title if choice is not None else "network"
        stage("draw", lambda: comparison_picture(image.volume, volume, picture, title=title, caption=_caption(choice)))
    taken = np.subtract(image.volume.array, volume.array, dtype=np.float64)
    return Denoised(volume, choice, float(taken.std()) if taken.size else 0.0, timings, image.warnings)


def _read(study: Path, volume_index: int | Literal["all"] | None, pick: Pick) -> Image:
    if pick == ANY:
        return read_image(study, volume_index=volume_index)
    return read_image(study, series=pick.series, volume=pick.volume, repair=pick.repair)


class _Stages:
    """Times what runs, by name."""

    def __init__(self, timings: dict[str, float], tell: Progress) -> None:
        self._timings, self._tell = timings, tell

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        self._tell(name, 0, 1)
        started = time.perf_counter()
        made = work()
        self._timings[name] = time.perf_counter() - started
        return made


def _choose(
    volume: Volume,
    method: str,
    noise: str,
    sigma: float | Literal["auto"],
    modality: str,
    unit: str,
    options: Mapping[str, Any],
) -> Choice:
    return choose(
        volume.array,
        method,
        noise=noise,
        sigma=sigma,
        modality=modality or volume.modality,
        unit=unit,
        spacing_mm=volume.spacing_mm,
        options=options,
    )


def _by_network(plan: Plan, image: Image, tell: Progress) -> NDArray[Any]:
    recipe = recipe_of(plan)
    if recipe.output.kind != "image":
        raise UsageError(f'this model gives {recipe.output.kind}; to denoise, its recipe says output kind = "image"')
    found = predict(plan, image.volume, progress=tell).volume
    if found is None or found.array.shape != image.volume.array.shape:
        raise UsageError("the model's answer is not an image of the study's shape")
    return found.array


def _caption(choice: Choice | None) -> str:
    if choice is None:
        return ""
    words = [f"noise {choice.noise}"]
    if choice.sigmas:
        words.append(f"sigma {choice.sigmas[0]:.4g}")
    words += [f"{name} {_short(value)}" for name, value in choice.options.items()]
    return ", ".join(words)


def _short(value: Any) -> str:
    return "×".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value}"


def _refuse_unwritable(study: Path, out: Path | None, picture: Path | None) -> None:
    """Before the work: a wrong name should not cost its time."""
    if out is not None:
        refuse_image(out, study)
    if picture is not None and not picture.parent.is_dir():
        raise OutputError(f"{picture.name!r} cannot be written: its folder does not exist")
