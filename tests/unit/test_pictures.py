"""Pictures: PNG, JPEG and TIFF in, grey and colour, and what of them is refused."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow

from tests.phantoms import octants
from voxelrt.errors import InputError, UnsupportedError, UsageError
from voxelrt.io import PictureSource, read_image
from voxelrt.preprocess.case_folder import cases_in
from voxelrt.preprocess.study import fit_channels
from voxelrt.volume import Volume


def colours() -> NDArray[Any]:
    """(Y, X, 3): a ramp along each axis and their product, none of which a swap or flip maps to another."""
    y, x = np.mgrid[:12, :17]
    return np.stack([10 * y, 7 * x, (y * x) % 256], axis=2).astype(np.uint8)


def read(path: Path) -> NDArray[Any]:
    image = read_image(path)
    assert isinstance(image.source, PictureSource)
    assert image.orientation_xyz == "---"
    assert "a picture has no place in the patient" in image.warnings
    return np.asarray(image.volume.array)


@pytest.mark.parametrize(
    ("mode", "dtype", "channels"),
    [("L", np.uint8, 1), ("I;16", np.uint16, 1), ("RGB", np.uint8, 3), ("RGBA", np.uint8, 3), ("LA", np.uint8, 1),
     ("P", np.uint8, 3), ("1", np.uint8, 1)],
)  # fmt: skip
def test_a_png_is_told_by_its_content_and_read_as_stored(tmp_path: Path, mode: str, dtype: Any, channels: int) -> None:
    stored = colours()
    grey = Pillow.fromarray(stored[..., 0].astype(np.uint16) * 300) if mode == "I;16" else Pillow.fromarray(stored)
    made = grey if mode == "I;16" else grey.convert(mode)
    made.save(tmp_path / "picture.dat", format="PNG")
    found = read(tmp_path / "picture.dat")
    assert found.shape == (channels, 1, 12, 17)
    assert found.dtype == dtype
    wanted = {
        "I;16": stored[None, ..., 0].astype(np.uint16) * 300,
        "1": np.asarray(made.convert("L"))[None],
        "L": np.asarray(made)[None],
        "LA": np.asarray(made)[None, ..., 0],
        "P": np.asarray(made.convert("RGB")).transpose(2, 0, 1),
    }.get(mode, stored.transpose(2, 0, 1))
    assert (found[:, 0] == wanted).all()


def test_transparency_is_left_out_and_said(tmp_path: Path) -> None:
    stored = np.dstack([colours(), np.full((12, 17), 99, np.uint8)])
    Pillow.fromarray(stored).save(tmp_path / "a.png")
    assert (read(tmp_path / "a.png")[:, 0] == colours().transpose(2, 0, 1)).all()
    assert "transparency is left out" in read_image(tmp_path / "a.png").warnings


def test_a_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(colours()).save(tmp_path / "a.jpg", exif=exif)
    assert (read(tmp_path / "a.jpg")[:, 0].transpose(1, 2, 0) == np.asarray(Pillow.open(tmp_path / "a.jpg"))).all()
    assert any("EXIF orientation" in line for line in read_image(tmp_path / "a.jpg").warnings)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}])
def test_tiffs_of_grey_colour_and_pages(tmp_path: Path, options: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "rgb.tif", colours(), photometric="rgb", **options)
    assert (read(tmp_path / "rgb.tif")[:, 0] == colours().transpose(2, 0, 1)).all()
    tifffile.imwrite(tmp_path / "stack_0000.tif", octants(), photometric="minisblack", **options)
    assert (read(tmp_path / "stack_0000.tif")[0] == octants()).all()
    # nnU-Net keeps the lengths beside.
    (tmp_path / "stack.json").write_text(json.dumps({"spacing": [3, 0.5, 0.75]}))
    image = read_image(tmp_path / "stack_0000.tif")
    assert image.volume.spacing_mm == (3, 0.5, 0.75)
    assert "lengths are those of the .json beside the file" in image.warnings


def test_lengths_of_a_tiff_count_in_centimetres_and_not_in_inches(tmp_path: Path) -> None:
    for unit, wanted in ((3, 0.05), (2, 1.0)):
        tifffile.imwrite(tmp_path / "a.tif", colours()[..., 0], resolution=(200, 200), resolutionunit=unit)
        assert read_image(tmp_path / "a.tif").volume.spacing_mm == pytest.approx((1, wanted, wanted))


def test_several_axes_of_stacking_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 3, 8, 8), np.uint8), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(InputError, match="axes TZYX"):
        read_image(tmp_path / "a.tif")


def test_what_a_png_of_16_bits_a_colour_would_lose_is_not_lost_silently(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    start = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" + bytes(12))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    with pytest.raises(UnsupportedError, match="16 bits a colour"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_cut_and_damaged_pictures_are_input_errors_without_their_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, colours(), photometric="rgb", compression="zlib", description="Doe^Confidential")
    else:
        Pillow.fromarray(colours()).save(path)
    whole = path.read_bytes()
    for kept in (9, 40, len(whole) // 2):
        path.write_bytes(whole[:kept])
        with pytest.raises(InputError) as raised:
            read_image(path)
        assert "Doe" not in str(raised.value)
        assert raised.value.__cause__ is None


def test_a_picture_that_declares_too_much_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8), compression="zlib")
    whole = bytearray((tmp_path / "a.tif").read_bytes())
    for tag in (256, 257, 278):  # width, length, rows per strip
        at = whole.index(struct.pack("<H", tag))
        whole[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 60_000)
    (tmp_path / "a.tif").write_bytes(whole)
    with pytest.raises(InputError, match=r"declares more pixels|at most"):
        read_image(tmp_path / "a.tif")
    Pillow.fromarray(colours()).save(tmp_path / "b.png")
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(InputError, match="more pixels than"):
        read_image(tmp_path / "b.png")


@pytest.mark.parametrize("to", ["itself", "the first"])
def test_pages_that_come_back_to_themselves_are_refused(tmp_path: Path, to: str) -> None:
    # Found by fuzzing: such a chain kept tifffile busy without end.
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, octants(), photometric="minisblack")
    with tifffile.TiffFile(path) as opened:
        first, last = opened.pages.first.offset, opened.pages[5].offset
    whole = bytearray(path.read_bytes())
    (tags,) = struct.unpack_from("<H", whole, last)
    struct.pack_into("<I", whole, last + 2 + 12 * tags, last if to == "itself" else first)
    path.write_bytes(whole)
    with pytest.raises(InputError, match="chain of pages is broken"):
        read_image(path)


def test_options_of_dicom_are_refused_for_a_picture(tmp_path: Path) -> None:
    Pillow.fromarray(colours()).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="is a picture file"):
        read_image(tmp_path / "a.png", series=3)


def test_channels_of_a_picture_are_fitted_to_those_of_a_model() -> None:
    rgb = Volume(colours().transpose(2, 0, 1)[:, None], np.eye(4))
    grey = Volume(colours()[None, None, ..., 1], np.eye(4))
    assert (fit_channels(rgb, 1, ["red", "green", "blue"])[0].array[0] == rgb.array[1]).all()
    assert fit_channels(grey, 2, ["R", "G", "B"])[0] is grey
    luminance = fit_channels(rgb, 0, ["image"])[0].array[0, 0]
    np.testing.assert_allclose(luminance, np.asarray(Pillow.fromarray(colours()).convert("L")), atol=1)
    with pytest.raises(InputError, match="3 channels and the model sees 2"):
        fit_channels(rgb, 0, ["t1", "t2"])


def test_cases_of_pictures_are_found(tmp_path: Path) -> None:
    for name in ("a_0000.png", "b_0000.tif", "notes.txt"):
        (tmp_path / name).touch()
    assert cases_in(tmp_path, ["R", "G", "B"]) == [{"R": tmp_path / "a_0000.png"}, {"R": tmp_path / "b_0000.tif"}]
