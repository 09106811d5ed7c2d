"""What nnU-Net folders may say beyond the plain case: each entry's labels are those of nnU-Net's own predictor."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import voxelrt as vx
from voxelrt.errors import UnsupportedError, UsageError
from voxelrt.io import read_image
from voxelrt.models.nnunet_settings import Resampling
from voxelrt.preprocess.label_resampling import resample_labels

ARCHIVE = Path(__file__).parent / "data" / "nnunet_meaning.tar.xz"
CASCADES = ("cascade", "cascade-apart")


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What make_nnunet_meaning.py wrote with nnU-Net's own networks and predictor."""
    root = tmp_path_factory.mktemp("meaning")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    return root


def _plan(folder: Path, configuration: str | None = None) -> vx.Plan:
    model = vx.load(folder, configuration=configuration)
    return vx.compile(model, fallback="error", tune="off", verify=False)


def _study(folder: Path, plan: vx.Plan) -> dict[str, Path]:
    assert plan.info.model_settings is not None
    names = [channel["name"] for channel in plan.info.model_settings["channels"]]
    return {name: folder / f"case_{index:04d}.nii.gz" for index, name in enumerate(names)}


def _stored(folder: Path, kind: str) -> NDArray[Any]:
    """Labels (x, y, z) as in the file."""
    with np.load(folder / "labels.npz") as stored:
        array: NDArray[Any] = stored[kind]
    return array


def _differ(out: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Differing voxels as a share of the union of foregrounds."""
    return float((out != wanted).sum() / ((out != 0) | (wanted != 0)).sum())


def _run(plan: vx.Plan, folder: Path, **options: Any) -> NDArray[Any]:
    out = vx.predict(plan, _study(folder, plan), folder / "out.nii.gz", **options).out
    assert out is not None
    return np.asarray(read_image(out).volume.array)[0].transpose(2, 1, 0)


@pytest.mark.parametrize("name", CASCADES)
def test_a_cascade_s_second_stage_sees_the_labels_of_its_first(entries: Path, name: str, tmp_path: Path) -> None:
    folder = entries / name
    _plan(folder, "3d_cascade_fullres").save(tmp_path / "cascade.vxp")
    plan = vx.Plan.open(tmp_path / "cascade.vxp")
    assert [part.info.model_settings["configuration"] for part in plan.parts] == ["3d_lowres"]  # type: ignore[index]
    wanted = _stored(folder, "float32")
    assert len(np.unique(wanted)) > 2
    assert _differ(_run(plan, folder), wanted) <= 1e-3
    plan.save(tmp_path / "small.vxp", packed=False)
    small = vx.Plan.open(tmp_path / "small.vxp")
    assert (_run(small, folder) == _run(plan, folder)).all()


def test_a_cascade_without_its_first_stage_says_what_is_missing(entries: Path, tmp_path: Path) -> None:
    second = entries / "cascade" / "nnUNetTrainer__nnUNetPlans__3d_cascade_fullres"
    (tmp_path / second.name).symlink_to(second)
    (tmp_path / "moved").mkdir()
    with pytest.raises(UsageError, match="3d_lowres, must lie beside it"):
        vx.load(second.rename(tmp_path / "moved" / second.name))
    (tmp_path / "moved" / second.name).rename(second)


def test_labels_are_resampled_by_the_largest_share() -> None:
    labels = np.array([[[0, 0, 3, 3]]], np.int16)
    assert resample_labels(labels, (1, 1, 8), Resampling(1), None).tolist() == [[[0, 0, 0, 0, 3, 3, 3, 3]]]
    # Half-way between two labels the nearest voxel's is taken, which is the later one.
    assert resample_labels(labels, (1, 1, 2), Resampling(1), None).tolist() == [[[0, 3]]]
    assert resample_labels(np.array([[[1, 2]]]), (1, 1, 1), Resampling(1), None).tolist() == [[[2]]]
    block = np.arange(24).reshape(2, 3, 4) % 5
    assert (resample_labels(block, (2, 3, 4), Resampling(1), None) == block).all()
    apart = resample_labels(block, (4, 3, 4), Resampling(1, 0), 0)
    assert (apart == np.repeat(block, 2, axis=0)).all()
    with pytest.raises(UnsupportedError, match="order 3"):
        resample_labels(block, (4, 3, 4), replace(Resampling(1), order=3), None)
