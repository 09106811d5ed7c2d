"""Several nnU-Net folders as one model: merged by a class map, on one grid, inside the crop of another model."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

import voxelrt as vx
from tests.pipeline.test_nnunet_meaning import ARCHIVE
from voxelrt.cli import main
from voxelrt.errors import UnsupportedError, UsageError

TWO = """
name = "organs"
[grid]
orientation = "RAS"
spacing_mm_xyz = [1.6, 1.6, 1.6]
[[models]]
path = "postprocessed"
classes = { "organ 1" = 7, "organ 3" = 9 }
[[models]]
path = "two-classes-oblique"
classes = { "organ 1" = 300 }
[[labels]]
value = 7
name = "liver"
[[labels]]
value = 9
name = "spleen"
[[labels]]
value = 300
name = "vessel"
"""
CROP = """
[crop]
path = "tiff"
classes = ["organ 1"]
margin_mm = 3.2
"""
QUICK: dict[str, Any] = {"mirroring": False, "step": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("composite")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture(scope="module")
def study(folder: Path) -> vx.Volume:
    """On the composite's own grid: RAS+ is LPS- with both signs turned."""
    image = nib.load(folder / "postprocessed" / "case_0000.nii.gz")
    array = np.asarray(image.dataobj).T.astype(np.float32)
    return vx.Volume(array, np.diag([-1.6, -1.6, 1.6, 1.0]))


def _composite(folder: Path, text: str) -> vx.Plan:
    path = folder / "organs.toml"
    path.write_text(text)
    return vx.compile(path, fallback="error", tune="off", verify=False)


def _alone(folder: Path, name: str, volume: vx.Volume) -> NDArray[Any]:
    plan = vx.compile(folder / name, fallback="error", tune="off", verify=False)
    return np.asarray(vx.predict(plan, volume, **QUICK).labels.array[0])


def _merged(folder: Path, volume: vx.Volume) -> NDArray[Any]:
    """By hand: the later model wins."""
    first, second = _alone(folder, "postprocessed", volume), _alone(folder, "two-classes-oblique", volume)
    made = np.where(first == 1, 7, np.where(first == 3, 9, 0)).astype(np.uint16)
    made[second == 1] = 300
    return made


def test_models_are_merged_by_their_classes(folder: Path, study: vx.Volume, tmp_path: Path) -> None:
    _composite(folder, TWO).save(tmp_path / "organs.vxp")
    plan = vx.Plan.open(tmp_path / "organs.vxp")
    result = vx.predict(plan, study, **QUICK)
    wanted = _merged(folder, study)
    assert set(np.unique(wanted)) >= {7, 9, 300}
    assert (result.labels.array[0] == wanted).all()
    assert result.labels.labels == {0: "background", 7: "liver", 9: "spleen", 300: "vessel"}
    assert set(result.volumes_ml) == {"liver", "spleen", "vessel"}


