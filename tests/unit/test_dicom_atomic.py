"""A series, or a folder of objects, appears whole or not at all, whatever stops its writing."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.dicom_readers import program
from tests.phantoms import dicom_series, octants, save_series
from tests.unit.test_dicom_segmentation import ALGORITHM, SEGMENTS, labels_like, written
from voxelrt.errors import OutputError
from voxelrt.io import DicomSource, read_image
from voxelrt.io.atomic_folder import atomic_folder
from voxelrt.io.dicom.derived_series import DENOISED, write_derived_series
from voxelrt.io.dicom.report import write_report
from voxelrt.io.dicom.segmentation import SegKind, write_segmentation
from voxelrt.io.dicom.structure_set import write_structure_set
from voxelrt.postprocess.measurements import measure

highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'voxelrt[dicom-out]'")


def writers(image: Any) -> dict[str, Any]:
    labels = image.volume.with_array(labels_like(image.volume))
    source = image.source
    assert isinstance(source, DicomSource)
    return {
        "series": lambda out: write_derived_series(image.volume, out, source, ALGORITHM, DENOISED),
        "seg": lambda out: write_segmentation(labels, out, source, SEGMENTS, ALGORITHM),
        "sr": lambda out: write_report(measure(labels), image.volume, out, source, SEGMENTS, ALGORITHM),
        "rtstruct": lambda out: write_structure_set(labels, out, source, SEGMENTS, ALGORITHM),
    }


@pytest.mark.parametrize(
    ("what", "moments"),
    [
        ("series", 6),
        ("rtstruct", 6),
        *(pytest.param(what, 40, marks=pytest.mark.slow) for what in ("series", "seg", "sr", "rtstruct")),
    ],
)
def test_ctrl_c_at_any_moment_leaves_nothing(tmp_path: Path, what: str, moments: int) -> None:
    image = read_image(save_series(dicom_series(octants()), tmp_path / "a"))
    write, out = writers(image)[what], tmp_path / "out"
    write(out)
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += (event == "call" and "voxelrt" in frame.f_code.co_filename) or event == "c_call"
        if calls == stop:
            sys.setprofile(None)
            raise KeyboardInterrupt

    def again() -> bool:
        sys.setprofile(count)
        try:
            write(fresh)
        except KeyboardInterrupt:
            return False
        finally:
            sys.setprofile(None)
        return True

    stop, fresh = 10**9, tmp_path / "whole"
    assert again()
    total = calls
    for part in range(1, moments):
        calls, stop, fresh = 0, max(1, total * part // moments), tmp_path / f"out{part}"
        finished = again()
        names = {path.name for path in tmp_path.iterdir()} - {"a", "out", "whole"}
        assert all(name.startswith("out") for name in names), names  # no temporary name is left
        whole = fresh.is_file() or (fresh.is_dir() and len(list(fresh.iterdir())) == 6)
        assert whole or (not finished and not fresh.exists())


@pytest.mark.parametrize("what", ["series", "seg", "sr", "rtstruct"])
def test_a_full_disk_and_a_folder_without_permission(tmp_path: Path, what: str) -> None:
    image = read_image(save_series(dicom_series(octants()), tmp_path / "a"))
    write = writers(image)[what]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, limits[1]))  # Python ignores SIGXFSZ: writing fails with EFBIG
    try:
        with pytest.raises(OutputError, match="too large"):
            write(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    if os.geteuid() == 0:
        return  # nothing is forbidden to root
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission"):
        write(locked / "out")


def test_a_folder_that_was_filled_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="not empty"), atomic_folder(out) as folder:
        (folder / "ours").write_text("ours")
        out.mkdir()
        (out / "theirs").write_text("theirs")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["theirs"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="is a file"), atomic_folder(tmp_path / "out"):
        pass
    with pytest.raises(OutputError, match="make it first"), atomic_folder(tmp_path / "none" / "out"):
        pass
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_dcmqi_reads_the_same_labels(tmp_path: Path, kind: SegKind) -> None:
    nrrd = pytest.importorskip("nrrd", reason="pynrrd is not installed: pip install 'voxelrt[nrrd]'")
    reader = program("segimage2itkimage", "dcmqi")
    study = save_series(dicom_series(octants()), tmp_path / "a")
    labels, volume, _ = written(study, tmp_path / "seg.dcm", kind)
    said = [reader, "--inputDICOM", str(tmp_path / "seg.dcm"), "--outputDirectory", str(tmp_path), "-p", "read"]
    subprocess.run(said, check=True, capture_output=True)
    for number, value in enumerate((2, 5, 7), start=1):
        # A label map comes as one image of values, binary segments come one by one.
        data, header = nrrd.read(str(tmp_path / ("read-1.nrrd" if kind == "labelmap" else f"read-{number}.nrrd")))
        # dcmqi crops to the planes with a frame; its origin says where they lie.
        first = round(float((header["space origin"] - volume.affine[:3, 3]) @ volume.affine[:3, 2] / 4))
        there = labels == value
        planes = np.equal(data.T, value) if kind == "labelmap" else data.T != 0
        assert planes.sum() == there.sum()
        assert (planes == there[first : first + len(planes)]).all()
