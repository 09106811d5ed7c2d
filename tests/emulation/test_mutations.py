"""What is broken is noticed: a removed barrier, a wrong bound, a swapped index, a copy nobody waits for."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.emulation import ptx_runner, shim_runner
from tests.emulation.mutants import cuda as center
from tests.emulation.ptx.errors import BarrierError, OutOfBoundsError, RaceError, UninitialisedError
from voxelrt.kernels.common.gpu.program import Program

SOURCE = Path(center.__file__).with_name("cuda.cu")
SEEDS = range(3)
RNG = np.random.default_rng(7)
X = RNG.normal(size=(3, 301)).astype(np.float32)[:, :299]
CENTERED = X - X.astype(np.float64).mean(axis=1, keepdims=True)


def once(old: str, new: str, count: int = 1) -> Callable[[str], str]:
    def mutate(text: str) -> str:
        assert old in text, f"{old!r} is not in the code: the mutation would change nothing"
        return text.replace(old, new, count)

    return mutate


def _relative(out: Any, expected: Any) -> float:
    return float(np.linalg.norm(out - expected) / np.linalg.norm(expected))


# ---- CUDA in the shim: the source is changed ----

SOURCE_MUTATIONS = {
    "first barrier removed": once("__syncthreads(); // the first", "// the first"),
    "second barrier removed": once("__syncthreads(); // the second", "// the second"),
    "barrier in a branch": once("+= sums[thread + half];", "+= sums[thread + half], __syncthreads();"),
    "wrong bound of a row": once("i < columns; i", "i <= columns; i", 2),
    "wrong bound of the tree": once("thread < half", "thread <= half"),
    "swapped index": once("blockIdx.x * columns + i", "i * gridDim.x + blockIdx.x"),
    "shared memory too small": once("sums[thread] = sum", "sums[thread + 1] = sum"),
}


@pytest.mark.usefixtures("needs_cuda_headers")
def test_the_shim_runs_the_sound_kernel(build_folder: Path) -> None:
    for seed in SEEDS:
        assert _relative(shim_runner.run(center.program(X), seed, build_folder, center.ENTRIES), CENTERED) < 1e-6


@pytest.mark.usefixtures("needs_cuda_headers")
@pytest.mark.parametrize("name", SOURCE_MUTATIONS)
def test_the_shim_notices(name: str, build_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "cuda.cu"
    broken.write_text(SOURCE_MUTATIONS[name](SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
    noticed = []
    for seed in SEEDS:
        try:
            out = shim_runner.run(center.program(X), seed, tmp_path, center.ENTRIES, broken)
        except shim_runner.ShimError:
            noticed.append(True)
        else:
            noticed.append(not _relative(out, CENTERED) < 1e-6)
    assert any(noticed)


# ---- nvcc's code of the same sources, in the interpreter ----


def _interpret(source: Path, seed: int) -> Any:
    made = center.program(X)
    made.source = source
    return ptx_runner.run(made, 80, seed)


@pytest.mark.usefixtures("needs_nvcc")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_interpreter_runs_the_sound_kernel(seed: int) -> None:
    assert _relative(_interpret(SOURCE, seed), CENTERED) < 1e-6


@pytest.mark.usefixtures("needs_nvcc")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("first barrier removed", (RaceError, UninitialisedError)),
        ("second barrier removed", RaceError),
        ("barrier in a branch", BarrierError),
        ("wrong bound of a row", (OutOfBoundsError, UninitialisedError, RaceError)),
        ("wrong bound of the tree", (RaceError, OutOfBoundsError, UninitialisedError)),
        ("shared memory too small", OutOfBoundsError),
    ],
)
def test_the_interpreter_notices(name: str, error: Any, seed: int, tmp_path: Path) -> None:
    broken = tmp_path / "cuda.cu"
    broken.write_text(SOURCE_MUTATIONS[name](SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(error):
        _interpret(broken, seed)


@pytest.mark.usefixtures("needs_nvcc")
def test_a_swapped_index_gives_wrong_numbers(tmp_path: Path) -> None:
    broken = tmp_path / "cuda.cu"
    broken.write_text(SOURCE_MUTATIONS["swapped index"](SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
    assert _relative(_interpret(broken, 0), CENTERED) > 0.1


@pytest.mark.usefixtures("needs_nvcc")
def test_a_read_of_a_gap_between_rows_is_noticed() -> None:
    made = center.program(X)
    launch = made.launches[0]
    longer = (*launch.arguments[:2], np.int64(300), launch.arguments[3])
    made.launches[0] = dataclasses.replace(launch, arguments=longer)
    with pytest.raises((UninitialisedError, OutOfBoundsError)):
        ptx_runner.run(made, 80)


# ---- Triton's code: pipelined copies and tensor cores ----


@pytest.fixture(scope="module")
def product() -> tuple[Program, Any]:
    pytest.importorskip("triton", reason="triton is not installed: pip install 'voxelrt[gpu-aot]'")
    module = importlib.import_module("tests.emulation.mutants.triton")
    a, b = RNG.normal(size=(48, 176)).astype(np.float16), RNG.normal(size=(176, 40)).astype(np.float16)
    return module.program(a, b), a.astype(np.float64) @ b.astype(np.float64)


def _later_waits(text: str) -> str:
    assert "cp.async.wait_group" in text
    return re.sub(r"(cp\.async\.wait_group\s+)(\d+)", lambda m: f"{m[1]}{int(m[2]) + 1}", text)


def _swapped_fragments(text: str) -> str:
    found = re.search(r"mma\.sync\S+ \{[^}]*\}, \{ (%r\d+), (%r\d+)", text)
    assert found
    return text.replace(f"{{ {found[1]}, {found[2]}", f"{{ {found[2]}, {found[1]}", 1)


TRITON_MUTATIONS: dict[str, tuple[Callable[[str], str], Any]] = {
    "barriers removed": (lambda text: text.replace("bar.sync", "// bar.sync"), (RaceError, UninitialisedError)),
    "waits for one copy less": (_later_waits, UninitialisedError),
    "wrong bounds": (
        lambda text: re.sub(r"setp\.lt\.s64", "setp.le.s64", text),
        (OutOfBoundsError, UninitialisedError, RaceError),
    ),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sound_product_is_right(product: tuple[Program, Any], seed: int) -> None:
    assert _relative(ptx_runner.run(product[0], 80, seed), product[1]) < 1e-6


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", TRITON_MUTATIONS)
def test_broken_products_are_noticed(product: tuple[Program, Any], name: str, seed: int) -> None:
    mutate, error = TRITON_MUTATIONS[name]
    with pytest.raises(error):
        ptx_runner.run(product[0], 80, seed, mutate)


def test_swapped_fragments_give_wrong_numbers(product: tuple[Program, Any]) -> None:
    assert _relative(ptx_runner.run(product[0], 80, 0, _swapped_fragments), product[1]) > 0.1
