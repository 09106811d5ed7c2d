"""``plans.json`` and ``dataset.json`` of nnU-Net v2, checked: the architecture and the settings they ask for.

Both dialects of plans are read: ``architecture`` with ``arch_kwargs``, and the older ``UNet_class_name`` with its
fields beside it. A field that is missing or of another type is named.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxelrt.errors import ModelError, UnsupportedError
from voxelrt.models.formats.nnunet_network import Architecture
from voxelrt.models.nnunet_settings import Channel, Label, Normalisation, Resampling, Scheme

MAX_JSON_BYTES = 64 << 20
MAX_STAGES, MAX_FEATURES, MAX_CONVOLUTIONS, MAX_PATCH = 12, 1 << 14, 64, 1 << 12
SCHEMES: dict[str, Scheme] = {
    "ZScoreNormalization": "z-score",
    "CTNormalization": "ct",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale-0-1",
    "RGBTo01Normalization": "rgb-to-0-1",
}
# Of the networks' arguments those that are read, and those that change nothing at inference.
ARGUMENTS = {
    *("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage"),
    *("n_conv_per_stage_decoder", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs"),
    *("nonlin", "nonlin_kwargs", "deep_supervision"),
}
DEFAULT_RESAMPLING = "resample_data_or_seg_to_shape"


class Fields:
    """A JSON object whose values are taken by name and type."""

    def __init__(self, table: Any, where: str) -> None:
        if not isinstance(table, dict):
            raise ModelError(f"{where} must be an object, not {type(table).__name__}")
        self.table: dict[str, Any] = table
        self.where = where

    def get(self, name: str, kinds: type | tuple[type, ...], default: Any = None) -> Any:
        """The value of a field; without a default it must be there. Raises ModelError."""
        value = self.table.get(name)
        if value is None:
            if default is None:
                raise ModelError(f"{self.where} has no {name!r}")
            return default
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
            raise ModelError(f"{self.where}: {name!r} is {value!r:.60}, of another type than it must be")
        return value

    def fields(self, name: str) -> Fields:
        """A field that is an object itself."""
        return Fields(self.get(name, dict), f"{self.where}, {name}")

    def numbers(self, name: str, low: int = 1, high: int = MAX_PATCH) -> tuple[int, ...]:
        """A field that is a list of whole numbers."""
        return _whole(self.get(name, list), f"{self.where}: {name!r}", low, high)

    def rows(self, name: str, width: int) -> tuple[tuple[int, ...], ...]:
        """A field that is a list of such lists, or of single numbers for all axes."""
        rows = tuple(
            _whole(row if isinstance(row, list) else [row] * width, f"{self.where}: {name!r}", 1, 32)
            for row in self.get(name, list)
        )
        if any(len(row) != width for row in rows):
            raise ModelError(f"{self.where}: {name!r} must have {width} numbers for each stage")
        return rows


def _whole(values: list[Any], where: str, low: int, high: int) -> tuple[int, ...]:
    if any(isinstance(v, bool) or not isinstance(v, int) or not low <= v <= high for v in values):
        raise ModelError(f"{where} must be whole numbers from {low} to {high}, not {values!r:.80}")
    return tuple(values)


def read_json(path: Path) -> Fields:
    """A JSON file. Raises ModelError: missing, too large, or no JSON object."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelError(f"{path.name} is larger than such a file can be")
        return Fields(json.loads(path.read_text("utf-8")), path.name)
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} is not JSON") from error


def configuration(plans: Fields, name: str) -> Fields:
    """A configuration with all that it inherits. Raises ModelError: unknown, or inherits in a circle."""
    all_of = plans.fields("configurations")
    merged: dict[str, Any] = {}
    seen: list[str] = []
    while name:
        if name in seen or name not in all_of.table:
            known = ", ".join(sorted(all_of.table))
            raise ModelError(f"{plans.where} has no configuration {name!r} that ends somewhere; it has {known}")
        seen.append(name)
        here = all_of.fields(name)
        merged = {**here.table, **merged}
        name = str(here.table.get("inherits_from") or "")
    return Fields(merged, f"{plans.where}, configuration {seen[0]}")


