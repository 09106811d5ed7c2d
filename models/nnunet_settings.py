"""What an nnU-Net folder says beside the network: how a case becomes its input and its answer becomes labels.

The reader (``formats/nnunet.py``) fills these in, the plan carries them as data, the volume pipeline obeys them.
Axes: ``spacing_mm``, ``patch_size`` and ``mirror_axes`` are in the network's order, after ``transpose_forward``; a 2-D
configuration has two of them, and its slices lie along the first axis of the transposed volume.

Source: nnU-Net v2 (Isensee et al., Nature Methods 18, 2021), its ``plans.json`` and ``dataset.json``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from voxelrt.errors import ModelError

INPUT, OUTPUT = "image", "logits"  # of the network, as values of its graph
FEATURES = "features"  # what its head makes the logits of, see graph/head.py

Scheme = Literal["z-score", "ct", "none", "rescale-0-1", "rgb-to-0-1"]
SCHEMES: tuple[Scheme, ...] = ("z-score", "ct", "none", "rescale-0-1", "rgb-to-0-1")


@dataclass(frozen=True)
class Normalisation:
    """How the intensities of one channel are scaled.

    Parameters
    ----------
    scheme : z-score (mean and deviation of the image), ct (clip to percentiles, then the dataset's mean and deviation),
        none, rescale-0-1 (minimum to 0, maximum to 1), rgb-to-0-1 (divide by 255).
    only_inside_mask : z-score: measure and apply inside the non-zero mask only; outside it is 0.
    mean, deviation, lower, upper : of the dataset's foreground, for ct.
    """

    scheme: Scheme
    only_inside_mask: bool = False
    mean: float = 0.0
    deviation: float = 1.0
    lower: float = 0.0
    upper: float = 0.0


@dataclass(frozen=True)
class Channel:
    """One input image: its name in the dataset and how it is scaled."""

    name: str
    normalisation: Normalisation


@dataclass(frozen=True)
class Resampling:
    """How images, or logits, are brought to another grid (``resample_data_or_seg_to_shape``).

    Parameters
    ----------
    order : of the spline, 0 to 5.
    order_z : along the coarse axis where that axis is taken apart.
    separate_z : True or False where the plans force it; None: where the spacing's anisotropy exceeds
        `anisotropy_threshold` (max/min of the spacing, of the old grid or else the new).
    anisotropy_threshold : nnU-Net's ANISO_THRESHOLD, 3.
    """

    order: int
    order_z: int = 0
    separate_z: bool | None = None
    anisotropy_threshold: float = 3.0


@dataclass(frozen=True)
class Label:
    """One label, or region, of the answer.

    Parameters
    ----------
    name : as in the dataset.
    values : the label's value, or the values that a region unites.
    """

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class KeepLargest:
    """Postprocessing: of the union of these label values only the largest connected component stays."""

    values: tuple[int, ...]
    background: int = 0


@dataclass(frozen=True)
class NnunetSettings:
    """All that the pipeline needs to know of an nnU-Net model.

    Parameters
    ----------
    dataset, plans, configuration, trainer : names, for people.
    dimensions : 2 or 3.
    patch_size : the window in voxels.
    spacing_mm : the spacing the network was trained at.
    transpose_forward, transpose_backward : axes of the volume as read (z, y, x) -> the network's, and back.
    channels : the input images, in order.
    reader : nnU-Net's name of the image reader, which decides the order of axes as read.
    file_ending : of the dataset's images, ".nii.gz".
    resample_data, resample_logits : see Resampling.
    labels : in the order of the dataset; the background is not among them, nor the ignore label.
    regions : the labels are regions: one sigmoid channel each, else one softmax channel for the background and each
        label.
    region_order : for regions: the value that each channel writes, in the order of writing.
    mirror_axes : axes along which the network may be mirrored at inference; empty for none.
    step : the windows' step as a share of the patch.
    gaussian_sigma : of the importance map, as a share of the patch; 0: all voxels count the same.
    folds : names of the folds whose logits are averaged, in order.
    postprocessing : in order.
    previous_stage : name of the configuration whose labels are a further one-hot input; "" without a cascade.
    cascade_labels : for a cascade: the label values of the one-hot channels, in order.
    resample_previous : how the labels of the previous stage are brought to this one's grid.
    """

    dataset: str
    plans: str
    configuration: str
    trainer: str
    dimensions: Literal[2, 3]
    patch_size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    transpose_forward: tuple[int, int, int]
    transpose_backward: tuple[int, int, int]
    channels: tuple[Channel, ...]
    reader: str
    file_ending: str
    resample_data: Resampling
    resample_logits: Resampling
    labels: tuple[Label, ...]
    regions: bool = False
    region_order: tuple[int, ...] = ()
    mirror_axes: tuple[int, ...] = ()
    step: float = 0.5
    gaussian_sigma: float = 0.125
    folds: tuple[str, ...] = ("0",)
    postprocessing: tuple[KeepLargest, ...] = ()
    previous_stage: str = ""
    cascade_labels: tuple[int, ...] = ()
    resample_previous: Resampling = Resampling(1)

    @property
    def outputs(self) -> int:
        """How many channels the network gives."""
        return len(self.labels) if self.regions else len(self.labels) + 1

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; ``settings_from_json`` is the way back."""
        return asdict(self)


def settings_from_json(fields: Any, where: str = "the model's settings") -> NnunetSettings:
    """The way back from ``to_json``; the text comes from a plan file, which is not trusted.

    Raises
    ------
    ModelError : a field is missing, unknown, or of another type; named.
    """
    try:
        table = dict(fields)
        table["channels"] = tuple(
            Channel(str(c["name"]), Normalisation(**c["normalisation"])) for c in table.pop("channels")
        )
        table["resample_data"] = Resampling(**table.pop("resample_data"))
        table["resample_logits"] = Resampling(**table.pop("resample_logits"))
        table["resample_previous"] = Resampling(**table.pop("resample_previous"))
        table["labels"] = tuple(Label(str(v["name"]), _whole(v["values"])) for v in table.pop("labels"))
        table["postprocessing"] = tuple(
            KeepLargest(_whole(v["values"]), int(v["background"])) for v in table.pop("postprocessing")
        )
        for name in ("patch_size", "transpose_forward", "transpose_backward", "region_order", "mirror_axes"):
            table[name] = _whole(table[name])
        table["cascade_labels"] = _whole(table["cascade_labels"])
        table["spacing_mm"] = tuple(float(v) for v in table["spacing_mm"])
        table["folds"] = tuple(str(v) for v in table["folds"])
        settings = NnunetSettings(**table)
        _check(settings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{where} are damaged: {type(error).__name__}: {error}") from None
    return settings


def _whole(values: Any) -> tuple[int, ...]:
    if any(isinstance(v, bool) or not isinstance(v, int) for v in values):
        raise ValueError(f"whole numbers are wanted, not {values!r}")
    return tuple(values)


def _check(s: NnunetSettings) -> None:
    """What the pipeline relies on."""
    if s.dimensions not in (2, 3) or len(s.patch_size) != s.dimensions or min(s.patch_size) < 1:
        raise ValueError(f"a patch of {s.patch_size} in {s.dimensions} dimensions")
    if len(s.spacing_mm) != s.dimensions or not all(0 < v < 1e6 for v in s.spacing_mm):
        raise ValueError(f"a spacing of {s.spacing_mm} mm in {s.dimensions} dimensions")
    if sorted(s.transpose_forward) != [0, 1, 2] or sorted(s.transpose_backward) != [0, 1, 2]:
        raise ValueError(f"axes {s.transpose_forward} and {s.transpose_backward} are no permutations")
    if not s.channels or not s.labels or not s.folds:
        raise ValueError("there must be a channel, a label and a fold")
    if s.regions and len(s.region_order) != len(s.labels):
        raise ValueError(f"{len(s.labels)} regions but {len(s.region_order)} values to write")
    if any(axis not in range(s.dimensions) for axis in s.mirror_axes) or not 0 < s.step <= 1:
        raise ValueError(f"mirroring along {s.mirror_axes}, step {s.step}")
    if any(c.normalisation.scheme not in SCHEMES for c in s.channels):
        raise ValueError(f"normalisation must be one of {', '.join(SCHEMES)}")
    if bool(s.previous_stage) != bool(s.cascade_labels) or (s.cascade_labels and s.dimensions == 2):
        raise ValueError(f"the previous stage {s.previous_stage!r} with the labels {s.cascade_labels}")
    if not (0 <= s.resample_data.order <= 5 and 0 <= s.resample_logits.order <= 5):
        raise ValueError("spline orders go from 0 to 5")


def fold_outputs(folds: int) -> list[str]:
    """The names of the folds' own logits in the graph."""
    return [f"{OUTPUT}.fold{index}" for index in range(folds)]
