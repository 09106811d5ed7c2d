"""What users meet: damaged voxels, full disks, Ctrl-C, folders with broken cases. Nothing is left half-written."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import voxelrt as vx
from voxelrt.cli import main
from voxelrt.errors import OutputError

FOLDERS = Path(__file__).parents[1] / "models" / "data" / "nnunet_folders.tar.xz"
AFFINE = np.diag([1.2, 1.2, 3.0, 1.0])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faults")
    with tarfile.open(FOLDERS) as archive:
        archive.extractall(root, filter="data")
    vx.compile(root / "Dataset801_Plain", tune="off", verify=False).save(root / "net.vxp")
    return root / "net.vxp"


def _scan(seed: int, size: tuple[int, int, int] = (16, 32, 32)) -> Any:
    return np.random.default_rng(seed).normal(0, 150, size).astype(np.float32)


def test_damaged_voxels_are_taken_as_zero_and_told(saved: Path) -> None:
    plan, scan = vx.Plan.open(saved), _scan(0)
    clean = scan.copy()
    scan[2, 3, 4], scan[5, 6, 7], scan[8, 9, 10] = np.nan, np.inf, -np.inf
    clean[2, 3, 4] = clean[5, 6, 7] = clean[8, 9, 10] = 0
    result = vx.predict(plan, vx.Volume(scan, AFFINE), mirroring=False)
    assert any("NaN or infinite" in warning for warning in result.warnings)
    same = vx.predict(plan, vx.Volume(clean, AFFINE), mirroring=False).labels.array
    np.testing.assert_array_equal(result.labels.array, same)


def test_a_full_disk_is_told_and_leaves_nothing(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, volume = vx.Plan.open(saved), vx.Volume(_scan(1, (60, 64, 64)), AFFINE)
    (tmp_path / "out.nii").write_bytes(b"what was there")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # as a disk with so much left
    try:
        with pytest.raises(OutputError, match=r"out\.nii"):
            vx.predict(plan, volume, tmp_path / "out.nii", mirroring=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["out.nii"]
    assert (tmp_path / "out.nii").read_bytes() == b"what was there"

    def full(*given: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    said: list[str] = []
    monkeypatch.setattr("voxelrt.window_plan.memory_bytes", lambda: 0)
    monkeypatch.setattr("voxelrt.tiling.slab.os.pwrite", full)
    with pytest.raises(OutputError, match="scratch file: No space left"):
        vx.predict(plan, volume, mirroring=False, memory=plan.memory_bytes + 1_500_000, say=said.append)
    assert "scratch" in said[-1]


def _start(saved: Path, case: Path, out: Path) -> subprocess.Popen[str]:
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"  # a background shell has it ignored
        "from voxelrt.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "run", str(saved), str(case)]
    return subprocess.Popen([*command, "-o", str(out), "--quiet"], stderr=subprocess.PIPE, text=True)


def _wait_under_way(process: subprocess.Popen[str], plan: Path, seconds: float) -> None:
    """Until the plan was opened, and so long more."""
    while str(plan) not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.01)
    time.sleep(seconds)
    assert process.poll() is None, "the run ended before Ctrl-C was pressed: make its case larger"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0, 3.0])
def test_ctrl_c_at_any_moment_leaves_nothing(saved: Path, tmp_path: Path, seconds: float) -> None:
    nib.save(nib.Nifti1Image(_scan(2, (160, 256, 256)).T, AFFINE), tmp_path / "case.nii")
    process = _start(saved, tmp_path / "case.nii", tmp_path / "out.nii.gz")
    try:
        _wait_under_way(process, saved, seconds)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["case.nii"]


def test_a_folder_of_twenty_cases_two_of_them_broken(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "imagesTs"
    images.mkdir()
    sizes = [(16, 32, 32), (1, 30, 33), (20, 20, 20), (1, 1, 1), (12, 40, 17)]
    for number in range(20):
        scan = _scan(number, sizes[number % len(sizes)])
        if number == 7:
            scan[...] = 0
        nib.save(nib.Nifti1Image(scan.T, AFFINE), images / f"case{number:02d}_0000.nii.gz")
    torn = images / "case04_0000.nii.gz"
    torn.write_bytes(torn.read_bytes()[:2000])
    (images / "case11_0000.nii.gz").write_bytes(b"this is no image")
    args = ["run", str(saved), str(images), "-o", str(tmp_path / "out"), "--names", "input", "--no-mirroring"]
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 3
    told = capsys.readouterr()
    assert "18 done, 2 failed" in told.out
    assert told.out.count("failed:") == 2
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 18
    with pytest.raises(SystemExit):
        main([*args, "--resume"])
    assert "18 kept, 2 failed" in capsys.readouterr().out
    with pytest.raises(SystemExit):  # made with other options
        main([*args, "--step", "0.9", "--resume"])
    assert "20 failed" in capsys.readouterr().out
    first = (tmp_path / "out" / "case00.nii.gz").stat().st_mtime_ns
    with pytest.raises(SystemExit):
        main([*args, "--overwrite"])
    assert "18 done, 2 failed" in capsys.readouterr().out
    assert (tmp_path / "out" / "case00.nii.gz").stat().st_mtime_ns > first