def architecture(config: Fields, dimensions: int) -> Architecture:
    """The network that a configuration asks for.

    Raises
    ------
    ModelError : contradictory or damaged. UnsupportedError : another network, norm or activation than nnU-Net's own.
    """
    if "architecture" in config.table:
        described = config.fields("architecture")
        kind = str(described.get("network_class_name", str)).rsplit(".", 1)[-1]
        fields = described.fields("arch_kwargs")
        kernels, strides, encoder = "kernel_sizes", "strides", "n_conv_per_stage"
        if "n_blocks_per_stage" in fields.table:
            encoder = "n_blocks_per_stage"
        features = fields.numbers("features_per_stage", high=MAX_FEATURES)
        unknown = sorted(name for name in set(fields.table) - ARGUMENTS if fields.table[name])
        if unknown:
            raise UnsupportedError(f"{config.where}: the network's {', '.join(unknown)} are not read")
    else:
        kind, fields = str(config.get("UNet_class_name", str)), config
        kernels, strides, encoder = "conv_kernel_sizes", "pool_op_kernel_sizes", "n_conv_per_stage_encoder"
        base, most = fields.get("UNet_base_num_features", int), fields.get("unet_max_num_features", int)
        features = tuple(min(base << i, most) for i in range(len(fields.get(encoder, list))))
    if kind not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise UnsupportedError(f"the network {kind!r} is not read; PlainConvUNet and ResidualEncoderUNet are")
    counts, decoder = fields.numbers(encoder, high=MAX_CONVOLUTIONS), fields.numbers("n_conv_per_stage_decoder")
    stages = len(features)
    shape = (len(fields.rows(kernels, dimensions)), len(fields.rows(strides, dimensions)), len(counts))
    if not 2 <= stages <= MAX_STAGES or shape != (stages,) * 3 or len(decoder) != stages - 1:
        raise ModelError(f"{config.where}: {stages} stages, but kernels, strides, blocks for {shape}")
    if max(features) > MAX_FEATURES or max(decoder) > MAX_CONVOLUTIONS:
        raise ModelError(f"{config.where}: {max(features)} channels")
    norm = _last_word(fields, "norm_op", "InstanceNorm")
    if not norm.startswith(("InstanceNorm", "BatchNorm", "None")):
        raise UnsupportedError(f"the norm {norm!r} is not read; instance and batch norms are")
    norms = fields.table.get("norm_op_kwargs") or {}
    if not isinstance(norms, dict):
        raise ModelError(f"{config.where}: norm_op_kwargs is {norms!r:.60}, not an object")
    # torch's own defaults; the older dialect says nothing and means nnU-Net's, with weights.
    not_said = norm.startswith("Batch") or fields is config
    return Architecture(
        kind="PlainConvUNet" if kind == "PlainConvUNet" else "ResidualEncoderUNet",
        dimensions=dimensions,
        features=features,
        kernels=fields.rows(kernels, dimensions),
        strides=fields.rows(strides, dimensions),
        encoder=counts,
        decoder=decoder,
        norm="batch" if norm.startswith("Batch") else "none" if norm == "None" else "instance",
        epsilon=_number(norms.get("eps", 1e-5), "eps"),
        affine=bool(norms.get("affine", not_said)),
        slope=_slope(fields),
    )


def trained(architecture: Architecture, trainer: str) -> Architecture:
    """The network that a trainer of nnU-Net makes of the plans': all leave it as it is but one."""
    if trainer != "nnUNetTrainerBN":
        return architecture
    return replace(architecture, norm="batch", epsilon=1e-5, affine=True)


def _last_word(fields: Fields, name: str, default: str) -> str:
    if name not in fields.table:
        return default
    return str(fields.table[name]).rsplit(".", 1)[-1]


def _slope(fields: Fields) -> float:
    kind = _last_word(fields, "nonlin", "LeakyReLU")
    if kind not in ("LeakyReLU", "ReLU"):
        raise UnsupportedError(f"the activation {kind!r} is not read; LeakyReLU and ReLU are")
    given = fields.table.get("nonlin_kwargs") or {}
    if not isinstance(given, dict):
        raise ModelError(f"{fields.where}: nonlin_kwargs is {given!r:.60}, not an object")
    return _number(given.get("negative_slope", 0.01), "negative_slope") if kind == "LeakyReLU" else 0.0


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ModelError(f"{what} is {value!r:.40}, not a number")
    return float(value)


