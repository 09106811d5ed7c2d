"""A folder of twenty mixed cases, two of them broken, in one command with a summary."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import voxelrt as vx
from tests.pipeline.test_nnunet_run import FOLDERS
from voxelrt.cli import main

BROKEN = (7, 13)
CODES = ("LPS", "RAS", "LAS", "PIR", "SAL")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2-D model of one channel, compiled."""
    root = tmp_path_factory.mktemp("flat")
    with tarfile.open(FOLDERS) as archive:
        archive.extractall(root, filter="data")
    return vx.compile(root / "Dataset803_Flat", tune="off", verify=False).save(root / "flat.vxp")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sizes, dtypes, voxel sizes, orientations and compression as they come; two files are no images any more."""
    folder = tmp_path_factory.mktemp("imagesTs")
    rng = np.random.default_rng(20)
    dtypes: tuple[Any, ...] = (np.int16, np.uint8, np.float32, np.int32, np.float64)
    for index in range(20):
        size = tuple(int(n) for n in rng.integers((9, 8, 1), (50, 40, 6)))
        array = rng.normal(100, 40, size=size).clip(0, 250).astype(dtypes[index % 5])
        if index == 3:
            array[...] = 0  # nothing at all
        if array.dtype.kind == "f":
            array[0, 0, 0] = np.nan
        image = nib.Nifti1Image(array, np.diag([*rng.uniform(0.5, 4, size=3), 1.0]))
        wanted = nib.orientations.axcodes2ornt(CODES[index % 5])
        image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))
        nib.save(image, folder / f"case{index:02d}_0000.nii{'.gz' if index % 2 else ''}")
    torn, text = (folder / f"case{index:02d}_0000.nii.gz" for index in BROKEN)
    torn.write_bytes(torn.read_bytes()[:200])
    text.write_text("this was an image once")
    (folder / "notes.txt").write_text("not a case")
    return folder


def _run(capsys: pytest.CaptureFixture[str], plan: Path, images: Path, out: Path, *options: str) -> dict[str, Any]:
    args = ["run", str(plan), str(images), "-o", str(out), "--names", "input", "--no-mirroring", "--step", "1"]
    with pytest.raises(SystemExit) as ended:
        main([*args, *options, "--json", "-", "--quiet"])
    assert ended.value.code != 0  # two failed
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_twenty_mixed_cases_two_of_them_broken(
    plan: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    told = _run(capsys, plan, images, out)
    assert (told["done"], told["kept"], told["failed"]) == (18, 0, 2)
    assert [index for index, row in enumerate(told["studies"]) if row["error"]] == list(BROKEN)
    written = sorted(path.name for path in out.glob("*.nii*"))
    assert written == [f"case{index:02d}.nii.gz" for index in range(20) if index not in BROKEN]
    for index in set(range(20)) - set(BROKEN):
        (source,) = images.glob(f"case{index:02d}_0000.nii*")
        image, labels = nib.load(source), nib.load(out / f"case{index:02d}.nii.gz")
        assert labels.shape == image.shape
        assert np.abs(labels.affine - image.affine).max() < 1e-4
    # What one case gives does not depend on the cases around it.
    (alone,) = images.glob("case05_0000.nii*")
    single = vx.predict(vx.Plan.open(plan), alone, mirroring=False, step=1.0).labels.array
    assert (single[0] == np.asarray(nib.load(out / "case05.nii.gz").dataobj).T).all()

    # Again: what is there is an error, is kept, or is replaced, as asked; a mended case is done.
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii*")}
    assert (told := _run(capsys, plan, images, out))["failed"] == 20
    assert "--resume" in str(told["studies"][0]["error"])
    assert _run(capsys, plan, images, out, "--resume") | {"studies": None} == {
        "studies": None,
        "done": 0,
        "kept": 18,
        "failed": 2,
    }
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii*")} == times
    assert _run(capsys, plan, images, out, "--overwrite")["done"] == 18
    assert all(path.stat().st_mtime_ns != times[path.name] for path in out.glob("*.nii*"))


def test_the_summary_is_for_people(
    plan: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["run", str(plan), str(images), "-o", str(tmp_path / "out"), "--no-mirroring", "--step", "1"]
    with pytest.raises(SystemExit):
        main(args)
    told = capsys.readouterr()
    text = told.out + told.err
    assert "18 done, 2 failed" in text
    assert "study 8 failed:" in text
    assert "study 14 failed:" in text
    assert "Traceback" not in text
    assert "'case07_0000.nii.gz' is truncated" in " ".join(text.split())  # so that it can be looked for
