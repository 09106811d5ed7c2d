"""MetaImage, NRRD, NIfTI and DICOM: the same voxels at the same places on any grid, for us and for others."""

from __future__ import annotations

import importlib.util
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.phantoms import dicom_series, octants, rotation, save_series
from tests.unit.test_dicom_segmentation import ALGORITHM
from voxelrt.errors import GeometryError, InputError, UsageError
from voxelrt.io import DicomSource, read_image, write_image
from voxelrt.io.dicom.derived import Segment
from voxelrt.io.dicom.derived_series import DENOISED, write_derived_series
from voxelrt.io.dicom.segmentation import write_segmentation
from voxelrt.io.dicom.structure_set import write_structure_set
from voxelrt.volume import Volume

needs_nrrd = pytest.mark.skipif(
    importlib.util.find_spec("nrrd") is None, reason="pynrrd is not installed: pip install 'voxelrt[nrrd]'"
)
# Without shrinking: a failure prints its grid, and the next person need not wait for a smaller one.
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
FORMATS = [".nii.gz", ".mha", pytest.param(".nrrd", marks=needs_nrrd)]


@st.composite
def grids(draw: st.DrawFn) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Any oblique, flipped, anisotropic and sheared grid of a few voxels."""
    number = st.floats(-1, 1, width=32)
    axis = np.array([draw(number), draw(number), draw(number) + 2])
    angle, flips = draw(st.floats(-3.1, 3.1)), np.diag([draw(st.sampled_from((1.0, -1.0))) for _ in range(3)])
    cross = np.cross(np.eye(3), axis / np.linalg.norm(axis))
    turn = np.eye(3) - np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    shear = np.eye(3)
    shear[0, 2], shear[1, 2] = draw(number) / 2, draw(number) / 2  # a tilt of more than 45° is refused
    spacing = np.diag([draw(st.floats(0.2, 7)) for _ in range(3)])
    affine = np.eye(4)
    affine[:3, :3] = turn @ flips @ shear @ spacing
    affine[:3, 3] = [draw(st.floats(-500, 500)) for _ in range(3)]
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    return affine, shape


def bits_of(file: pydicom.Dataset, shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[Any]:
    """The labels of a binary segmentation; frames follow each other bit by bit (PS3.5 8.1.1), which readers of frames
    of a few voxels get wrong."""
    bits = np.unpackbits(np.frombuffer(file.PixelData, np.uint8), bitorder="little")
    pixels = bits[: int(file.NumberOfFrames) * shape[1] * shape[2]].reshape(-1, *shape[1:])
    made = np.zeros(shape, np.int64)
    for frame, item in zip(pixels, file.PerFrameFunctionalGroupsSequence, strict=True):
        z = (np.linalg.inv(affine) @ [*item.PlanePositionSequence[0].ImagePositionPatient, 1])[2]
        groups = item if "SegmentIdentificationSequence" in item else file.SharedFunctionalGroupsSequence[0]
        made[round(float(z))] += frame * int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    return made


def noise(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)


@pytest.mark.parametrize("suffix", FORMATS)
@settings(phases=QUICK, max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(grids(), st.sampled_from(["u1", "i2", "u2", "i4", "f4", "f8"]), st.integers(1, 3))
def test_any_grid_comes_back(
    tmp_path: Path, suffix: str, grid: tuple[NDArray[np.float64], tuple[int, int, int]], kind: str, channels: int
) -> None:
    affine, shape = grid
    volume = Volume(noise((channels, *shape), kind), affine)
    write_image(volume, tmp_path / f"a{suffix}")
    read = read_image(tmp_path / f"a{suffix}", **({"volume_index": "all"} if suffix == ".nii.gz" else {})).volume
    assert read.array.dtype == volume.array.dtype
    np.testing.assert_array_equal(read.array, volume.array)
    np.testing.assert_allclose(read.affine, affine, rtol=0, atol=1e-4 if suffix == ".nii.gz" else 1e-9)


@settings(phases=QUICK, max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(grids(), st.integers(0, 2**32 - 1))
def test_any_grid_comes_back_through_dicom(
    tmp_path_factory: pytest.TempPathFactory, grid: tuple[NDArray[np.float64], tuple[int, int, int]], seed: int
) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'voxelrt[dicom-out]'")
    from tests.dicom_readers import labels_of_structures

    affine, (depth, rows, columns) = grid
    shape = (max(2, depth), rows, columns)
    folder = tmp_path_factory.mktemp("dicom")
    values, labels = noise(shape, np.int16, seed), noise(shape, np.uint8, seed + 1) % 4
    series = dicom_series(values)
    linear = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    for k, one in enumerate(series):
        position = affine[:3, 3] + k * affine[:3, 2]
        one.ImagePositionPatient = [f"{v:.10g}" for v in position]
        one.ImageOrientationPatient = [f"{v:.9f}" for v in (*linear[:, 0], *linear[:, 1])]
        one.PixelSpacing = [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"]
    image = read_image(save_series(series, folder / "a"))
    assert isinstance(image.source, DicomSource)
    world = image.volume.affine
    # The stack may be read from its other end.
    expected = values if world[:3, 2] @ affine[:3, 2] > 0 else values[::-1]
    np.testing.assert_array_equal(image.volume.array[0], expected)
    write_derived_series(image.volume, folder / "series", image.source, ALGORITHM, DENOISED)
    again = read_image(folder / "series").volume
    np.testing.assert_array_equal(again.array, image.volume.array)
    np.testing.assert_allclose(again.affine, world, atol=1e-6)
    mask = image.volume.with_array(labels)
    write_image(mask, folder / "mask.nii", source=image.source)
    write_image(mask, folder / "mask.mha", source=image.source)
    for name in ("mask.nii", "mask.mha"):
        back = read_image(folder / name).volume
        np.testing.assert_array_equal(back.array, mask.array)
        np.testing.assert_allclose(back.affine, world, atol=1e-3)
    segments = [Segment(1, "one"), Segment(2, "two"), Segment(3, "three")]
    write_segmentation(mask, folder / "seg.dcm", image.source, segments, ALGORITHM)
    np.testing.assert_array_equal(bits_of(pydicom.dcmread(folder / "seg.dcm"), shape, world), labels)
    write_structure_set(mask, folder / "rt.dcm", image.source, segments, ALGORITHM)
    np.testing.assert_array_equal(labels_of_structures(pydicom.dcmread(folder / "rt.dcm"), shape, world), labels)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_run_can_use_them_as_nifti(tmp_path: Path, suffix: str) -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation() @ np.diag([-1.0, 2.0, 3.0])
    write_image(Volume(octants(), affine), tmp_path / f"in{suffix}")
    image = read_image(tmp_path / f"in{suffix}")
    write_image(image.volume, tmp_path / "out.nii", source=image.source)
    np.testing.assert_allclose(nibabel.load(tmp_path / "out.nii").get_fdata().T, octants())


@needs_nrrd
def test_nrrd_as_others_write_it(tmp_path: Path) -> None:
    import nrrd

    header = {
        "space": "right-anterior-superior", "space directions": np.array([[0.0, 2, 0], [3, 0, 0], [0, 0, -1]]),
        "space origin": np.array([1.0, 2, 3]), "encoding": "raw", "endian": "big",
    }  # fmt: skip
    data = noise((3, 4, 5), np.int16)
    nrrd.write(str(tmp_path / "a.nrrd"), data, header)
    volume = read_image(tmp_path / "a.nrrd").volume
    np.testing.assert_array_equal(volume.array[0].T, data)
    np.testing.assert_allclose(volume.affine[:3], [[0, -3, 0, -1], [-2, 0, 0, -2], [0, 0, -1, 3]])
    nrrd.write(str(tmp_path / "b.nhdr"), data, {**header, "encoding": "gzip"})
    np.testing.assert_array_equal(read_image(tmp_path / "b.nhdr").volume.array[0].T, data)
    text = (tmp_path / "b.nhdr").read_text()
    for place in ("../b.raw.gz", "/etc/passwd", "no.raw.gz"):
        (tmp_path / "c.nhdr").write_text(text.replace("b.raw.gz", place))
        with pytest.raises(InputError):
            read_image(tmp_path / "c.nhdr")


def test_metaimage_as_others_write_it(tmp_path: Path) -> None:
    data = noise((2, 3, 4), ">u2")
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = True\nOffset = 1 2 3\n"
        "TransformMatrix = 0 1 0 -1 0 0 0 0 1\nElementSpacing = 2 3 4\nDimSize = 4 3 2\nElementType = MET_USHORT\n"
        "ElementDataFile = "
    )
    (tmp_path / "a.mhd").write_text(header + "a.raw\n")
    (tmp_path / "a.raw").write_bytes(data.tobytes())
    (tmp_path / "a.mha").write_bytes((header + "LOCAL\n").encode() + data.tobytes())
    for name in ("a.mhd", "a.mha"):
        volume = read_image(tmp_path / name).volume
        np.testing.assert_array_equal(volume.array[0], data)
        np.testing.assert_allclose(volume.affine[:3], [[0, -3, 0, 1], [2, 0, 0, 2], [0, 0, 4, 3]])
    for other in ("../a.raw", "LIST", "a%d.raw", "none.raw"):
        (tmp_path / "b.mhd").write_text(header + other + "\n")
        with pytest.raises(InputError):
            read_image(tmp_path / "b.mhd")


DAMAGE = {
    "truncated": lambda raw: raw[:-20],
    "no end of header": lambda raw: raw[:60],
    "bit flipped": lambda raw: raw[:-30] + bytes([raw[-30] ^ 255]) + raw[-29:],
    "claims terabytes": lambda raw: raw.replace(b"10 8 6", b"90000 90000 90000"),
    "claims more": lambda raw: raw.replace(b"10 8 6", b"10 8 600"),
    "not numbers": lambda raw: raw.replace(b"10 8 6", b"10 x 6"),
    "negative": lambda raw: raw.replace(b"10 8 6", b"-10 8 6"),
    "no grid": lambda raw: (
        raw.replace(b"TransformMatrix = 1.0", b"TransformMatrix = 0.0")
        .replace(b" (1,0,0)", b" (0,0,0)")
        .replace(b" (1.0,0.0", b" (0.0,0.0")
    ),
}


@pytest.mark.parametrize("suffix", FORMATS[1:])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused(tmp_path: Path, suffix: str, damage: str) -> None:
    write_image(Volume(noise((6, 8, 10), np.int16), np.eye(4)), tmp_path / f"a{suffix}")
    raw = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(DAMAGE[damage](raw))
    with pytest.raises((InputError, GeometryError)):
        read_image(tmp_path / f"b{suffix}")


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_no_number_or_is_noisy(tmp_path: Path, suffix: str) -> None:
    write_image(Volume(noise((2, 3, 4), bool), np.eye(4)), tmp_path / f"a{suffix}")
    assert read_image(tmp_path / f"a{suffix}").volume.array.dtype == np.uint8
    with pytest.raises(UsageError):
        write_image(Volume(np.zeros((2, 3, 4), complex), np.eye(4)), tmp_path / f"b{suffix}")
    bad = np.zeros((2, 3, 4), np.float32)
    bad[0, 0, 0] = np.nan
    write_image(Volume(bad, np.eye(4)), tmp_path / f"c{suffix}")
    assert any("NaN" in text for text in read_image(tmp_path / f"c{suffix}").warnings)
    assert not (tmp_path / f"b{suffix}").exists()


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    write_image(Volume(noise((6, 8, 10), np.int16), np.eye(4)), tmp_path / "a.mha")
    raw = (tmp_path / "a.mha").read_bytes()
    header = raw[: raw.index(b"LOCAL\n") + 6]
    (tmp_path / "b.mha").write_bytes(header + zlib.compress(bytes(50_000_000)))
    with pytest.raises(InputError, match="more voxels"):
        read_image(tmp_path / "b.mha")
