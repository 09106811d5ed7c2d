"""The C example: a plan runs with no Python in the process and gives the same bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import voxelrt as vx
from voxelrt.kernels.common import native
from voxelrt.models.architectures.unet3d import build_unet3d

HERE = Path(__file__).parent
GCC = ("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled example beside a copy of the library that this test runs with."""
    library = Path(native.__file__).with_name("libvoxelrt.so")
    program = tmp_path_factory.mktemp("example") / "native_example"
    header = Path(native.__file__).parent
    subprocess.run(
        [
            *GCC,
            f"-I{header}",
            str(HERE / "example.c"),
            str(library),
            f"-Wl,-rpath,{library.parent}",
            "-o",
            str(program),
        ],
        check=True,
    )
    return program


@pytest.mark.parametrize("packed", [True, False])
def test_the_c_example_gives_the_same_bytes(example: Path, tmp_path: Path, packed: bool) -> None:
    model = build_unet3d(features=(8, 16), patch=(16, 16, 16), classes=3, channels=1, seed=1)
    plan = vx.compile(model, fallback="error")
    plan.save(tmp_path / "net.vxp", packed=packed)
    x = np.random.default_rng(0).random(plan.inputs[0].dims, np.float32)
    x.tofile(tmp_path / "in.f32")
    done = subprocess.run(
        [str(example), str(tmp_path / "net.vxp"), str(tmp_path / "in.f32"), str(tmp_path / "out.f32")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert native.isa() in done.stdout
    out = np.fromfile(tmp_path / "out.f32", np.float32).reshape(plan.outputs[0].dims)
    np.testing.assert_array_equal(out, plan(x))


def test_the_c_example_names_what_is_wrong(example: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.vxp").write_bytes(b"x" * 200)
    done = subprocess.run(
        [str(example), str(tmp_path / "bad.vxp"), "in", "out"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "not a VoxelRT plan" in done.stderr
    linked = subprocess.run(["ldd", str(example)], capture_output=True, text=True, check=True).stdout
    assert "python" not in linked.lower()
