"""What nnU-Net folders may say beyond the plain case: each entry's labels are those of nnU-Net's own predictor."""

from __future__ import annotations

import json
import shutil
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
from voxelrt.io.label_picture import write_label_picture
from voxelrt.models.nnunet_settings import KeepLargest, Resampling
from voxelrt.outputs import Form
from voxelrt.preprocess.label_resampling import resample_labels

ARCHIVE = Path(__file__).parent / "data" / "nnunet_meaning.tar.xz"
CASCADES = ("cascade", "cascade-apart")
PLAIN = (
    *("two-classes-oblique", "120-classes", "order-2", "order-4", "order-5", "scaled", "postprocessed"),
    *("picture", "tiff"),
)


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


def _study(folder: Path, plan: vx.Plan) -> Any:
    """The case's images, as files by the model's names."""
    assert plan.info.model_settings is not None
    names = [channel["name"] for channel in plan.info.model_settings["channels"]]
    for ending in (".png", ".tif"):
        if (folder / f"case_0000{ending}").is_file():  # one picture has all the colours
            return {names[0]: folder / f"case_0000{ending}"}
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
    return np.asarray(vx.predict(plan, _study(folder, plan), **options).labels.array)[0].transpose(2, 1, 0)


@pytest.mark.parametrize("name", PLAIN)
def test_labels_are_nnunet_s(entries: Path, name: str) -> None:
    """Of 2 and 120 classes, pictures and TIFF volumes, every order of spline and scheme of scaling, postprocessed."""
    plan = _plan(entries / name)
    wanted, half = _stored(entries / name, "float32"), _stored(entries / name, "half")
    assert len(np.unique(wanted)) > 1
    assert _differ(_run(plan, entries / name), wanted) <= 1e-4
    assert _differ(_run(plan, entries / name, source_rounding=True), half) <= 1e-3


def test_postprocessing_is_read_from_json_as_from_its_pickle(entries: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(entries / "postprocessed", tmp_path / "copy"))
    (training,) = folder.glob("nnUNetTrainer__*")
    pickled = vx.load(folder)
    (training / "postprocessing.pkl").unlink()
    said = vx.load(folder)
    assert pickled.settings is not None
    assert said.settings == pickled.settings
    assert pickled.settings.postprocessing == (KeepLargest((1, 2, 3)), KeepLargest((2,), 3))
    (training / "postprocessing.json").unlink()
    bare = vx.load(folder)
    assert len({model.source["sha256"] for model in (pickled, said, bare)}) == 3
    plan = vx.compile(bare, fallback="error", tune="off", verify=False)
    assert _differ(_run(plan, folder), _stored(folder, "float32")) > 1e-2  # so what was kept was worth keeping
    hostile = {"postprocessing_fns": ["os.system"], "postprocessing_kwargs": [{}]}
    (training / "postprocessing.json").write_text(json.dumps(hostile))
    with pytest.raises(UnsupportedError, match=r"os\.system"):
        vx.load(folder)


@pytest.mark.parametrize("name", CASCADES)
def test_a_cascade_s_second_stage_sees_the_labels_of_its_first(entries: Path, name: str, tmp_path: Path) -> None:
    folder = entries / name
    _plan(folder, "3d_cascade_fullres").save(tmp_path / "cascade.vxp")
    plan = vx.Plan.open(tmp_path / "cascade.vxp")
    assert [part.info.model_settings["configuration"] for part in plan.parts] == ["3d_lowres"]  # type: ignore[index]
    wanted = _stored(folder, "float32")
    assert len(np.unique(wanted)) > 2
    found = _run(plan, folder)
    assert _differ(found, wanted) <= 1e-4
    # The first stage's labels are rounded as nnU-Net rounds them too.
    assert _differ(_run(plan, folder, source_rounding=True), _stored(folder, "half")) <= 1e-3
    plan.save(tmp_path / "small.vxp", packed=False)
    small = vx.Plan.open(tmp_path / "small.vxp")
    assert (_run(small, folder) == found).all()


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


@pytest.mark.parametrize(("name", "ending"), [("picture", ".png"), ("tiff", ".tif")])
def test_answers_come_in_the_model_s_own_kind_of_file(entries: Path, name: str, ending: str, tmp_path: Path) -> None:
    """As nnU-Net's writer of pictures writes them; a picture of the labels only if asked for."""
    plan = _plan(entries / name)
    study, wanted = _study(entries / name, plan), _stored(entries / name, "float32")
    result = vx.predict(plan, study, tmp_path / f"mask{ending}", picture=tmp_path / "look.png")
    read = read_image(tmp_path / f"mask{ending}").volume
    assert read.array.dtype == np.uint8
    assert _differ(read.array[0].transpose(2, 1, 0), wanted) <= 1e-4
    if ending == ".tif":
        assert read.spacing_mm == pytest.approx(result.labels.spacing_mm)
        assert json.loads((tmp_path / "mask.json").read_text())["spacing"] == pytest.approx(result.labels.spacing_mm)
    with vx.Session(plan) as session:
        (one,) = session.map([study], tmp_path / "many", names="input", pictures=True)
    assert one.out is not None
    assert one.out.name == f"case{ending}"
    assert (read_image(one.out).volume.array == read.array).all()
    assert len(list((tmp_path / "many").glob("*.png"))) == (2 if ending == ".png" else 1)
    vx.predict(plan, study, tmp_path / "picture.png", form=Form("png"))
    assert read_image(tmp_path / "picture.png").volume.array.shape[0] == 3
    with pytest.raises(UsageError, match="one slice"):
        write_label_picture(vx.Volume(np.zeros((2, 3, 4), np.uint8), np.eye(4)), tmp_path / "no.png")