def test_a_turned_study_gives_the_labels_turned(folder: Path, study: vx.Volume) -> None:
    plan = _composite(folder, TWO)
    affine = study.affine @ np.array([[-1, 0, 0, study.shape_zyx[2] - 1], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    turned = vx.Volume(study.array[:, :, :, ::-1].transpose(0, 2, 1, 3), affine)
    out = vx.predict(plan, turned, **QUICK).labels.array[0]
    assert (out == _merged(folder, study)[:, :, ::-1].transpose(1, 0, 2)).all()


def test_other_voxel_sizes_come_back_to_the_study_s_grid(folder: Path, study: vx.Volume) -> None:
    plan = _composite(folder, TWO)
    fine = vx.Volume(np.repeat(study.array, 2, axis=1), study.affine @ np.diag([1, 1, 0.5, 1]))
    made = vx.predict(plan, fine, **QUICK)
    assert made.labels.shape_zyx == fine.shape_zyx
    # Linear interpolation of repeated slices at the middle of each pair is the slice itself.
    assert (made.labels.array[0] == np.repeat(_merged(folder, study), 2, axis=0)).all()


def test_the_others_see_only_the_crop_s_box(folder: Path, study: vx.Volume) -> None:
    mask = _alone(folder, "tiff", study) == 1
    places = np.argwhere(mask)
    low, high = np.maximum(places.min(axis=0) - 2, 0), np.minimum(places.max(axis=0) + 3, mask.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    wanted = np.zeros(mask.shape, np.uint16)
    wanted[box] = _merged(folder, vx.Volume(study.array[0][box], study.affine))
    out = vx.predict(_composite(folder, TWO + CROP), study, **QUICK).labels.array[0]
    assert (out == wanted).all()


def test_nothing_in_the_crop_is_nothing(folder: Path, study: vx.Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxelrt.composite._box", lambda *_: None)
    out = vx.predict(_composite(folder, TWO + CROP), study, **QUICK).labels.array
    assert not out.any()


def test_a_map_is_that_of_the_least_sure_model(folder: Path, study: vx.Volume, tmp_path: Path) -> None:
    options: dict[str, Any] = {**QUICK, "uncertainty": True}
    both = vx.predict(_composite(folder, TWO), study, **options)
    each = [
        vx.predict(vx.compile(folder / name, fallback="error", tune="off", verify=False), study, **options).maps[
            "entropy"
        ]
        for name in ("postprocessed", "two-classes-oblique")
    ]
    wanted = np.maximum(each[0].array, each[1].array)
    assert wanted.max() > 0
    np.testing.assert_allclose(both.maps["entropy"].array, wanted, atol=1e-6)
    inside = both.labels.array != 0
    assert both.details["uncertainty"]["entropy"]["case"] == pytest.approx(float(wanted[inside].mean()), rel=1e-4)
    with pytest.raises(UsageError, match="several models and may overlap"):
        vx.predict(_composite(folder, TWO), study, probabilities=tmp_path / "p.nii.gz", **QUICK)
    with pytest.raises(UsageError, match="variance is among mirrored forms, and postprocessed runs without"):
        vx.predict(_composite(folder, TWO), study, maps={"variance": tmp_path / "v.nii.gz"}, **QUICK)
    assert not list(tmp_path.iterdir())


def test_the_command_runs_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "organs.toml").write_text(TWO)
    case = folder / "postprocessed" / "case_0000.nii.gz"
    args = ["run", str(folder / "organs.toml"), str(case), "-o", str(tmp_path / "out.nii.gz"), "--no-mirroring"]
    with pytest.raises(SystemExit) as ended:
        main([*args, "--step", "1", "--json", "-", "--quiet"])
    assert ended.value.code in (0, None)
    assert set(json.loads(capsys.readouterr().out)["volumes_ml"]) == {"liver", "spleen", "vessel"}
    assert nib.load(tmp_path / "out.nii.gz").shape == nib.load(case).shape


@pytest.mark.parametrize(
    ("old", "new", "error", "match"),
    [
        ("classes =", "class =", UsageError, "did you mean classes"),
        ('"organ 3" = 9', '"organ 8" = 9', UsageError, "organ 8"),
        ('"organ 3" = 9', '"organ 3" = 8', UsageError, r"\[8\]"),
        ('"postprocessed"', '"../postprocessed"', UsageError, "stay inside"),
        ('"postprocessed"', '"nowhere"', UsageError, "nowhere"),
        ('"postprocessed"', '"cascade"\nconfiguration = "3d_cascade_fullres"', UnsupportedError, "cascade"),
        ("value = 300", "value = 9", UsageError, "values of their own"),
        ("spacing_mm_xyz = [1.6, 1.6, 1.6]", "shape_xyz = [8, 8, 8]", UsageError, "spacing"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, old: str, new: str, error: type[Exception], match: str) -> None:
    path = folder / "wrong.toml"
    path.write_text(TWO.replace(old, new))
    with pytest.raises(error, match=match):
        vx.load(path)
