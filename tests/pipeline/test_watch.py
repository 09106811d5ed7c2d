"""voxelrt run --watch: scans whose files arrive in pieces and out of order, folders of cases; from a real writer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

import voxelrt as vx
from tests.phantoms import PATIENT_NAME, dicom_series
from tests.pipeline.test_stream import _scan
from tests.pipeline.test_stream import plan as plan
from voxelrt.cli import main
from voxelrt.errors import GeometryError, InputError
from voxelrt.io import read_image, write_nifti
from voxelrt.io.dicom.arriving import ArrivingSeries
from voxelrt.runtime.arriving_cases import ArrivingCases

SHAPE = (29, 33, 35)


@pytest.fixture(scope="module")
def saved(plan: vx.Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("watch") / "net.vxp"
    plan.save(path)
    return path


def _files(scan: NDArray[Any], folder: Path, *, down: bool = False) -> list[bytes]:
    """The slices of a scan as files hold them, numbered in its order, which may fall along their normal."""
    datasets = dicom_series(scan, spacing_mm=2.4)
    return _bytes(datasets[::-1] if down else datasets, folder)


def _slowly(folder: Path, files: list[bytes], order: list[int]) -> None:
    """As a scanner over a slow network: in halves with a pause, some slices before others, one twice, others' files."""
    (folder / "notes.txt").write_text("not DICOM")
    for place, index in enumerate(order):
        path = folder / f"{PATIENT_NAME}-{place}"
        with open(path, "wb") as stream:
            stream.write(files[index][: len(files[index]) // 2])
            stream.flush()
            time.sleep(0.35 if place in (0, 9) else 0.005)  # longer than a file may rest to be looked at
            stream.write(files[index][len(files[index]) // 2 :])
    (folder / "again").write_bytes(files[3])


@pytest.fixture
def beside() -> Iterator[Callable[..., threading.Thread]]:
    """Starts threads, and waits for them at the end."""
    started: list[threading.Thread] = []

    def start(work: Callable[..., None], *given: Any) -> threading.Thread:
        started.append(threading.Thread(target=work, args=given))
        started[-1].start()
        return started[-1]

    yield start
    for thread in started:
        thread.join()


def _run(*given: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["run", *map(str, given)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("down", [False, True], ids=["upwards", "downwards"])
def test_a_scan_that_arrives_gives_the_labels_of_the_whole(
    saved: Path, tmp_path: Path, beside: Any, capsys: pytest.CaptureFixture[str], down: bool
) -> None:
    before = threading.enumerate()  # a stream of another test may be ending
    scan, folder = _scan(SHAPE), tmp_path / "scan"
    folder.mkdir()
    files = _files(scan, tmp_path, down=down)
    order = list(range(len(files)))
    order[4], order[5], order[20], order[22] = 5, 4, 22, 20
    beside(_slowly, folder, files, order)
    args = ("--watch", folder, "--slices", len(files), "-o", tmp_path / "streamed.nii.gz", "--no-mirroring")
    assert _run(saved, *args) == 0
    told = capsys.readouterr()
    assert "after the last slice" in told.out
    assert "skipped 1 files that are not slices" in told.err
    assert PATIENT_NAME not in told.out + told.err
    assert not [t for t in threading.enumerate() if t.name == "voxelrt-slices" and t not in before]
    assert _run(saved, folder, "-o", tmp_path / "whole.nii.gz", "--no-mirroring") == 0
    streamed, whole = (read_image(tmp_path / f"{name}.nii.gz").volume for name in ("streamed", "whole"))
    np.testing.assert_allclose(streamed.affine, whole.affine, atol=1e-3)
    assert int((streamed.array != whole.array).sum()) <= whole.array.size * 1e-4


def test_a_scan_that_arrives_gives_dicom_too(saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'voxelrt[dicom-out]'")
    folder = tmp_path / "scan"
    folder.mkdir()
    for number, data in enumerate(_files(_scan(SHAPE), tmp_path, down=True)):
        (folder / str(number)).write_bytes(data)
    args = ("--watch", folder, "--slices", SHAPE[0], "--no-mirroring")
    assert _run(saved, *args, "-o", tmp_path / "streamed.dcm", "--seg", "labelmap") == 0
    assert _run(saved, folder, "-o", tmp_path / "whole.dcm", "--seg", "labelmap", "--no-mirroring") == 0
    streamed, whole = (pydicom.dcmread(tmp_path / f"{name}.dcm") for name in ("streamed", "whole"))
    assert (streamed.pixel_array != whole.pixel_array).mean() <= 1e-4
    assert streamed.PerFrameFunctionalGroupsSequence == whole.PerFrameFunctionalGroupsSequence
    assert streamed.ReferencedSeriesSequence == whole.ReferencedSeriesSequence
    assert _run(saved, *args, "-o", tmp_path / "none" / "labels.dcm") == 3  # told before a slice is waited for


def test_a_scan_of_unknown_length_is_run_when_nothing_comes_any_more(saved: Path, tmp_path: Path, beside: Any) -> None:
    scan, folder = _scan(SHAPE), tmp_path / "scan"
    folder.mkdir()
    beside(_slowly, folder, _files(scan, tmp_path), list(range(len(scan))))
    out = tmp_path / "labels.nii.gz"
    assert _run(saved, "--watch", folder, "-o", out, "--quiet-time", 1, "--no-mirroring") == 0
    assert read_image(out).volume.shape_zyx == SHAPE


def test_cases_are_run_as_they_arrive(
    saved: Path, tmp_path: Path, beside: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "incoming", tmp_path / "incoming" / "labels"
    folder.mkdir()
    scan = _scan((16, 33, 35))
    write_nifti(vx.Volume(scan, np.diag([1.2, 1.2, 3, 1])), tmp_path / "one.nii.gz")
    whole = (tmp_path / "one.nii.gz").read_bytes()
    came: list[bool] = []

    def send() -> None:
        (folder / "first_0000.nii.gz").write_bytes(whole)
        (folder / "torn.nii.gz").write_bytes(whole[:900])
        (folder / "empty").mkdir()
        with open(folder / "slow.nii.gz", "wb") as stream:
            for start in range(0, len(whole), len(whole) // 4):
                stream.write(whole[start : start + len(whole) // 4])
                stream.flush()
                time.sleep(0.15)
        deadline = time.monotonic() + 30
        while not (out / "first.nii.gz").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        came.append((out / "first.nii.gz").exists())  # while the watch goes on
        (folder / "series").mkdir()
        for number, data in enumerate(_files(scan, tmp_path)):
            (folder / "series" / f".{number}").write_bytes(data)
            os.rename(folder / "series" / f".{number}", folder / "series" / str(number))

    beside(send)
    args = ("--watch", folder, "-o", out, "--names", "input", "--no-mirroring")
    assert _run(saved, *args, "--quiet-time", 0.3, "--stop-after", 6) == 3
    assert came == [True]
    told = capsys.readouterr()
    assert "3 done, 1 failed" in told.out
    assert {path.name for path in out.glob("*.nii.gz")} == {"first.nii.gz", "slow.nii.gz", "series.nii.gz"}


def test_what_is_wrong_with_a_scan_is_told(tmp_path: Path) -> None:
    scan, folder = _scan((6, 8, 9)), tmp_path / "scan"
    folder.mkdir()

    def fails(files: list[bytes], slices: int) -> str:
        for path in folder.iterdir():
            path.unlink()
        for number, data in enumerate(files):
            (folder / str(number)).write_bytes(data)
        series = ArrivingSeries(folder, slices, quiet=0.4)
        with pytest.raises((InputError, GeometryError)) as found:
            series.grid()
            list(series)
        return str(found.value)

    files = _files(scan, tmp_path)
    assert "ended after 5 of 6 slices; missing: number 3" in fails(files[:2] + files[3:], 6)
    assert "1 files are not whole" in fails([*files[:5], files[5][:-4]], 6)
    assert "more slices came than the 4" in fails(files, 4)
    gap = dicom_series(scan, spacing_mm=2.4)
    gap[5].ImagePositionPatient = [-30, 10, 30]
    assert "have no InstanceNumber" in fails(_bytes(gap, tmp_path, numbered=False), 6)
    assert "lies 13.00 mm from" in fails(_bytes(dicom_series(scan, spacing_mm=2.4), tmp_path, moved=13.0), 20)
    with pytest.raises(InputError, match="is not a folder"):
        ArrivingSeries(tmp_path / "none", 3, quiet=1)
    with pytest.raises(InputError, match="no case came"):
        (tmp_path / "nothing").mkdir()
        ArrivingCases(tmp_path / "nothing", quiet=0.1, stop_after=0.2).first()


def _bytes(datasets: list[Any], folder: Path, *, numbered: bool = True, moved: float = 0.0) -> list[bytes]:
    made = []
    if moved:  # twenty slices, the last off its place
        template = datasets[0]
        for k in range(20):
            template.InstanceNumber = k + 1
            template.SOPInstanceUID = f"1.2.3.{k + 1}"
            template.ImagePositionPatient = [-30, 10, 5 + 2.4 * k + (moved if k == 19 else 0)]
            made += _bytes([template], folder, numbered=False)
        return made
    for number, dataset in enumerate(datasets, start=1):
        if numbered:
            dataset.InstanceNumber = number
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / "one-more", enforce_file_format=True)
        made.append((folder / "one-more").read_bytes())
    return made
