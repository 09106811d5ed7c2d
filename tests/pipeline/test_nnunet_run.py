"""A case through an nnU-Net folder gives the labels of nnU-Net's own predictor."""

from __future__ import annotations

import contextlib
import itertools
import json
import tarfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

import voxelrt as vx
from voxelrt.cli import main
from voxelrt.errors import TimeLimitError, UsageError
from voxelrt.models.nnunet_settings import settings_from_json
from voxelrt.postprocess.components import fill_holes, largest_touching
from voxelrt.preprocess.interpolation import interpolation_matrix
from voxelrt.tiling.slab import FileSlab, MemorySlab, Slab
from voxelrt.tiling.stitcher import Stitcher
from voxelrt.tiling.windows import importance, mirrorings, starts

FOLDERS = Path(__file__).parents[1] / "models" / "data" / "nnunet_folders.tar.xz"
CASES = Path(__file__).parent / "data" / "nnunet_cases.npz"
MODELS = {"anisotropic": "Dataset801_Plain", "oblique-regions": "Dataset802_Residual", "slices": "Dataset803_Flat"}


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, vx.Plan]:
    root = tmp_path_factory.mktemp("nnunet")
    with tarfile.open(FOLDERS) as archive:
        archive.extractall(root, filter="data")
    return {case: vx.compile(root / model, tune="off", verify=False) for case, model in MODELS.items()}


def _study(case: str, plan: vx.Plan, folder: Path) -> dict[str, Path]:
    """The case's images as NIfTI files, by the model's names of channels."""
    assert plan.info.model_settings is not None
    study = {}
    with np.load(CASES) as stored:
        for index, channel in enumerate(plan.info.model_settings["channels"]):
            study[channel["name"]] = folder / f"{index}.nii.gz"
            nib.save(nib.Nifti1Image(stored[f"{case}.image{index}"], stored[f"{case}.affine"]), study[channel["name"]])
    return study


def _labels(path: Path) -> NDArray[Any]:
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.parametrize("case", MODELS)
def test_labels_are_nnunet_s(plans: dict[str, vx.Plan], case: str, tmp_path: Path) -> None:
    plan = plans[case]
    result = vx.predict(plan, _study(case, plan, tmp_path), tmp_path / "out.nii.gz")
    out = _labels(tmp_path / "out.nii.gz")
    with np.load(CASES) as stored:
        wide, half = stored[f"{case}.float32"], stored[f"{case}.half"]
        assert np.abs(nib.load(tmp_path / "out.nii.gz").affine - stored[f"{case}.affine"]).max() < 1e-4
    union = int(((out != 0) | (wide != 0)).sum())
    assert union > 5000
    assert int((out != wide).sum()) <= union * 1e-4
    # What is left against the predictor as it is, is its own half precision.
    assert int((out != half).sum()) <= int((wide != half).sum()) + union * 1e-4
    # Of two folds, regions and slices: the half precision repeated is the half precision found.
    rounded = vx.predict(plan, _study(case, plan, tmp_path), tmp_path / "rounded.nii.gz", source_rounding=True)
    assert rounded.out is not None
    assert int((_labels(rounded.out) != half).sum()) <= union * 1e-3
    assert set(result.volumes_ml) == {label["name"] for label in plan.info.model_settings["labels"]}  # type: ignore[index]


