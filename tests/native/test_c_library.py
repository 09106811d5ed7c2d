"""The C library as a product: its symbols, its size, its CMake package, its C++ header, contexts that share a plan."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.native.prepare_example import HEADER, write_plan

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = HEADER / "libvoxelrt.so"
SYMBOLS = Path(__file__).with_name("abi.txt")


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_the_symbols_are_those_of_the_list() -> None:
    """A symbol that goes breaks programs; one that comes is a promise: both are changes to tests/native/abi.txt."""
    found = run("nm", "-D", "--defined-only", LIBRARY)
    assert found.returncode == 0, found.stderr
    assert sorted(line.split()[-1] for line in found.stdout.splitlines()) == SYMBOLS.read_text().split()


def test_every_symbol_is_declared_for_c_and_cpp() -> None:
    header = (HEADER / "voxelrt.h").read_text()
    assert [name for name in SYMBOLS.read_text().split() if f"{name}(" not in header] == []


def test_the_stripped_library_with_all_instruction_sets_is_small() -> None:
    assert LIBRARY.stat().st_size < 5_000_000


def test_a_device_needs_the_c_library_alone() -> None:
    needed = run("readelf", "-d", LIBRARY).stdout
    assert "libstdc++" not in needed
    assert "libgcc" not in needed


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device's program, built from the installed package alone by find_package."""
    tools, build = Path(sys.executable).parent, ROOT / "build" / "package"
    prefix, program = tmp_path_factory.mktemp("prefix"), tmp_path_factory.mktemp("device")
    ninja = f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"
    package = f"-DCMAKE_PREFIX_PATH={prefix}"
    for command in (
        ("-S", ROOT, "-B", build, "-G", "Ninja", ninja),
        ("--build", build, "--target", "voxelrt", "voxelrt_static"),
        ("--install", build, "--prefix", prefix),
        ("-S", Path(__file__).with_name("device"), "-B", program, "-G", "Ninja", ninja, package),
        ("--build", program),
    ):
        done = run(tools / "cmake", *command)
        assert done.returncode == 0, done.stdout + done.stderr
    return program


@pytest.mark.parametrize("kind", ["voxelrt", "static"])
def test_contexts_share_a_plan_and_agree(device: Path, tmp_path: Path, kind: str) -> None:
    plan, x = write_plan(tmp_path)
    files = [tmp_path / name for name in ("net.vxp", "in.f32", "out.f32")]
    done = run(device / f"device_{kind}", *files)
    assert done.returncode == 0, done.stderr
    assert "4 contexts" in done.stdout
    out = np.fromfile(tmp_path / "out.f32", np.float32).reshape(plan.outputs[0].dims)
    np.testing.assert_array_equal(out, plan(x))
    broken = run(device / f"device_{kind}", tmp_path / "none.vxp", *files[1:])
    assert broken.returncode == 1
    assert "status 8: the plan file cannot be opened" in broken.stderr


class _Options(ctypes.Structure):
    _fields_ = (("struct_size", ctypes.c_uint32), ("batch_capacity", ctypes.c_uint32), ("newer", ctypes.c_uint64))


@pytest.mark.parametrize(("size", "accepted"), [(8, True), (4, False), (16, False)])
def test_options_say_how_much_of_them_there_is(tmp_path: Path, size: int, accepted: bool) -> None:
    library = ctypes.CDLL(str(os.environ.get("VOXELRT_LIBRARY", LIBRARY)))
    library.voxelrt_error_message.restype = ctypes.c_char_p
    write_plan(tmp_path)
    plan, context, error = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    path = str(tmp_path / "net.vxp").encode()
    assert library.voxelrt_plan_open(path, None, ctypes.byref(plan), ctypes.byref(error)) == 0
    options = _Options(size, 1, 7)
    status = library.voxelrt_context_create(
        plan, None, ctypes.byref(options), ctypes.byref(context), ctypes.byref(error)
    )
    assert (status == 0) == accepted
    if accepted:
        library.voxelrt_context_release(context)
    else:
        assert b"struct_size" in library.voxelrt_error_message(error)
        library.voxelrt_error_release(error)
    library.voxelrt_plan_release(plan)
