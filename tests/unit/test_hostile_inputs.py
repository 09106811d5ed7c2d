"""Hostile files and folders: a clear error or a skip with its reason, within bounded memory, measured in a child."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from tests.phantoms import PATIENT_ID, PATIENT_NAME, dicom_series, octants, save_series

# What reading may take beyond an interpreter with the readers loaded (MiB).
MOST_MIB = 700

CHILD = """
import json, resource, sys
from voxelrt.errors import VoxelRTError
from voxelrt.io import open_dicom, read_image
import numpy, pydicom, tifffile
answers, before = {}, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, place in json.load(sys.stdin).items():
    answer = {"error": "", "said": []}
    try:
        answer["said"] = list(read_image(place).warnings)
    except VoxelRTError as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    answer["mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    answers[name] = answer
print(json.dumps(answers))
"""


def sound(folder: Path, **changes: Any) -> Path:
    return save_series(dicom_series(octants(), **changes), folder)


def first(folder: Path) -> Path:
    return min(folder.iterdir())


def rewritten(path: Path, old: bytes, new: bytes) -> None:
    whole = path.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new, 1))


def truncated(folder: Path) -> Path:
    path = first(sound(folder))
    path.write_bytes(path.read_bytes()[:-60])
    return folder


def cut_header(folder: Path) -> Path:
    path = first(sound(folder))
    path.write_bytes(path.read_bytes()[:500])
    return folder


def wrong_length(folder: Path) -> Path:
    """PatientName says that it is 60 000 bytes long and so swallows what follows."""
    name = PATIENT_NAME.encode()
    rewritten(first(sound(folder)), b"PN" + struct.pack("<H", len(name)), b"PN" + struct.pack("<H", 60_000))
    return folder


def huge_length(folder: Path) -> Path:
    """The pixel data say that they are 4 GiB."""
    size = octants()[0].nbytes
    rewritten(first(sound(folder)), b"OW\0\0" + struct.pack("<I", size), b"OW\0\0" + struct.pack("<I", 0xFFFFFFF0))
    return folder


def huge_rows(folder: Path) -> Path:
    series = dicom_series(octants())
    for dataset in series:
        dataset.Rows = dataset.Columns = 65_535
    return save_series(series, folder)


def huge_compressed(folder: Path) -> Path:
    series = dicom_series(octants())
    for dataset in series:
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.Rows = dataset.Columns = 65_535
    return save_series(series, folder)


def huge_frames(folder: Path) -> Path:
    series = dicom_series(octants()[:1])
    series[0].NumberOfFrames = 16_000_000
    return save_series(series, folder, order=[0])


def recursive(folder: Path) -> Path:
    path = first(sound(folder))
    whole = path.read_bytes()
    at = whole.index(b"\x08\x00\x16\x00UI")
    nested = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 50_000
    path.write_bytes(whole[:at] + nested + whole[at:])
    return folder


def deflate_bomb(folder: Path) -> Path:
    """A meta information of the deflated syntax and a gibibyte of zeros behind it."""
    series = dicom_series(octants()[:1])
    series[0].file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = first(save_series(series, folder, order=[0]))
    start = path.read_bytes()
    behind = 132 + 12 + struct.unpack("<I", start[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)  # such blocks can be repeated
    path.write_bytes(start[:behind] + 64 * block)
    return folder


def zip_bomb(folder: Path) -> Path:
    """An entry of 64 MiB of zeros that calls itself small."""
    folder.mkdir()
    path = folder / "study.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("IM0", bytes(128) + b"DICM" + bytes(2**26))
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 2**26 + 132), struct.pack("<I", 4096)))
    return path


def zip_in_zip(folder: Path) -> Path:
    folder.mkdir()
    inner = folder / "inner"
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("IM0", b"x" * 500)
    with zipfile.ZipFile(folder / "study.zip", "w") as archive:
        archive.write(inner, "more.zip")
    return folder / "study.zip"


def zip_of_many(folder: Path) -> Path:
    """A directory of 210 000 entries."""
    folder.mkdir()
    entry = b"PK\1\2" + struct.pack("<6H3I5H2I", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = 210_000 * entry
    end = b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 0xFFFE, 0xFFFE, len(directory), 4, 0)
    (folder / "study.zip").write_bytes(b"PK\3\4" + directory + end)
    return folder / "study.zip"


def no_images(folder: Path) -> Path:
    from pydicom.uid import BasicTextSRStorage

    series = dicom_series(octants()[:2], SOPClassUID=BasicTextSRStorage, Modality="SR")
    for dataset in series:
        del dataset.PixelData
    return save_series(series, folder, order=[0, 1])


def empty(folder: Path) -> Path:
    (folder / "deep" / "deeper").mkdir(parents=True)
    return folder


def loops(folder: Path) -> Path:
    folder.mkdir()
    os.symlink(folder, folder / "loop")
    os.symlink(folder / "self", folder / "self")
    return folder


def many_small(folder: Path) -> Path:
    sound(folder)
    for number in range(10_000):
        (folder / f"{number}").write_bytes(b"x" * (number % 200))
    return folder


def png_bomb(folder: Path) -> Path:
    folder.mkdir()
    Pillow.new("L", (60, 60)).save(folder / "a.png")
    whole = bytearray((folder / "a.png").read_bytes())
    whole[16:24] = struct.pack(">II", 60_000, 60_000)
    whole[29:33] = struct.pack(">I", zlib.crc32(bytes(whole[12:29])))
    (folder / "a.png").write_bytes(whole)
    return folder / "a.png"


def nifti_lie(folder: Path) -> Path:
    import nibabel

    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), folder / "a.nii.gz")
    import gzip

    whole = bytearray(gzip.decompress((folder / "a.nii.gz").read_bytes()))
    struct.pack_into("<3h", whole, 42, 2000, 2000, 2000)
    (folder / "a.nii.gz").write_bytes(gzip.compress(bytes(whole)))
    return folder / "a.nii.gz"


REFUSED = {
    truncated: "is truncated: 100 bytes of pixels, and 160 are needed",
    cut_header: "is damaged or truncated: it says neither its series nor its pixels",
    wrong_length: "is damaged or truncated: it says neither its series nor its pixels",
    huge_rows: "is truncated: 160 bytes of pixels, and 8589672450 are needed",
    huge_compressed: "more",
    huge_frames: "at most 100000 are read",
    recursive: "damaged: its header cannot be read",
    deflate_bomb: "holds more than the 512 MiB",
    zip_bomb: "damaged",
    zip_in_zip: "no DICOM images of a volume here (1 zip inside, opened only where it is given itself)",
    zip_of_many: "declares 210000 files",
    no_images: "no DICOM images of a volume here (2 structured report)",
    empty: "no DICOM images of a volume here (no files)",
    loops: "1 links to folders, which are not followed, 1 broken links",
    png_bomb: "more pixels than a picture",
    nifti_lie: "",
}


# Sound all the same, with what is said.
READ = {huge_length: "", many_small: "skipped 10000 files: not DICOM"}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one child process said to all of them, one after the other; memory is the most that it ever held."""
    root = tmp_path_factory.mktemp("hostile")
    places = {make.__name__: str(make(root / make.__name__)) for make in (*REFUSED, *READ)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=json.dumps(places), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for text in (done.stdout, done.stderr):
        assert "Doe" not in text
        assert PATIENT_ID not in text
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_it_is_refused_with_a_reason_and_within_memory(answers: dict[str, Any], make: Any) -> None:
    answer = answers[make.__name__]
    assert answer["mib"] < MOST_MIB, answer
    assert answer["error"]
    assert REFUSED[make] in answer["error"], answer["error"]


@pytest.mark.parametrize("make", READ, ids=lambda make: make.__name__)
def test_it_is_read_and_within_memory(answers: dict[str, Any], make: Any) -> None:
    answer = answers[make.__name__]
    assert answer["error"] == ""
    assert answer["mib"] < MOST_MIB, answer
    assert READ[make] in " ".join(answer["said"])
