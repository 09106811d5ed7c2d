"""The options that commands share, and what their values mean."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from voxelrt.errors import UsageError

Dim = int | tuple[int, int, int]
Shapes = dict[str, tuple[Dim, ...]]


class Device(StrEnum):
    """Where to run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """In what arithmetic."""

    FP32 = "fp32"
    TF32 = "tf32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"
    AUTO = "auto"


class Tune(StrEnum):
    """How the algorithms of long steps are chosen."""

    OFF = "off"
    FAST = "fast"
    FULL = "full"


class Fallback(StrEnum):
    """What becomes of nodes without a kernel of ours."""

    ONNXRUNTIME = "onnxruntime"
    ERROR = "error"


class Uids(StrEnum):
    """Of DICOM objects that are written."""

    FRESH = "fresh"
    REPRODUCIBLE = "reproducible"


DeviceOption = Annotated[Device, typer.Option("--device", help="Where to run.")]
ArchOption = Annotated[
    str | None,
    typer.Option(
        "--arch", metavar="sm_86,...", help="With --device cuda: the GPUs to build for; they need not be here."
    ),
]
PrecisionOption = Annotated[Precision, typer.Option("--precision", help="In what arithmetic.")]
TuneOption = Annotated[
    Tune,
    typer.Option(
        "--tune", help="Choose algorithms by a cost model (off), or time the best few (fast) or more (full) here."
    ),
]
EngineWorkspaceOption = Annotated[
    str | None,
    typer.Option(
        "--engine-workspace", metavar="SIZE", help="GPUs: what an engine's kernels may use beside its activations."
    ),
]
EngineEffortOption = Annotated[
    int | None,
    typer.Option("--engine-effort", min=0, max=5, help="GPUs: how long to look for fast kernels (default: 3)."),
]
RefitOption = Annotated[
    bool,
    typer.Option("--refit", help="GPUs: engines that take other weights; one built on a GPU serves its structure."),
]


class GpuNorms(StrEnum):
    """Who takes norms in a plan for GPUs."""

    ENGINE = "engine"
    KERNELS = "kernels"


GpuNormsOption = Annotated[
    GpuNorms,
    typer.Option(
        "--gpu-norms",
        help="GPUs: who takes instance norms and the activation behind: TensorRT's engine, or our kernels between two.",
    ),
]
WeightsMemoryOption = Annotated[
    str | None,
    typer.Option(
        "--weights-memory",
        metavar="SIZE",
        help="What packed weights may take at most, such as 400MiB; slower algorithms are taken until they fit.",
    ),
]
FallbackOption = Annotated[
    Fallback,
    typer.Option(
        "--fallback", help="Nodes without a kernel of ours: run them in ONNX Runtime, or refuse, naming them."
    ),
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=DIMS",
        help="Shape of an input, such as input=1,1,128,128,128; a dimension may be a range min:opt:max. Repeatable.",
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, max=1024, help="Compute threads; default all that are allowed.")
]
JsonOption = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE|-", help="Write the answer as JSON; - prints it, and nothing else."),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no tables; warnings and errors only.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Run on a study that the model was not made for, with a warning.")
]
SeriesOption = Annotated[
    str | None,
    typer.Option(
        "--series",
        metavar="NUMBER|#PLACE|UID",
        help="Of DICOM with several series: which one; #2 is the second that info lists.",
    ),
]
VolumeOption = Annotated[
    str | None,
    typer.Option("--volume", metavar="NUMBER|NAME|all", help="Of a DICOM series with several volumes: which one."),
]
RepairOption = Annotated[
    bool,
    typer.Option("--repair", help="Of DICOM: interpolate missing and uneven slices, leave out repeated ones."),
]
UidsOption = Annotated[
    Uids,
    typer.Option("--uids", help="Of DICOM out: fresh, or reproducible: the same content gives the same file again."),
]
DisplayedOption = Annotated[
    bool,
    typer.Option(
        "--displayed", help="Of DICOM: grey values as shown, 0 to 255 (VOI LUT or window, MONOCHROME1 inverted)."
    ),
]
StraightenOption = Annotated[
    bool,
    typer.Option(
        "--straighten", help="Of DICOM of a tilted gantry: resample onto an upright grid; else it is sheared."
    ),
]
ConfigurationOption = Annotated[
    str | None,
    typer.Option("--configuration", help="Of an nnU-Net folder with several: 2d, 3d_fullres, 3d_lowres ..."),
]
FoldsOption = Annotated[
    str | None,
    typer.Option("--folds", metavar="0,1,...", help="Of an nnU-Net folder: which folds, as an ensemble; default all."),
]

MODEL_HELP = (
    "A recipe's name, or a path: .onnx, frozen TensorFlow .pb, .safetensors, torch .pt2 or TorchScript .pt "
    "(these with the extra torch), a result folder of nnU-Net v2, recipe .toml, compiled .vxp."
)


def parse_shapes(given: Sequence[str] | None) -> Shapes | None:
    """``NAME=1,1,64:128:256`` as {name: (1, 1, (64, 128, 256))}; None without any. Raises UsageError."""
    shapes: Shapes = {}
    for text in given or ():
        name, equals, dims = text.rpartition("=")
        if not equals or not name:
            raise UsageError(f"--shape {text!r}: write NAME=1,1,128,128,128")
        if name in shapes:
            raise UsageError(f"--shape is given twice for {name!r}")
        shapes[name] = tuple(_dim(part, text) for part in dims.split(","))
    return shapes or None


def parse_arch(given: str | None) -> tuple[str, ...]:
    """``sm_86,sm_89`` as names."""
    return tuple(part.strip() for part in (given or "").split(",") if part.strip())


def parse_folds(given: str | None) -> tuple[str, ...] | None:
    """``0,1,2`` or ``all`` as names of folds; None without any."""
    return None if given is None else tuple(part.strip() for part in given.split(",") if part.strip())


def parse_inputs(given: Sequence[str] | None, option: str = "--input") -> dict[str, Path]:
    """``NAME=PATH`` as {name: path}. Raises UsageError."""
    inputs: dict[str, Path] = {}
    for text in given or ():
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise UsageError(f"{option}: write NAME=PATH, such as t1=t1.nii.gz")
        if name in inputs:
            raise UsageError(f"{option} is given twice for {name!r}")
        inputs[name] = Path(path)
    return inputs


def _dim(text: str, whole: str) -> Dim:
    parts = text.split(":")
    if len(parts) not in (1, 3) or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--shape {whole!r}: {text!r} is neither a whole number nor a range min:opt:max")
    if len(parts) == 1:
        return int(parts[0])
    low, best, high = (int(part) for part in parts)
    if not low <= best <= high:
        raise UsageError(f"--shape {whole!r}: in {text!r} the numbers must rise, min:opt:max")
    return (low, best, high)
