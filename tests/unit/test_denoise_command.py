"""voxelrt denoise: files in and out, what it says, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from PIL import Image as Pillow

from tests.phantoms import PATIENT_NAME, dicom_series, save_series
from tests.pipeline.counting import save
from voxelrt.cli import main
from voxelrt.denoising import denoise_study
from voxelrt.errors import UsageError
from voxelrt.io import read_image, write_nifti
from voxelrt.kernels import denoise
from voxelrt.kernels.common.kernel import Array
from voxelrt.models.architectures.volumes import build_dncnn3d
from voxelrt.postprocess.comparison import draw_comparison
from voxelrt.volume import Volume

AFFINE = np.array([[0, -1.5, 0, 3], [2.0, 0, 0, -7], [0, 0, 4.0, 11], [0, 0, 0, 1]], np.float64)


def _noisy(shape: tuple[int, ...] = (18, 20, 22)) -> Array:
    rng = np.random.default_rng(2)
    return np.hypot(300 + rng.normal(0, 20, shape), rng.normal(0, 20, shape)).round().astype(np.int16)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write_nifti(Volume(_noisy(), AFFINE), tmp_path / "head.nii.gz")
    return tmp_path / "head.nii.gz"


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main(["denoise", *(str(a) for a in arguments)])
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_network_that_denoises(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proto = ir.to_proto(build_dncnn3d(depth=4, width=8, grid=(18, 20, 22)))
    model = save(tmp_path, proto, output='kind = "image"')
    recipe = model.with_suffix(".toml")
    text = recipe.read_text("utf-8").replace('name = "image"', 'name = "noisy"', 1).replace('"scores"', '"clean"')
    recipe.write_text(text, "utf-8")
    out = tmp_path / "out.nii.gz"
    assert call(study, "-o", out, "--model", recipe, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["difference_deviation"] > 0
    before, after = read_image(study).volume.array, read_image(out).volume.array
    expected = ReferenceEvaluator(proto).run(None, {"noisy": before[None].astype(np.float32)})[0][0]
    assert np.abs(after - expected).max() < 0.51  # rounded
    assert np.abs(after - before).max() > 2


def test_geometry_and_dtype_are_kept(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = tmp_path / "out.nii.gz", tmp_path / "out.png"
    options = ["--modality", "mr", "--radius", "2", "--picture", picture, "--json", "-"]
    assert call(study, "-o", out, *options) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (said["method"], said["noise"]) == ("nlm", "rician")
    assert said["sigmas"][0] == pytest.approx(20, rel=0.15)
    assert any("magnitudes" in reason for reason in said["reasons"])
    before, after = read_image(study).volume, read_image(out).volume
    np.testing.assert_array_equal(after.affine, before.affine)
    assert after.array.dtype == np.int16
    np.testing.assert_array_equal(after.array, denoise(before.array, "nlm", modality="MR", radius=2))
    assert after.array.std() < 0.5 * before.array.std()
    with Pillow.open(picture) as drawn:
        assert drawn.size[0] == 1400


def test_dicom_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "series"
    save_series(dicom_series(_noisy((7, 12, 13))), folder)
    assert call(folder, "-o", tmp_path / "out.nii", "--method", "median", "--radius", "0,1,1") == 0
    before, after = read_image(folder).volume, read_image(tmp_path / "out.nii").volume
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-4)
    np.testing.assert_array_equal(after.array, denoise(before.array, "median", radius=(0, 1, 1)))
    assert after.array.dtype == before.array.dtype
    assert PATIENT_NAME not in "".join(capsys.readouterr())


def test_each_volume_of_a_series_on_its_own(tmp_path: Path) -> None:
    both = np.stack([_noisy(), 2 * _noisy()])
    write_nifti(Volume(both, AFFINE), tmp_path / "in.nii")
    out = tmp_path / "out.nii"
    assert call(tmp_path / "in.nii", "-o", out, "--method", "gaussian", "--option", "width=0.8", "--volume", "all") == 0
    np.testing.assert_array_equal(
        read_image(out, volume_index="all").volume.array, denoise(both, "gaussian", width=0.8)
    )
    assert call(tmp_path / "in.nii", "-o", out, "--volume", "1", "--method", "median") == 0
    np.testing.assert_array_equal(read_image(out).volume.array[0], denoise(both[1], "median"))
    assert call(tmp_path / "in.nii", "-o", out) == 3


def test_millimetres(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nii"
    assert call(study, "-o", out, "--method", "median", "--radius", "3.2", "--unit", "mm") == 0
    # Spacing (z, y, x) = 4, 1.5, 2 mm.
    np.testing.assert_array_equal(read_image(out).volume.array[0], denoise(_noisy(), "median", radius=(0, 2, 1)))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "nothing would be kept"),
        (["-o", "out.txt"], 2, "must end in .nii"),
        (["-o", "nowhere/out.nii"], 3, "folder"),
        (["-o", "out.nii", "--method", "wiener"], 2, "no method"),
        (["-o", "out.nii", "--sigma", "much"], 2, "--sigma"),
        (["-o", "out.nii", "--sigma", "-3"], 2, "above 0"),
        (["-o", "out.nii", "--radius", "1,2"], 2, "--radius"),
        (["-o", "out.nii", "--radius", "x"], 2, "--radius"),
        (["-o", "out.nii", "--option", "strength"], 2, "NAME=VALUE"),
        (["-o", "out.nii", "--option", "radius=1", "--radius", "1"], 2, "twice"),
        (["-o", "out.nii", "--option", "stren=1"], 2, "did you mean strength"),
        (["-o", "out.nii", "--noise", "rician", "--method", "median"], 2, "no form"),
        (["-o", "out.nii", "--volume", "first"], 2, "--volume"),
        (["-o", "out.nii", "--model", "x.onnx", "--method", "median"], 2, "--model"),
        (["-o", "out.nii", "--model", "x.onnx"], 2, "x.onnx"),
    ],
)
def test_refusals(
    arguments: list[str],
    code: int,
    words: str,
    study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(study, *arguments) == code
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not (tmp_path / "out.nii").exists()


def test_missing_damaged_and_odd_files(study: Path, tmp_path: Path) -> None:
    assert call(tmp_path / "none.nii", "-o", tmp_path / "o.nii") == 3
    (tmp_path / "cut.nii.gz").write_bytes(study.read_bytes()[:500])
    assert call(tmp_path / "cut.nii.gz", "-o", tmp_path / "o.nii") == 3
    array = np.ones((3, 3, 3), np.float32)
    array[1, 1, 1] = np.nan
    write_nifti(Volume(array, AFFINE), tmp_path / "nan.nii")
    assert call(tmp_path / "nan.nii", "-o", tmp_path / "o.nii") == 2
    write_nifti(Volume(array[:1, :1, :1], AFFINE), tmp_path / "one.nii")
    assert call(tmp_path / "one.nii", "-o", tmp_path / "o.nii", "--method", "median") == 0
    assert not (tmp_path / "o.nii.partial").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(0o500)
    assert call(study, "-o", folder / "out.nii", "--method", "median") == 3


SCRIPT = """
import os, signal, sys
from voxelrt.cli import main
from voxelrt.kernels.common import native
run = native.run_kernel
def interrupted(*arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    return run(*arguments, **options)
native.run_kernel = interrupted
main(sys.argv[1:])
"""


def test_a_signal_leaves_no_half_file(study: Path, tmp_path: Path) -> None:
    command = ["denoise", str(study), "-o", str(tmp_path / "out.nii"), "--sigma", "9"]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 130, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["head.nii.gz"]


def test_progress_is_told(study: Path) -> None:
    told: list[tuple[str, int, int]] = []
    denoise_study(study, sigma=20.0, options={"radius": 1}, progress=lambda *step: told.append(step))
    assert [stage for stage, _, _ in told] == ["read", "estimate", "denoise", "denoise"]


def test_picture_shows_what_was_taken_away() -> None:
    array = np.full((1, 9, 9, 9), 100.0, np.float32)
    array[0, 4, 4, 4] = 200
    before, after = Volume(array, np.eye(4)), Volume(np.full_like(array, 100), np.eye(4))
    drawn = np.asarray(draw_comparison(before, after, title="title", caption="caption"))
    # The third column is white where the voxel was, and even elsewhere.
    assert (drawn[:, 940:1330] > 250).all(axis=-1).any()
    with pytest.raises(UsageError):
        draw_comparison(before, after, channel=1)
