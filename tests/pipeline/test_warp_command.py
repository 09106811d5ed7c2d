"""voxelrt warp: SimpleITK's answers to the same files, fields and affines on disk, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from voxelrt.cli import main
from voxelrt.errors import GeometryError, InputError, UsageError
from voxelrt.io import read_nifti, write_nifti
from voxelrt.io.fields import Field, read_field, write_field
from voxelrt.io.tfm import read_tfm, write_tfm
from voxelrt.volume import Volume
from voxelrt.warping import warp_volume

DATA = Path(__file__).parent / "data" / "warp_simpleitk"
ITK_TRANSFORMS = (
    (
        "Euler3DTransform",
        "0.1 -0.15 0.2 4 -3 6",
        "0 -20 10 0",
        [3.276217844504024, 15.296312770974883, 41.15687912955524],
    ),
    (
        "VersorRigid3DTransform",
        "0.09668526353001718 0.16114210588336197 -0.0644568423533448 4 -3 6",
        "0 -20 10",
        [25.76565447265068, 10.762155157747669, 38.053869603345206],
    ),
    (
        "Similarity3DTransform",
        "0.09668526353001718 0.16114210588336197 -0.0644568423533448 4 -3 6 1.2",
        "0 -20 10",
        [30.11878536718082, 17.514586189297198, 42.46464352401425],
    ),
    (
        "Euler3DTransform",
        "0.1 -0.15 0.2 4 -3 6",
        "0 -20 10 1",
        [2.6808051417679666, 15.304963731344031, 41.11950394546899],
    ),
    (
        "Euler3DTransform",
        "0.1 -0.15 0.2 4 -3 6",
        "0 -20 10",
        [3.276217844504024, 15.296312770974883, 41.15687912955524],
    ),
)
OUTSIDE = {np.dtype(np.float32): -1000.0, np.dtype(np.uint8): 255.0}


def _answer(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    with np.load(DATA / "answers.npz") as stored:
        return np.asarray(stored[name])


def _command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", ["field_linear", "affine_linear", "both_linear", "both_bspline", "both_nearest"])
def test_the_image_that_simpleitk_makes_of_the_same_files(tmp_path: Path, name: str) -> None:
    parts, kind = name.split("_")
    source = "labels" if kind == "nearest" else "moving"
    out = tmp_path / "out.nii.gz"
    given: list[object] = ["warp", DATA / f"{source}.nii.gz", "--reference", DATA / "fixed.nii.gz", "-o", out]
    given += ["--field", DATA / "field.nii.gz"] * (parts != "affine")
    given += ["--affine", DATA / "affine.tfm"] * (parts != "field")
    given += ["--order", {"linear": 1, "bspline": 3, "nearest": 0}[kind]]
    assert _command(*given) == 0
    found, expected = read_nifti(out).volume, _answer(name)
    outside = expected == OUTSIDE[expected.dtype]
    assert 0.02 < outside.mean() < 0.5
    error = np.abs(found.array[0].astype(np.float64) - np.where(outside, 0, expected))  # every voxel, edges too
    if kind == "nearest":
        assert not error.any()
    else:
        assert float(np.linalg.norm(error)) <= 2e-6 * float(np.linalg.norm(expected[~outside].astype(np.float64)))
    np.testing.assert_allclose(found.affine, read_nifti(DATA / "fixed.nii.gz").volume.affine, atol=1e-6)


def test_labels_pictures_and_numbers(tmp_path: Path) -> None:
    out, picture, facts = tmp_path / "out.nii.gz", tmp_path / "seen.png", tmp_path / "facts.json"
    files = ["--field", DATA / "field.nii.gz", "--reference", DATA / "fixed.nii.gz"]
    more = ["--labels", "-o", out, "--picture", picture, "--json", facts, "-q"]
    assert _command("warp", DATA / "labels.nii.gz", *files, *more) == 0
    found = read_nifti(out).volume
    assert found.array.dtype == np.uint8
    assert set(np.unique(found.array)) <= set(np.unique(read_nifti(DATA / "labels.nii.gz").volume.array)) | {0}
    assert picture.read_bytes()[:4] == b"\x89PNG"
    said = json.loads(facts.read_text("utf-8"))
    assert said["shape"] == [1, 15, 22, 19]
    assert said["folded_voxels"] == 0


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_fields_on_disk(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    affine = np.array([[1.5, 0.1, 0, -7], [0, -2, 0.2, 5], [0.1, 0, 3, 9], [0, 0, 0, 1]])
    field = Field(rng.normal(size=(3, 4, 5, 6)).astype(np.float32), affine)
    write_field(field, tmp_path / f"field{suffix}")
    back = read_field(tmp_path / f"field{suffix}")
    np.testing.assert_array_equal(back.vectors_mm, field.vectors_mm)
    np.testing.assert_allclose(back.affine, affine, atol=1e-5)
    header = np.frombuffer(_bytes(tmp_path / f"field{suffix}"), np.int16, 36, 0)
    assert header[20:26].tolist() == [5, 6, 5, 4, 1, 3]
    assert header[34] == 1007


def _bytes(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def test_a_field_of_simpleitk_reads_as_it_was_made() -> None:
    field = read_field(DATA / "field.nii.gz")
    grid = np.meshgrid(*[np.linspace(0, 1, n) for n in (15, 22, 19)], indexing="ij")
    expected = [2.5 * np.sin(5 * grid[k] + k) * np.cos(3 * grid[(k + 1) % 3]) for k in range(3)]
    np.testing.assert_allclose(field.vectors_mm, expected, atol=1e-6)


def test_damaged_fields_are_refused(tmp_path: Path) -> None:
    whole = _bytes(DATA / "field.nii.gz")
    path = tmp_path / "field.nii"
    path.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="truncated"):
        read_field(path)
    broken = bytearray(whole)
    broken[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(broken)
    with pytest.raises(InputError, match="finite"):
        read_field(path)
    huge = bytearray(whole)
    huge[42:48] = np.array([32767] * 3, np.int16).tobytes()
    path.write_bytes(huge)
    with pytest.raises(InputError, match="truncated"):
        read_field(path)
    for name in ("fixed.nii.gz", "affine.tfm", "nothing.nii"):
        with pytest.raises(InputError):
            read_field(DATA / name)


def test_affines_on_disk(tmp_path: Path) -> None:
    matrix = read_tfm(DATA / "affine.tfm")
    centre = np.array([-5.0, 40.0, 0.0])
    np.testing.assert_allclose(matrix[:3, :3] @ centre + matrix[:3, 3], centre + np.array([0.7, -1.2, 0.4]))
    write_tfm(matrix, tmp_path / "again.tfm")
    np.testing.assert_array_equal(read_tfm(tmp_path / "again.tfm"), matrix)
    start = "#Insight Transform File V1.0\n"
    for text in (
        "",
        start,
        start + "Transform: BSplineTransform_double_3_3\n",
        start + "Transform: AffineTransform_double_3_3\nParameters: 1 2 3\nFixedParameters: 0 0 0\n",
        start + "Transform: AffineTransform_double_3_3\nParameters: a\nFixedParameters: 0 0 0\n",
        start + f"Transform: AffineTransform_double_3_3\nParameters: {'0 ' * 12}\nFixedParameters: 0 0 0\n",
        start + "Transform: VersorRigid3DTransform_double_3_3\nParameters: 1 1 0 0 0 0\nFixedParameters: 0 0 0\n",
        start + "Transform: Euler3DTransform_double_3_3\nParameters: 1 1 0 0 0 0\nFixedParameters: 0 0\n",
        start + f"Transform: AffineTransform_double_3_3\nParameters: {'nan ' * 12}\nFixedParameters: 0 0 0\n",
        start + "Transform: IdentityTransform_double_3_3\n" * 2,
        start + "#" * 70000,
    ):
        (tmp_path / "bad.tfm").write_text(text, "ascii")
        with pytest.raises(InputError):
            read_tfm(tmp_path / "bad.tfm")
    with pytest.raises(InputError, match="cannot read"):
        read_tfm(tmp_path / "none.tfm")


@pytest.mark.parametrize(
    ("kind", "parameters", "fixed", "expected"),  # SimpleITK's answers for the point (10, 20, 30)
    ITK_TRANSFORMS,
)
def test_rigid_transforms_of_itk(tmp_path: Path, kind: str, parameters: str, fixed: str, expected: list[float]) -> None:
    path = tmp_path / "turned.tfm"
    head = f"#Insight Transform File V1.0\n#Transform 0\nTransform: {kind}_double_3_3\n"
    path.write_text(f"{head}Parameters: {parameters}\nFixedParameters: {fixed}\n", "ascii")
    matrix = read_tfm(path)
    np.testing.assert_allclose(matrix[:3, :3] @ [10, 20, 30] + matrix[:3, 3], expected, rtol=1e-12)


def test_a_field_on_another_grid_and_other_voxel_types() -> None:
    rng = np.random.default_rng(1)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    reference = Volume(np.zeros((6, 7, 8)), affine)
    coarse = Field(np.full((3, 3, 4, 4), 2.0, np.float32), np.diag([8.0, 8.0, 8.0, 1.0]))
    for dtype in (np.float64, np.int32, np.uint16, np.int16, np.float32):
        moving = Volume(rng.integers(0, 200, (2, 6, 7, 8)).astype(dtype), affine)
        for labels in (False, True):
            found = warp_volume(moving, reference, field=coarse, labels=labels)
            assert found.array.dtype == dtype
            np.testing.assert_array_equal(found.array[:, :5, :6, :7], moving.array[:, 1:, 1:, 1:])
    with pytest.raises(UsageError, match="whole"):
        warp_volume(Volume(rng.normal(size=(6, 7, 8)), affine), reference, field=coarse, labels=True)
    with pytest.raises(GeometryError):
        warp_volume(reference, reference, affine=np.zeros((4, 4)))


def test_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moving, reference = DATA / "moving.nii.gz", ["--reference", DATA / "fixed.nii.gz"]
    assert _command("warp", moving, *reference, "-o", tmp_path / "a.nii") == 2
    assert _command("warp", moving, *reference, "--affine", DATA / "affine.tfm") == 2
    assert _command("warp", moving, *reference, "--field", moving, "-o", tmp_path / "a.nii") == 3
    assert _command("warp", moving, *reference, "--affine", DATA / "affine.tfm", "-o", tmp_path / "no" / "a.nii") == 3
    assert not list(tmp_path.iterdir())
    assert "Traceback" not in capsys.readouterr().err
    write_nifti(Volume(np.zeros((2, 2, 2), np.float32), np.eye(4)), tmp_path / "far.nii")
    options = ["--reference", tmp_path / "far.nii", "--affine", DATA / "affine.tfm", "-o", tmp_path / "zero.nii"]
    assert _command("warp", moving, *options) == 0
