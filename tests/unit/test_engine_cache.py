"""Engines in the cache folder: built once, also by two processes, rebuilt where damaged, pruned to a limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from voxelrt.cli import main
from voxelrt.runtime.engine_cache import EngineKey, cached_engine, described, engines_folder, prune_to

KEY = EngineKey("graph", "shapes", "fp16", "NVIDIA X", "sm_90", "13000", "tensorrt 11.0")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOXELRT_CACHE", str(tmp_path))
    return tmp_path


def test_an_engine_is_built_once_for_each_key() -> None:
    built: list[str] = []

    def build(text: str) -> bytes:
        built.append(text)
        return text.encode()

    for _ in range(2):
        assert cached_engine(KEY, lambda: build("one")) == b"one"
    others = [
        replace(KEY, graph="g"),
        replace(KEY, profiles="p"),
        replace(KEY, precision="fp32"),
        replace(KEY, gpu="NVIDIA Y"),
        replace(KEY, capability="sm_86"),
        replace(KEY, driver="13010"),
        replace(KEY, library="tensorrt 11.1"),
    ]
    for other in others:
        assert cached_engine(other, partial(build, other.name)) == other.name.encode()
    assert built == ["one", *(other.name for other in others)]


@pytest.mark.parametrize("cut", [slice(0, -3), slice(0, 20), slice(0, 0), slice(1, None)])
def test_a_damaged_entry_is_built_anew(cut: slice) -> None:
    cached_engine(KEY, lambda: b"engine" * 20)
    (place,) = engines_folder().glob("*.engine")
    place.write_bytes(place.read_bytes()[cut])
    assert cached_engine(KEY, lambda: b"again") == b"again"
    assert cached_engine(KEY, lambda: b"never") == b"again"
    assert described(place) == "fp16 for NVIDIA X, tensorrt 11.0"


def test_the_oldest_go_first(folder: Path) -> None:
    keys = [replace(KEY, graph=str(n)) for n in range(4)]
    for age, key in enumerate(keys):
        cached_engine(key, lambda: bytes(1000))
        os.utime(engines_folder() / f"{key.name}.engine", (1e9 + age, 1e9 + age))
    cached_engine(keys[0], lambda: b"")  # used now
    size = (engines_folder() / f"{keys[0].name}.engine").stat().st_size
    assert [path.stem for path in prune_to(2 * size)] == [keys[1].name, keys[2].name]


def test_two_processes_build_once(folder: Path) -> None:
    program = f"""
import time
from pathlib import Path
from voxelrt.runtime.engine_cache import EngineKey, cached_engine
def build():
    with Path({str(folder / "built")!r}).open("a") as file:
        file.write("x")
    time.sleep(0.3)
    return b"engine"
print(cached_engine(EngineKey(*"abcdefg"), build))
"""
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate()[0] for process in running] == [b"b'engine'\n"] * 3
    assert (folder / "built").read_text() == "x"


def test_a_cache_that_cannot_be_written_costs_time_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("VOXELRT_CACHE", str(folder / "file"))
    assert cached_engine(KEY, lambda: b"engine") == b"engine"


def test_the_command_lists_and_prunes(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    def told(*arguments: str) -> dict[str, list[dict[str, object]]]:
        with pytest.raises(SystemExit, match="0"):
            main(["cache", *arguments, "--json", "-", "--quiet"])
        made: dict[str, list[dict[str, object]]] = json.loads(capsys.readouterr().out)
        return made

    assert told("ls")["entries"] == []
    cached_engine(KEY, lambda: bytes(5000))
    (folder / "plans").mkdir()
    (folder / "plans" / "a.vxp").write_bytes(bytes(100))
    assert [entry["kind"] for entry in told("ls")["entries"]] == ["engines", "plans"]
    assert told("prune", "--days", "1")["removed"] == []
    assert len(told("prune", "--kind", "engines", "--keep", "1KiB")["removed"]) == 1
    assert [entry["kind"] for entry in told("ls")["entries"]] == ["plans"]
    with pytest.raises(SystemExit, match="2"):
        main(["cache", "prune"])
    with pytest.raises(SystemExit, match="2"):
        main(["cache", "ls", "--kind", "nothing"])
