"""The settings of an nnU-Net model survive the plan file, and a damaged one is refused."""

from __future__ import annotations

import json

import pytest

from voxelrt.errors import ModelError
from voxelrt.models.nnunet_settings import (
    Channel,
    KeepLargest,
    Label,
    NnunetSettings,
    Normalisation,
    Resampling,
    settings_from_json,
)

SETTINGS = NnunetSettings(
    dataset="Dataset001_Phantom",
    plans="nnUNetPlans",
    configuration="3d_fullres",
    trainer="nnUNetTrainer",
    dimensions=3,
    patch_size=(32, 48, 64),
    spacing_mm=(3.0, 1.0, 1.0),
    transpose_forward=(1, 0, 2),
    transpose_backward=(1, 0, 2),
    channels=(
        Channel("CT", Normalisation("ct", False, 50.0, 30.0, -100.0, 200.0)),
        Channel("PET", Normalisation("none")),
    ),
    reader="SimpleITKIO",
    file_ending=".nii.gz",
    resample_data=Resampling(3),
    resample_logits=Resampling(1, separate_z=False),
    labels=(Label("whole", (1, 2)), Label("core", (2,))),
    regions=True,
    region_order=(1, 2),
    mirror_axes=(0, 2),
    folds=("0", "all"),
    postprocessing=(KeepLargest((1, 2)),),
)


def test_settings_come_back_from_json() -> None:
    assert settings_from_json(json.loads(json.dumps(SETTINGS.to_json()))) == SETTINGS
    assert SETTINGS.outputs == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patch_size", [32, 48]),
        ("patch_size", [32, "a", 3]),
        ("spacing_mm", [1.0, 1.0, -1.0]),
        ("transpose_forward", [0, 0, 1]),
        ("labels", []),
        ("labels", 3),
        ("channels", [{"name": "x"}]),
        ("region_order", [1]),
        ("mirror_axes", [3]),
        ("step", 0.0),
        ("unknown", 1),
        ("resample_data", {"order": 9}),
    ],
)
def test_damaged_settings_are_refused(name: str, value: object) -> None:
    fields = json.loads(json.dumps(SETTINGS.to_json()))
    fields[name] = value
    with pytest.raises(ModelError, match="settings are damaged"):
        settings_from_json(fields)


def test_a_missing_field_is_named() -> None:
    fields = SETTINGS.to_json()
    del fields["labels"]
    with pytest.raises(ModelError, match="labels"):
        settings_from_json(fields)