def test_a_small_budget_gives_the_same_from_a_scratch_file(
    plans: dict[str, vx.Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, said = plans["anisotropic"], list[str]()
    study = _study("anisotropic", plan, tmp_path)
    with pytest.raises(UsageError, match=r"memory: 50 MiB is less than this case needs, .* the network"):
        vx.predict(plan, study, memory="50MiB")
    whole = vx.predict(plan, study, say=said.append).labels.array
    assert "scratch" not in said[-1]
    monkeypatch.setattr("voxelrt.window_plan.memory_bytes", lambda: 0)  # what else is loaded here is more than the case
    budget = plan.memory_bytes
    while "scratch" not in said[-1]:
        budget += 2**16
        with contextlib.suppress(UsageError):
            tight = vx.predict(plan, study, memory=budget, say=said.append).labels.array
    assert budget < plan.memory_bytes + 2**22
    assert (tight == whole).all()
    with pytest.raises(UsageError, match="memory is 'much'"):
        vx.predict(plan, study, memory="much")


def test_windows_of_one_value_are_run_once_and_change_no_bit(
    plans: dict[str, vx.Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, runs = plans["anisotropic"], list[int]()
    settings, run = settings_from_json(plan.info.model_settings), plan.run
    depth, height, width = (3 * n for n in settings.patch_size)
    scan = np.full((len(settings.channels), depth, height, width), -2000, np.int16)  # clipped to one value
    scan[:, : depth // 3] += np.random.default_rng(3).normal(2000, 100, scan[:, : depth // 3].shape).astype(np.int16)
    volume = vx.Volume(scan, np.diag([*reversed(settings.spacing_mm), 1.0]))

    def counted(*given: Any, **options: Any) -> Any:
        runs[-1] += 1
        return run(*given, **options)

    monkeypatch.setattr(plan, "run", counted)
    runs.append(0)
    once = vx.predict(plan, volume).labels.array
    monkeypatch.setattr("voxelrt.window_plan.repeated", lambda *given: {})
    runs.append(0)
    each = vx.predict(plan, volume).labels.array
    np.testing.assert_array_equal(once, each)
    assert runs[0] < 0.7 * runs[1]


def test_a_session_gives_the_same_and_a_damaged_case_stops_nothing(plans: dict[str, vx.Plan], tmp_path: Path) -> None:
    study = _study("slices", plans["slices"], tmp_path)["MRI"]
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    with vx.Session(plans["slices"]) as session:
        results = list(session.map([study, tmp_path / "broken.nii.gz", study], tmp_path / "out"))
    assert [result.error is None for result in results] == [True, False, True]
    with np.load(CASES) as stored:
        assert (_labels(tmp_path / "out" / "study-0003.nii.gz") == stored["slices.float32"]).all()


def test_windows_of_a_session_s_studies_share_batches_and_a_late_one_is_given_up(
    plans: dict[str, vx.Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(FOLDERS) as archive:
        archive.extractall(tmp_path, filter="data")
    shape = ((1, 5, 5), *plans["slices"].inputs[0].dims[1:])
    plan = vx.compile(tmp_path / MODELS["slices"], shapes={"image": shape}, tune="off", verify=False)
    study = _study("slices", plan, tmp_path)["MRI"]
    rows, run = list[int](), vx.Plan.run

    def counting(self: vx.Plan, inputs: dict[str, Any], *given: Any, **options: Any) -> Any:
        rows.append(len(next(iter(inputs.values()))))
        return run(self, inputs, *given, **options)

    monkeypatch.setattr(vx.Plan, "run", counting)
    with vx.Session(plan, mirroring=False) as session:
        results = [session.submit(study) for _ in range(3)]
        together = [result.result().labels.array for result in results]
    alone = vx.predict(plans["slices"], study, mirroring=False).labels.array
    assert all((labels == alone).all() for labels in together)
    assert max(rows) == 5
    with vx.Session(plan, mirroring=False, time_limit=1e-3) as session:
        assert isinstance(session.submit(study).exception(), TimeLimitError)


def test_a_folder_of_cases_runs_and_says_what_failed(
    plans: dict[str, vx.Plan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, images = plans["oblique-regions"], tmp_path / "imagesTs"
    images.mkdir()
    plan.save(tmp_path / "net.vxp")
    for case in ("good", "half", "torn"):
        study = _study("oblique-regions", plan, tmp_path)
        for index, path in enumerate(study.values()):
            path.rename(images / f"{case}_{index:04d}.nii.gz")
    (images / "half_0001.nii.gz").unlink()
    (images / "torn_0001.nii.gz").write_bytes((images / "torn_0001.nii.gz").read_bytes()[:500])
    (images / "dataset.json").write_text("{}")
    args = ["run", str(tmp_path / "net.vxp"), str(images), "-o", str(tmp_path / "out"), "--names", "input"]
    with pytest.raises(SystemExit, match=r"[^0]"):
        main([*args, "--json", "-", "--quiet"])
    told = json.loads(capsys.readouterr().out)
    assert [row["error"] is None for row in told["studies"]] == [True, False, False]
    assert (told["done"], told["kept"], told["failed"]) == (1, 0, 2)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii*")) == ["good.nii.gz"]
    with np.load(CASES) as stored:
        assert (_labels(tmp_path / "out" / "good.nii.gz") == stored["oblique-regions.float32"]).all()
    with pytest.raises(SystemExit, match=r"[^0]"):
        main([*args, "--resume", "--json", "-", "--quiet"])
    assert json.loads(capsys.readouterr().out)["kept"] == 1


def test_options_change_the_answer_and_are_checked(plans: dict[str, vx.Plan], tmp_path: Path) -> None:
    study = _study("anisotropic", plans["anisotropic"], tmp_path)
    quick = vx.predict(plans["anisotropic"], study, mirroring=False, step=1.0).labels.array
    full = vx.predict(plans["anisotropic"], study).labels.array
    assert 0.5 < float((quick == full).mean()) < 1.0
    with pytest.raises(UsageError, match="step"):
        vx.predict(plans["anisotropic"], study, step=0.0)
    with pytest.raises(UsageError, match="step"):
        vx.Session(plans["anisotropic"], step=2.0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (40, 2, 2)])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_tiny_and_empty_volumes_run(plans: dict[str, vx.Plan], shape: tuple[int, int, int], value: float) -> None:
    volume = vx.Volume(np.full(shape, value, np.float32), np.diag([0.9, 0.9, 3.0, 1.0]))
    assert vx.predict(plans["slices"], volume, mirroring=False).labels.shape_zyx == shape
    assert vx.predict(plans["anisotropic"], volume, mirroring=False).labels.shape_zyx == shape


def test_windows_cover_an_axis_evenly() -> None:
    assert starts(110, 64, 0.5) == [0, 23, 46]
    assert starts(64, 64, 0.5) == [0]
    for size in range(64, 200):
        places = starts(size, 64, 0.5)
        assert places[0] == 0
        assert places[-1] == size - 64
        assert max(np.diff(places), default=0) <= 32
    assert list(mirrorings((0, 2))) == [(), (0,), (2,), (0, 2)]


def test_importance_is_largest_in_the_middle_and_nowhere_zero() -> None:
    weights = importance((16, 12), 0.125)
    assert weights.max() == weights[8, 6] == 10
    assert weights.min() > 0
    assert (importance((3, 4), 0) == 1).all()


@pytest.mark.parametrize("kept_bytes", [None, 0, 1000, 3000, 10**6])  # None: all in memory
def test_the_stitcher_gives_the_weighted_mean(kept_bytes: int | None) -> None:
    rng = np.random.default_rng(3)
    size, window = (11, 9, 7), (4, 4, 5)
    weights = rng.random(window).astype(np.float32) + 0.1
    total, norm = np.zeros((2, *size)), np.zeros(size)
    slab: Slab = MemorySlab(5, 2, size[1:])
    if kept_bytes is not None:
        slab = FileSlab(5, 2, size[1:], (0, 2, 5), (0, 2), window[1:], kept_bytes=kept_bytes)
    stitcher, planes = Stitcher(slab, size, weights), list[Any]()

    def finish(until: int) -> None:
        for z in range(len(planes), until):
            sums, counts = stitcher.plane(z)
            planes.append(sums / counts)
            if z > 0:
                before, counts = stitcher.plane(z - 1)
                assert np.abs(before / counts - planes[z - 1]).max() == 0
                stitcher.clear(z - 1)

    for z in starts(11, 4, 0.5):
        finish(z)
        for y, x in itertools.product((0, 2, 5), (0, 2)):
            logits = rng.normal(size=(2, *window)).astype(np.float32)
            stitcher.add(logits, (z, y, x))
            total[:, z : z + 4, y : y + 4, x : x + 5] += logits * weights.astype(np.float64)
            norm[z : z + 4, y : y + 4, x : x + 5] += weights
    finish(11)
    assert np.abs(np.stack(planes, axis=1) - total / norm).max() < 1e-5


def test_holes_are_filled_and_components_share_corners() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[1:4, 1:4, 1:4] = True
    mask[2, 2, 2] = False
    mask[4, 5, 6] = True
    filled = fill_holes(mask)
    assert filled[2, 2, 2]
    assert filled.sum() == mask.sum() + 1
    mask[2, 2, 3] = False  # a way out
    assert fill_holes(mask).sum() == mask.sum()
    assert not fill_holes(np.zeros((2, 2, 2), bool)).any()
    diagonal = np.zeros((3, 3, 5), bool)
    diagonal[0, 0, 0] = diagonal[1, 1, 1] = diagonal[2, 0, 0] = True
    diagonal[0, 0, 4] = True
    kept = largest_touching(diagonal)
    assert kept.sum() == 3
    assert not kept[0, 0, 4]
    apart = np.zeros((1, 1, 5), bool)
    apart[0, 0, [0, 4]] = True
    assert largest_touching(apart).sum() == 2


def test_a_spline_of_a_constant_is_the_constant() -> None:
    matrix = interpolation_matrix((np.arange(9) + 0.5) * (4 / 9) - 0.5, 4, "cubic", zeros_outside=False)
    assert np.abs(matrix.sum(axis=1) - 1).max() < 1e-7
