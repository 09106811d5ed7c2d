"""NIfTI: what comes in goes out on the same grid, and no damaged file is believed."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.phantoms import forty_eight, octants, rotation
from voxelrt.errors import GeometryError, InputError, OutputError, UsageError
from voxelrt.io import nifti, read_image, read_nifti, write_image, write_nifti
from voxelrt.io.image import NiftiSource
from voxelrt.io.orientation import LPS_FROM_RAS, axis_codes, reorient
from voxelrt.volume import Volume

RAS_1MM = np.diag([1.0, 1.0, 1.0, 1.0])


def save(path: Path, array_xyz: NDArray[Any], ras: NDArray[np.float64] = RAS_1MM, **fields: Any) -> Path:
    """Write with nibabel, then set header fields as they are."""
    kind = nibabel.Nifti2Image if fields.pop("nifti2", False) else nibabel.Nifti1Image
    image = kind(array_xyz, ras, dtype=array_xyz.dtype)
    image.set_sform(ras, code=fields.pop("sform_code", 2))
    image.set_qform(ras, code=fields.pop("qform_code", 1))
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def patch(path: Path, offset: int, data: bytes) -> Path:
    """Change bytes of an uncompressed file."""
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)
    return path


def source_of(path: Path) -> NiftiSource:
    source = read_nifti(path).source
    assert isinstance(source, NiftiSource)
    return source


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("number", range(48))
def test_octants_come_back_from_all_48_orientations(tmp_path: Path, number: int, oblique: bool) -> None:
    ras = np.eye(4)
    ras[:3, :3] = (rotation() if oblique else np.eye(3)) @ forty_eight()[number] @ np.diag([0.7, 1.1, 2.3])
    ras[:3, 3] = [12.3, -45.6, 7.89]
    stored = octants().transpose()
    save(tmp_path / "in.nii.gz", stored, ras)
    image = read_nifti(tmp_path / "in.nii.gz")
    turned, undo = reorient(image.volume, "LPS")
    assert axis_codes(turned.affine) == "LPS"
    if not oblique:
        # The octant whose label has bit 0 set lies where the file's x is high; follow it through nibabel's world.
        wanted = nibabel.affines.apply_affine(ras, np.argwhere(stored == 8).mean(axis=0)) * [-1, -1, 1]
        z, y, x = (axis.mean() for axis in np.nonzero(turned.array[0] == 8))
        np.testing.assert_allclose((turned.affine @ [x, y, z, 1])[:3], wanted, atol=1e-4)
    write_nifti(undo.undo(turned), tmp_path / "out.nii.gz", source=source_of(tmp_path / "in.nii.gz"))
    before, after = nibabel.load(tmp_path / "in.nii.gz"), nibabel.load(tmp_path / "out.nii.gz")
    assert (np.asanyarray(after.dataobj) == stored).all()
    assert after.get_data_dtype() == before.get_data_dtype()
    assert after.affine.tobytes() == before.affine.tobytes()
    assert after.get_qform().tobytes() == before.get_qform().tobytes()


@pytest.mark.parametrize("nifti2", [False, True])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_types_and_byte_orders_are_kept(tmp_path: Path, dtype: str, endian: str, nifti2: bool) -> None:
    kind = nibabel.Nifti2Image if nifti2 else nibabel.Nifti1Image
    header = (nibabel.Nifti2Header if nifti2 else nibabel.Nifti1Header)(endianness=endian)
    header.set_data_dtype(np.dtype(endian + dtype))
    stored = octants().transpose().astype(endian + dtype)
    nibabel.save(kind(stored, RAS_1MM, header), tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii").volume
    assert volume.array.dtype == np.dtype(dtype)
    assert (volume.array[0] == octants()).all()
    write_nifti(volume, tmp_path / "b.nii", source=source_of(tmp_path / "a.nii"))
    assert (nibabel.load(tmp_path / "b.nii").get_fdata() == octants().transpose()).all()


def test_sform_wins_over_qform_and_a_difference_is_said(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", octants().transpose(), np.diag([2.0, 2.0, 2.0, 1.0]))
    patch(path, 268, struct.pack("<f", 11.0))
    image = read_nifti(path)
    assert (image.volume.affine == LPS_FROM_RAS @ np.diag([2.0, 2.0, 2.0, 1.0])).all()
    assert any("sform and qform differ by up to 11 mm" in w for w in image.warnings)


def test_qform_is_used_where_the_sform_has_no_code(tmp_path: Path) -> None:
    ras = np.eye(4)
    ras[:3, :3], ras[:3, 3] = rotation(), [1.0, 2.0, 3.0]
    path = save(tmp_path / "a.nii", octants().transpose(), ras, sform_code=0)
    image = read_nifti(path)
    np.testing.assert_allclose(image.volume.affine, LPS_FROM_RAS @ ras, atol=1e-6)
    assert image.warnings == ()


def test_a_file_without_forms_says_that_the_side_is_a_guess(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", octants().transpose(), sform_code=0, qform_code=0)
    image = read_nifti(path)
    assert any("which side is left" in w for w in image.warnings)
    assert (LPS_FROM_RAS @ image.volume.affine == nibabel.load(path).affine).all()


def test_scaling_gives_float32_and_its_absence_keeps_integers(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", octants().transpose())
    assert read_nifti(path).volume.array.dtype == np.int16
    patch(path, 112, struct.pack("<ff", 0.5, -3.0))
    volume = read_nifti(path).volume
    assert volume.array.dtype == np.float32
    assert (volume.array[0] == octants() * 0.5 - 3).all()


def test_micrometres_become_millimetres_and_go_back_as_they_were(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", octants().transpose(), np.diag([500.0, 500.0, 500.0, 1.0]), xyzt_units=3)
    image = read_nifti(path)
    assert image.volume.spacing_mm == pytest.approx((0.5, 0.5, 0.5))
    assert any("micrometres" in w for w in image.warnings)
    write_image(image.volume, tmp_path / "b.nii", source=image.source)
    assert nibabel.load(tmp_path / "b.nii").affine.tobytes() == nibabel.load(path).affine.tobytes()
    assert read_nifti(tmp_path / "b.nii").volume.spacing_mm == image.volume.spacing_mm


def test_four_dimensions_need_a_choice(tmp_path: Path) -> None:
    stored = np.stack([octants().transpose() + 10 * t for t in range(3)], axis=-1)
    path = save(tmp_path / "a.nii.gz", stored)
    with pytest.raises(InputError, match="3 volumes; choose one with volume_index=0 to 2"):
        read_nifti(path)
    assert (read_nifti(path, volume_index=2).volume.array[0] == octants() + 20).all()
    every = read_nifti(path, volume_index="all").volume
    assert every.array.shape == (3, 6, 8, 10)
    write_nifti(every, tmp_path / "b.nii.gz")
    assert nibabel.load(tmp_path / "b.nii.gz").shape == (10, 8, 6, 3)
    with pytest.raises(UsageError, match="volume_index is 3"):
        read_nifti(path, volume_index=3)


def test_one_volume_in_four_dimensions_and_two_dimensions_need_none(tmp_path: Path) -> None:
    assert read_nifti(save(tmp_path / "a.nii", octants().transpose()[..., None])).volume.shape_zyx == (6, 8, 10)
    assert read_nifti(save(tmp_path / "b.nii", octants().transpose()[:, :, 0])).volume.shape_zyx == (1, 8, 10)


def test_one_voxel(tmp_path: Path) -> None:
    volume = Volume(np.full((1, 1, 1), 7, np.uint8), np.diag([1.0, 2.0, 3.0, 1.0]))
    write_nifti(volume, tmp_path / "a.nii.gz")
    back = read_nifti(tmp_path / "a.nii.gz").volume
    assert back.array.tolist() == [[[[7]]]]
    assert (back.affine == volume.affine).all()


def test_a_pair_is_read(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(octants().transpose(), RAS_1MM), tmp_path / "a.hdr")
    assert (read_image(tmp_path / "a.hdr").volume.array[0] == octants()).all()
    (tmp_path / "a.img").unlink()
    with pytest.raises(InputError, match=r"no \.img"):
        read_nifti(tmp_path / "a.hdr")


def test_nan_is_counted_and_kept(tmp_path: Path) -> None:
    stored = octants(dtype=np.float32).transpose().copy()
    stored[1, 2, 3], stored[4, 5, 5] = np.nan, np.inf
    image = read_nifti(save(tmp_path / "a.nii", stored))
    assert any("2 of 480 voxels are NaN or infinite" in w for w in image.warnings)
    assert np.isnan(image.volume.array[0, 3, 2, 1])


def test_a_name_without_gz_is_no_obstacle(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", octants().transpose())
    path.rename(tmp_path / "scan")
    assert (read_image(tmp_path / "scan").volume.array[0] == octants()).all()


def test_free_text_and_extensions_do_not_travel(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(octants().transpose(), RAS_1MM)
    image.header["descrip"], image.header["db_name"] = b"Doe^Confidential", b"Doe^Confid"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Doe^Confidential"))
    nibabel.save(image, tmp_path / "a.nii")
    read = read_nifti(tmp_path / "a.nii")
    assert (read.volume.array[0] == octants()).all()
    write_image(read.volume, tmp_path / "b.nii", source=read.source)
    assert b"Doe" not in (tmp_path / "b.nii").read_bytes()
    assert isinstance(read.source, NiftiSource)
    assert b"Doe" not in read.source.header


@pytest.mark.parametrize(
    ("dtype", "written"), [(np.bool_, "u1"), (np.float16, "f4"), (np.int64, "u1"), (np.uint64, "u1"), (np.int32, "i4")]
)
def test_types_that_viewers_do_not_read_are_narrowed_without_loss(tmp_path: Path, dtype: Any, written: str) -> None:
    array = (octants() > 4).astype(dtype)
    write_nifti(Volume(array, np.eye(4)), tmp_path / "a.nii")
    assert read_nifti(tmp_path / "a.nii").volume.array.dtype == np.dtype(written)
    assert (read_nifti(tmp_path / "a.nii").volume.array[0] == array).all()


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    volume = Volume(octants(), np.eye(4), {1: "one"})
    write_nifti(volume, tmp_path / "a.nii.gz")
    write_nifti(volume, tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert nibabel.load(tmp_path / "a.nii.gz").header["intent_code"] == 1002


def test_a_sheared_grid_is_written_without_a_qform(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 2] = 0.4
    write_nifti(Volume(octants(), affine), tmp_path / "a.nii")
    assert int(nibabel.load(tmp_path / "a.nii").header["qform_code"]) == 0
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").volume.affine, affine, atol=1e-6)


def test_a_result_off_the_grid_is_refused(tmp_path: Path) -> None:
    source = source_of(save(tmp_path / "a.nii", octants().transpose()))
    moved = Volume(octants(), source.affine + np.eye(4, k=3) * 0.5)
    with pytest.raises(GeometryError, match="not on the source's grid"):
        write_nifti(moved, tmp_path / "b.nii", source=source)
    with pytest.raises(GeometryError, match="not on the source's grid"):
        write_nifti(Volume(np.zeros((6, 8, 9)), source.affine), tmp_path / "b.nii", source=source)
    assert not (tmp_path / "b.nii").exists()


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(stream: Any, *rest: Any) -> None:
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nifti, "write_stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_nifti(Volume(octants(), np.eye(4)), tmp_path / "a.nii.gz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0, 1, 100, 347, 352, 400, -8, -1])
def test_every_truncation_is_an_input_error(tmp_path: Path, suffix: str, kept: int) -> None:
    rng = np.random.default_rng(0)
    path = save(tmp_path / f"a{suffix}", rng.integers(-999, 999, (10, 8, 6)).astype(np.int16))
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept >= 0 else len(content) + kept])
    for read in (read_nifti, read_image):
        with pytest.raises(InputError):
            read(path)


def test_a_flipped_bit_in_gzip_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 9999, (10, 8, 6)).astype(np.int16))
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # the stored checksum
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_nifti(path)


@pytest.mark.parametrize("packed", [False, True])
def test_huge_sizes_are_refused_before_anything_is_allocated(
    tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.nii", octants().transpose())
    patch(path, 40, struct.pack("<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1))
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    monkeypatch.setattr(nifti.np, "empty", lambda *a, **k: pytest.fail("allocated by the word of the header"))
    with pytest.raises(InputError, match="its header needs 70362301923"):
        read_nifti(path)


def test_a_gzip_bomb_is_unpacked_no_further_than_its_header_says(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", octants().transpose())
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(path.read_bytes())
    packed += b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    path.write_bytes(packed)
    assert (read_nifti(path).volume.array[0] == octants()).all()


def test_a_truthful_bomb_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii.gz", np.zeros((64, 64, 64), np.int16))
    monkeypatch.setattr(nifti, "MAX_VOLUME_BYTES", 2**19 - 1)
    with pytest.raises(InputError, match="524288 bytes of voxels are more than"):
        read_nifti(path)


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (40, struct.pack("<h", 0), "0 dimensions"),
        (40, struct.pack("<h", 99), "99 dimensions"),
        (42, struct.pack("<h", 0), "size of 0"),
        (42, struct.pack("<h", -5), "size of -5"),
        (40, struct.pack("<8h", 5, 10, 8, 6, 1, 3, 1, 1), "vectors"),
        (70, struct.pack("<h", 128), "RGB"),
        (70, struct.pack("<h", 77), "unknown"),
        (108, struct.pack("<f", float("nan")), "byte nan"),
        (108, struct.pack("<f", -1.0), "byte -1"),
        (108, struct.pack("<f", 1e30), "byte 1e"),
        (108, struct.pack("<f", 1e6), "truncated"),
        (112, struct.pack("<ff", float("inf"), 0.0), "scales by inf"),
        (123, bytes([7]), "unit of length"),
        (280, struct.pack("<4f", 0, 0, 0, 0), "no usable orientation"),
        (280, struct.pack("<4f", float("nan"), 0, 0, 0), "no usable orientation"),
        (344, b"xxxx", "not a NIfTI"),
        (0, b"\0\0\0\0", "not a NIfTI"),
    ],
)
def test_damaged_headers_are_refused_by_field(tmp_path: Path, offset: int, data: bytes, message: str) -> None:
    path = patch(save(tmp_path / "a.nii", octants().transpose()), offset, data)
    with pytest.raises(InputError, match=message):
        read_nifti(path)


def test_random_damage_ends_in_our_errors_only(tmp_path: Path) -> None:
    """Any bytes in the header: an image or one of our errors, never a stack trace of another kind."""
    rng = np.random.default_rng(7)
    whole = save(tmp_path / "a.nii", octants().transpose()).read_bytes()
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, 348, rng.integers(1, 12)):
            content[place] = rng.integers(0, 256)
        (tmp_path / "b.nii").write_bytes(content)
        with suppress(InputError):
            read_nifti(tmp_path / "b.nii")


def test_a_quaternion_that_is_none_is_a_geometry_error(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", octants().transpose(), sform_code=0)
    patch(path, 256, struct.pack("<3f", 3.0, 3.0, 3.0))
    with pytest.raises(GeometryError, match="quaternion"):
        read_nifti(path)


def test_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("hello " * 100)
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"hello " * 100))
    for name, message in (("empty", "is empty"), ("text", "neither"), ("text.gz", "neither"), ("gone", "No such file")):
        with pytest.raises(InputError, match=message):
            read_image(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_no_permission(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", octants().transpose())
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        read_image(path)
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write_nifti(Volume(octants(), np.eye(4)), tmp_path / "b.nii")
    tmp_path.chmod(0o700)


def test_refused_permission_is_our_error_also_for_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii", octants().transpose())

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        read_image(path)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.nii"):
        write_image(Volume(octants(), np.eye(4)), tmp_path / "a.mhx")
    with pytest.raises(UsageError, match="no voxel type"):
        write_nifti(Volume(octants().astype(np.complex64), np.eye(4)), tmp_path / "a.nii")
