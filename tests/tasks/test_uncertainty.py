"""Probabilities and uncertainty of nnU-Net models: what they are by definition, on stored folders, in little memory."""

from __future__ import annotations

import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import voxelrt as vx
from tests.pipeline.test_nnunet_run import FOLDERS, MODELS
from voxelrt.errors import MissingExtraError, UsageError
from voxelrt.io import read_image
from voxelrt.io.orientation import axis_codes, reorient
from voxelrt.observed import agree_with, entropy, probabilities
from voxelrt.pipeline import predict
from voxelrt.volume import Volume


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nnunet")
    with tarfile.open(FOLDERS) as archive:
        archive.extractall(root, filter="data")
    return root


def _case(channels: int) -> Volume:
    """Smooth noise with an empty rim, so that there is a crop; not square."""
    rng = np.random.default_rng(4)
    array = rng.normal(size=(channels, 26, 30, 34)).astype(np.float32).cumsum(1).cumsum(2).cumsum(3)
    array[:, :3] = array[:, :, -2:] = array[:, :, :, :4] = 0
    return Volume(array, np.diag([1.1, 0.9, 1.4, 1.0]))


@pytest.mark.parametrize("model", sorted(set(MODELS.values())))
def test_probabilities_have_the_labels_argmax(model: str, folders: Path, tmp_path: Path) -> None:
    plan = vx.compile(folders / model, tune="off", verify=False)
    settings = plan.info.model_settings
    assert settings is not None
    study = _case(len(settings["channels"]))
    out = tmp_path / "chances.nii.gz"
    plain = predict(plan, study)
    result = predict(plan, study, probabilities=out, uncertainty=True)
    np.testing.assert_array_equal(result.labels.array, plain.labels.array)
    # In the order of the network's axes, as the affine says.
    image = reorient(read_image(out, volume_index="all").volume, axis_codes(study.affine))[0]
    np.testing.assert_allclose(image.affine, study.affine, atol=1e-4)
    chances = np.asarray(image.array)
    folds, mirrored = settings["folds"], settings["mirror_axes"]
    wanted = {"entropy"} | ({"disagreement"} if len(folds) > 1 else set()) | ({"variance"} if mirrored else set())
    assert set(result.maps) == set(result.details["uncertainty"]) == wanted
    labels = np.asarray(result.labels.array[0])
    if settings["regions"]:
        painted = np.zeros_like(labels)
        for value, one in zip(settings["region_order"], chances, strict=True):
            painted[one > 0.5] = value
        kept = labels != 0 if settings["postprocessing"] else np.ones(labels.shape, bool)
        assert (painted != labels)[kept].mean() < 1e-3
    else:
        assert np.abs(chances.sum(axis=0) - 1).max() < 1e-5
        np.testing.assert_array_equal(np.argmax(chances, axis=0), labels)
        np.testing.assert_allclose(result.maps["entropy"].array[0], entropy(chances, False), atol=1e-5)
    for volume in result.maps.values():
        assert float(volume.array.min()) >= 0
        assert float(volume.array.max()) > 0


def test_ties_go_to_the_label() -> None:
    chances = np.array([[0.5, 0.2], [0.5, 0.3], [0.0, 0.5]], np.float32)[:, None]
    agree_with(chances, np.array([[7, 9]], np.uint8), np.array([3, 7, 9], np.int32))
    assert np.argmax(chances, axis=0).tolist() == [[1, 2]]
    assert chances[1, 0, 0] == np.nextafter(np.float32(0.5), np.float32(1))
    np.testing.assert_allclose(probabilities(np.array([1000.0, 0.0], np.float32), False), [1, 0])
    np.testing.assert_allclose(probabilities(np.array([-1000.0, 0.0], np.float32), True), [0, 0.5])


def test_zarr_holds_the_same(folders: Path, tmp_path: Path) -> None:
    model = sorted(set(MODELS.values()))[0]
    plan = vx.compile(folders / model, tune="off", verify=False)
    study = _case(len(plan.info.model_settings["channels"]))  # type: ignore[index]
    predict(plan, study, probabilities=tmp_path / "a.nii")
    flat = nib.load(tmp_path / "a.nii").get_fdata(dtype=np.float32).T
    predict(plan, study, probabilities=tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii.gz").get_fdata(dtype=np.float32).T, flat)
    zarr = pytest.importorskip("zarr", reason="Zarr, of the extra zarr, is not installed")
    predict(plan, study, probabilities=tmp_path / "c.zarr")
    np.testing.assert_array_equal(np.asarray(zarr.open_array(tmp_path / "c.zarr", mode="r")), flat)


def test_what_is_refused(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vx.load(folders / "Dataset801_Plain", folds=("0",))
    plan = vx.compile(model, tune="off", verify=False)
    study = _case(1)
    with pytest.raises(UsageError, match="among folds"):
        predict(plan, study, maps={"disagreement": None})
    with pytest.raises(UsageError, match="among mirrored forms"):
        predict(plan, study, maps={"variance": None}, mirroring=False)
    with pytest.raises(UsageError, match="makes the maps entropy"):
        predict(plan, study, maps={"heat": None})
    with pytest.raises(UsageError, match="source_rounding"):
        predict(plan, study, maps={"entropy": None}, source_rounding=True)
    with pytest.raises(UsageError, match=r"\.nii, \.nii\.gz, \.zarr"):
        predict(plan, study, probabilities=tmp_path / "a.npy")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"voxelrt\[zarr\]"):
        predict(plan, study, probabilities=tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []
