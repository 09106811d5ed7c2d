"""Slides: levels of tiles in TIFF and DICOM, read in parts, and run through a network without ever being whole."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless, VLWholeSlideMicroscopyImageStorage, generate_uid

from tests.phantoms import dicom_slice, save_series
from voxelrt.cli import main
from voxelrt.errors import InputError, UnsupportedError, UsageError
from voxelrt.io import open_dicom, read_image
from voxelrt.io.dicom.slide import DicomSlide, open_dicom_slide
from voxelrt.io.tiff_slide import open_tiff_slide
from voxelrt.slides import lay_windows


def specimen(rows: int = 200, columns: int = 330) -> NDArray[Any]:
    """(rows, columns, 3): no part equals another."""
    y, x = np.mgrid[:rows, :columns]
    return np.stack([y % 256, x % 256, (7 * y + 3 * x) % 256], axis=2).astype(np.uint8)


def pyramid(path: Path, array: NDArray[Any], description: str = "scanner|MPP = 0.5|more", **options: Any) -> Path:
    """A TIFF of two levels, the second half the size."""
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        more = {"tile": (64, 48), "photometric": "rgb", "compression": "zlib", "metadata": None, **options}
        writer.write(array, subifds=1, description=description, **more)
        writer.write(array[::2, ::2], subfiletype=1, **more)
    return path


PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")


def level(array: NDArray[Any], kind: str, spacing: float, uid: str, flavour: str = "VOLUME") -> FileDataset:
    """A level as DICOM; of "sparse" the tile in the corner was not scanned."""
    height, width = 64, 48
    rows, columns = -(-array.shape[0] // height), -(-array.shape[1] // width)
    padded = np.full((rows * height, columns * width, 3), 255, np.uint8)
    padded[: array.shape[0], : array.shape[1]] = array
    places = [(r, c) for r in range(rows) for c in range(columns)][(1 if kind == "sparse" else 0) :]
    if kind == "sparse":
        places.reverse()
    tiles = np.stack([padded[r * height : (r + 1) * height, c * width : (c + 1) * width] for r, c in places])
    dataset = dicom_slice(tiles[0, ..., 0], np.zeros(3), **dict.fromkeys(PLACE), Modality="SM", SeriesInstanceUID=uid,
                          SOPClassUID=VLWholeSlideMicroscopyImageStorage,
                          ImageType=["ORIGINAL", "PRIMARY", flavour, "NONE"])  # fmt: skip
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.NumberOfFrames, dataset.PixelData = len(tiles), tiles.tobytes()
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = array.shape[:2]
    dataset.DimensionOrganizationType = "TILED_SPARSE" if kind == "sparse" else "TILED_FULL"
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = [spacing, spacing]
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    if kind == "sparse":
        groups = []
        for row, column in places:
            place = Dataset()
            place.RowPositionInTotalImagePixelMatrix = 1 + row * height
            place.ColumnPositionInTotalImagePixelMatrix = 1 + column * width
            groups.append(Dataset())
            groups[-1].PlanePositionSlideSequence = Sequence([place])
        dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    if kind == "rle":
        dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


def dicom_slide(folder: Path, kind: str) -> DicomSlide:
    uid, array = generate_uid(), specimen()
    made = [level(array[::2, ::2], kind, 0.001, uid), level(array, kind, 0.0005, uid),
            level(array[:64, :48], "full", 0.1, uid, "LABEL")]  # fmt: skip
    save_series(made, folder, order=[0, 1, 2])
    return open_dicom_slide(open_dicom(folder).series[0].headers)


@pytest.mark.parametrize("kind", ["tiff", "full", "rle", "sparse"])
def test_every_part_of_a_slide_is_its_own(tmp_path: Path, kind: str) -> None:
    array = specimen()
    slide = open_tiff_slide(pyramid(tmp_path / "a.tif", array)) if kind == "tiff" else dicom_slide(tmp_path, kind)
    assert slide is not None
    assert [one.size for one in slide.levels] == [(200, 330), (100, 165)]
    assert slide.levels[0].spacing_mm == pytest.approx((0.0005, 0.0005))
    assert slide.levels[1].spacing_mm == pytest.approx((0.001, 0.001))
    around = np.full((400, 530, 3), 255, np.uint8)
    around[100:300, 100:430] = array
    if kind == "sparse":
        around[100:164, 100:148] = 255
    for row, column, height, width in ((0, 0, 200, 330), (63, 47, 2, 3), (-20, -30, 90, 80), (150, 300, 99, 99)):
        part = slide.read(0, row, column, height, width)
        wanted = around[100 + row : 100 + row + height, 100 + column : 100 + column + width]
        assert (part == wanted.transpose(2, 0, 1)).all(), (row, column)
    if kind != "tiff":
        assert slide.warnings == ("1 image of the label or an overview left out",)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000"])
def test_tiles_are_coded_as_scanners_code_them(tmp_path: Path, compression: str) -> None:
    """JPEG in YCbCr or JPEG 2000, tiles as multiples of 16; compared with what tifffile makes of the whole level."""
    pytest.importorskip("imagecodecs", reason="imagecodecs, of the extra pathology, is not installed")
    path = pyramid(tmp_path / "a.svs", specimen(), compression=compression)
    slide, whole = open_tiff_slide(path), tifffile.imread(path)
    assert slide is not None
    for row, column, height, width in ((0, 0, 200, 330), (61, 45, 70, 9)):
        part = slide.read(0, row, column, height, width)
        assert (part == whole[row : row + height, column : column + width].transpose(2, 0, 1)).all()
    assert np.abs(whole.astype(int) - specimen()).mean() < 8  # the codes are lossy; the picture is the specimen


def test_a_level_is_chosen_by_the_pixels_that_a_model_sees(tmp_path: Path) -> None:
    slide = open_tiff_slide(pyramid(tmp_path / "a.tif", specimen()))
    assert slide is not None
    assert slide.chosen(None) == 0
    assert slide.chosen(None, (0.00104, 0.00104)) == 1
    assert slide.chosen("2") == 1
    with pytest.raises(InputError, match=r"sees 0\.25 µm a pixel, and no level of the slide is within a tenth"):
        slide.chosen(None, (0.00025, 0.00025))
    with pytest.raises(UsageError, match="no level '3'"):
        slide.chosen(3)


def test_info_and_convert_show_levels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = pyramid(tmp_path / "a.svs", specimen())
    dicom_slide(tmp_path / "dicom", "full")

    def told(*words: str) -> str:
        with pytest.raises(SystemExit) as left:
            main(list(words))
        assert left.value.code == 0
        return capsys.readouterr().out

    assert "level 2: 165 × 100 pixels, 1 µm a pixel, in tiles of 48 × 64" in told("info", str(path))
    assert "level 2" in told("info", str(tmp_path / "dicom"))
    for study in (path, tmp_path / "dicom"):
        with pytest.raises(InputError, match="2 levels"):
            read_image(study)
        told("convert", str(study), "-o", str(tmp_path / "out.nii.gz"), "--volume", "2")
        found = read_image(tmp_path / "out.nii.gz", volume_index="all").volume
        assert (found.array[:, 0] == specimen()[::2, ::2].transpose(2, 0, 1)).all()
        assert found.spacing_mm == pytest.approx((1.0, 0.001, 0.001))


@pytest.mark.parametrize("kind", ["full", "sparse", "files"])
def test_focal_planes_are_chosen_by_number(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of frames of TILED_FULL (PS3.3 C.7.6.17.3), by the height of sparse tiles, or a file each."""
    planes = [specimen(), specimen()[::-1, ::-1]]
    made = [level(array, "sparse" if kind == "sparse" else "full", 0.0005, "1.2.3") for array in planes]
    if kind == "full":
        both, made = made, made[:1]
        made[0].PixelData = b"".join(dataset.PixelData for dataset in both)
        made[0].NumberOfFrames = 2 * made[0].NumberOfFrames
        made[0].TotalPixelMatrixFocalPlanes = 2
    elif kind == "sparse":
        lower, upper = made[1], made[0]
        for dataset, height in ((lower, 0.0), (upper, 2.5)):
            for group in dataset.PerFrameFunctionalGroupsSequence:
                group.PlanePositionSlideSequence[0].ZOffsetInSlideCoordinateSystem = height
        made = [upper]
        upper.PixelData += lower.PixelData
        upper.PerFrameFunctionalGroupsSequence += list(lower.PerFrameFunctionalGroupsSequence)
        upper.NumberOfFrames = 2 * upper.NumberOfFrames
        planes = planes[::-1]
    save_series([*made, level(planes[0][::2, ::2], "full", 0.001, "1.2.3")], tmp_path, order=list(range(len(made) + 1)))
    for number, array in enumerate(planes, start=1):
        found = read_image(tmp_path, volume=number).volume.array[:, 0]
        scanned = (array if kind != "sparse" else np.where(corner(array.shape), 255, array)).transpose(2, 0, 1)
        assert (found == scanned).all()
    slide = open_dicom_slide(open_dicom(tmp_path).series[0].headers)
    assert slide.chosen(None, (0.001, 0.001)) == 2  # the one coarse picture
    for wanted in (None, (0.0005, 0.0005)):
        with pytest.raises(InputError, match=r"3 levels and focal planes .* 2 of 2"):
            slide.chosen(None, wanted)
    with pytest.raises(SystemExit):
        main(["info", str(tmp_path)])
    told = capsys.readouterr().out
    assert "level 3" in told
    assert "level 4" not in told


def corner(shape: tuple[int, ...]) -> NDArray[Any]:
    """The tile that a sparse level lacks."""
    made = np.zeros(shape, bool)
    made[:64, :48] = True
    return made


@pytest.mark.parametrize(("size", "overlap", "middle"), [((64, 64), 0.25, (48, 48)), ((512, 512), 0.5, (256, 256))])
def test_windows_cover_a_level_once(size: tuple[int, int], overlap: float, middle: tuple[int, int]) -> None:
    windows = lay_windows(size, overlap, (200, 330))
    assert windows.middle == middle
    covered = np.zeros((200 + size[0], 330 + size[1]), int)
    for row, column in windows.corners():
        covered[row : row + middle[0], column : column + middle[1]] += 1
    assert (covered[:200, :330] == 1).all()
    with pytest.raises(UnsupportedError, match="keeps less than 16"):
        lay_windows((20, 20), 0.5, (200, 330))


@pytest.mark.parametrize("damage", ["cut", "tiles", "planes", "label"])
def test_damaged_and_unusual_slides_are_input_errors(tmp_path: Path, damage: str) -> None:
    if damage == "cut":
        path = pyramid(tmp_path / "a.tif", specimen(), compression=None)
        path.write_bytes(path.read_bytes()[:40_000])
        with pytest.raises(InputError):
            read_image(path)
        return
    made = level(specimen(), "full", 0.0005, "1.2.3", "LABEL" if damage == "label" else "VOLUME")
    if damage == "tiles":
        made.TotalPixelMatrixRows = 2**31 - 1
    elif damage == "planes":
        made.NumberOfFrames, made.PixelData = 2 * made.NumberOfFrames, made.PixelData * 2
    save_series([made], tmp_path, order=[0])
    with pytest.raises(InputError):
        read_image(tmp_path)


def test_a_slide_larger_than_memory_is_read_in_parts_of_it(tmp_path: Path) -> None:
    """100 000 × 80 000 pixels, 24 GB: only the tiles of a part are decoded."""
    rows, columns, tile = 80 * 1024, 100 * 1024, 1024
    whole = zlib.compress(bytes([200]) * (3 * tile * tile))
    path = tmp_path / "large.tif"
    tifffile.imwrite(
        path, (whole for _ in range(rows // tile * columns // tile)), shape=(rows, columns, 3), dtype=np.uint8,
        tile=(tile, tile), photometric="rgb", compression="zlib", bigtiff=True, metadata=None, maxworkers=1,
    )  # fmt: skip
    script = (
        "import sys, resource; from pathlib import Path; from voxelrt.io.tiff_slide import open_tiff_slide;"
        "slide = open_tiff_slide(Path(sys.argv[1])); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "parts = [slide.read(0, k * 4000 - 300, k * 5000, 512, 512) for k in range(19)];"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before;"
        "print(grown, all((part[:, 300:] == 200).all() for part in parts))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    grown, right = done.stdout.split()
    assert right == "True"
    assert int(grown) < 200 * 1024