def channels(plans: Fields, config: Fields, dataset: Fields) -> tuple[Channel, ...]:
    """The input images with their normalisation. Raises ModelError, UnsupportedError."""
    names = dataset.table.get("channel_names") or dataset.table.get("modality")
    schemes, masked = config.get("normalization_schemes", list), config.get("use_mask_for_norm", list)
    if not isinstance(names, dict) or not len(names) == len(schemes) == len(masked) > 0:
        raise ModelError(f"{dataset.where}: channel names and the plans' normalisation schemes differ in number")
    intensities = plans.table.get("foreground_intensity_properties_per_channel") or {}
    made = []
    for index, (scheme, inside) in enumerate(zip(schemes, masked, strict=True)):
        if not isinstance(scheme, str) or scheme not in SCHEMES:
            raise UnsupportedError(f"the normalisation {scheme!r} is not read; {', '.join(SCHEMES)} are")
        name = str(names.get(str(index), f"channel-{index}"))
        made.append(Channel(name, _normalisation(SCHEMES[scheme], bool(inside), intensities, index)))
    return tuple(made)


def _normalisation(scheme: Scheme, inside: bool, intensities: Any, index: int) -> Normalisation:
    if scheme != "ct":
        return Normalisation(scheme, inside and scheme == "z-score")
    found = intensities.get(str(index)) if isinstance(intensities, dict) else None
    of = Fields(found, f"the plans' intensities of channel {index}")
    keys = ("mean", "std", "percentile_00_5", "percentile_99_5")
    mean, deviation, lower, upper = (_number(of.get(key, (int, float)), key) for key in keys)
    return Normalisation("ct", False, mean, deviation, lower, upper)


def resampling(config: Fields, what: str, order: int) -> Resampling:
    """How ``data`` or ``probabilities`` are resampled. Raises UnsupportedError for another function."""
    name = str(config.table.get(f"resampling_fn_{what}", DEFAULT_RESAMPLING))
    if name != DEFAULT_RESAMPLING:
        raise UnsupportedError(f"the resampling {name!r} is not read; {DEFAULT_RESAMPLING} is")
    given = Fields(config.table.get(f"resampling_fn_{what}_kwargs") or {}, f"{config.where}, resampling of {what}")
    forced = given.table.get("force_separate_z")
    return Resampling(
        order=given.get("order", int, order),
        order_z=given.get("order_z", int, 0) if given.table.get("order_z") else 0,
        separate_z=forced if isinstance(forced, bool) else None,
        anisotropy_threshold=_number(given.table.get("separate_z_anisotropy_threshold", 3), "anisotropy threshold"),
    )


def labels(dataset: Fields) -> tuple[tuple[Label, ...], tuple[int, ...]]:
    """The labels, or the regions and the values that they write. Raises ModelError."""
    table: Mapping[str, Any] = dataset.get("labels", dict)
    values = {
        str(name): _whole(value if isinstance(value, list) else [value], f"label {name!r}", 0, (1 << 16) - 1)
        for name, value in table.items()
        if name != "ignore"
    }
    foreground = [Label(name, value) for name, value in values.items() if set(value) - {0}]
    if not foreground:
        raise ModelError(f"{dataset.where} names no label beside the background")
    if any(len(value) > 1 for value in values.values()):
        order = dataset.numbers("regions_class_order", low=0, high=(1 << 16) - 1)
        if len(order) != len(foreground):
            raise ModelError(f"{dataset.where}: {len(foreground)} regions, {len(order)} in regions_class_order")
        return tuple(foreground), order
    foreground.sort(key=lambda label: label.values)
    if [label.values[0] for label in foreground] != list(range(1, len(foreground) + 1)):
        raise ModelError(f"{dataset.where}: label values must be 0, 1, 2 and so on, without gaps")
    return tuple(foreground), ()
