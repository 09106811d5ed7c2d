"""The C example: a plan runs with no Python in the process and gives the same bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.native.prepare_example import SOURCE, compile_example, write_plan
from voxelrt.kernels.common import capi


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_example(tmp_path_factory.mktemp("example"))


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("packed", [True, False])
def test_the_c_example_gives_the_same_bytes(example: Path, tmp_path: Path, packed: bool) -> None:
    plan, x = write_plan(tmp_path, packed=packed)
    done = run(example, tmp_path / "net.vxp", tmp_path / "in.f32", tmp_path / "out.f32")
    assert done.returncode == 0, done.stderr
    assert capi.isa() in done.stdout
    out = np.fromfile(tmp_path / "out.f32", np.float32).reshape(plan.outputs[0].dims)
    np.testing.assert_array_equal(out, plan(x))


def test_the_c_example_names_what_is_wrong(example: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.vxp").write_bytes(b"x" * 200)
    done = run(example, tmp_path / "bad.vxp", "in", "out")
    assert done.returncode == 1
    assert "not a VoxelRT plan" in done.stderr
    missing = run(example, tmp_path / "none.vxp", "in", "out")
    assert "No such file" in missing.stderr


def test_no_python_is_in_the_process(example: Path) -> None:
    assert "python" not in run("ldd", example).stdout.lower()


def test_runs_after_the_first_allocate_nothing_and_fault_no_pages(tmp_path: Path) -> None:
    """Counted by the program's own malloc and by the kernel. The least of some runs: a worker that found nothing to do
    in the first run touches its stack and scratch in a later one.
    """
    write_plan(tmp_path)
    done = run(compile_example(tmp_path, SOURCE.with_name("steady.c")), tmp_path / "net.vxp", tmp_path / "in.f32")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0 allocations in 5 runs, 0 page faults in the least of them"), done.stdout
