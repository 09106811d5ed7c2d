"""What `make gpu-acceptance` runs, line by line, on CuPy and TensorRT that are simulated: `tests/gpu` and `bench/gpu`.

The answers are our kernels' own PTX and the engines' typed ONNX; times mean nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.gpu import __main__ as bench
from bench.gpu import rows, scale
from bench.gpu.contest import SUBJECT
from tests.emulation import simulated_cupy
from tests.emulation.simulated_cupy import World
from tests.emulation.simulated_driver import SimulatedDriver
from tests.emulation.simulated_tensorrt import Builder
from tests.emulation.test_device_arrays import Theirs
from tests.gpu import test_device_arrays as test_arrays
from tests.gpu import test_kernels, test_plan, test_studies
from voxelrt.backends.cupy_driver import CupyDriver
from voxelrt.backends.tensorrt_libraries import Library
from voxelrt.kernels.common.kernel import entries
from voxelrt.models.architectures.unet3d import build_unet3d
from voxelrt.models.architectures.volumes import build_deformable_registration
from voxelrt.plan.dlpack import borrow
from voxelrt.plan.gpu_steps import EngineOptions

pytest.importorskip("onnxruntime", reason="ONNX Runtime, the simulated device's engines, is not installed")
pytestmark = pytest.mark.usefixtures("needs_nvcc")

TINY = scale.Scale(8, (4, 8), (8, 8, 12), warp=5, velocity=5, steps=2, noisy=4, search=1)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    """An H100 or H200, as far as its architecture goes: engines are built where it is, by TensorRT."""
    monkeypatch.setenv("VOXELRT_CACHE", str(tmp_path / "cache"))
    made = simulated_cupy.install(monkeypatch, SimulatedDriver(1, 0.5, 1 << 24, "sm_90"))
    Builder.built.clear()
    caches = rows.driver, rows._plan, rows._windows_plan, rows._labels_of_cpu
    for cache in caches:
        cache.cache_clear()
    yield made
    for cache in caches:
        cache.cache_clear()
    simulated_cupy.device.open_device.cache_clear()


def test_the_bench_runs_to_its_report(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "QUICK", TINY)
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    names = [row.name for row in rows.all_rows(TINY) if row.name != "median"]  # whose kernel takes long to interpret
    arguments = ["--quick", "--rounds", "1", "--report", str(page), "--json", str(figures), "--rows", ",".join(names)]
    assert bench.main(arguments) == 0
    found = json.loads(figures.read_text())["rows"]
    assert [row["row"] for row in found] == names
    for row in found:
        ours = next(timed for timed in row["timed"] if timed["name"] == SUBJECT)
        assert not row["error"] + ours["error"]
        assert len(ours["seconds"]) == 1
        both = [timed for timed in row["timed"] if timed["name"] in (SUBJECT, rows.APART)]
        assert not any(timed["error"] for timed in both)
        assert all(timed["error"] for timed in row["timed"] if timed not in both)
    assert "| **voxelrt** |" in page.read_text()
    assert f"| {rows.APART} |" in page.read_text()
    assert world.pushed == []
    assert world.driver.captured


def test_without_a_library_of_engines_the_kernels_are_measured_all_the_same(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Library, "is_here", property(lambda self: False))
    monkeypatch.setattr(scale, "QUICK", TINY)
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    arguments = ["--quick", "--rounds", "1", "--report", str(page), "--json", str(figures), "--rows"]
    assert bench.main([*arguments, "unet3d-8-fp16,study-fp16,warp3d"]) == bench.SKIPPED
    network, study, warp = json.loads(figures.read_text())["rows"]
    assert "voxelrt[gpu" in network["error"]
    assert ["voxelrt[gpu" in timed["error"] for timed in study["timed"] if timed["name"] == SUBJECT] == [True]
    assert [len(timed["seconds"]) for timed in warp["timed"] if timed["name"] == SUBJECT] == [1]


def test_the_tests_of_plans_pass(world: World) -> None:
    test_plan._agrees(build_unet3d((4, 8), (8, 8, 8)), "fp32")
    network = build_deformable_registration((4, 4), (4, 4), (4,), (4, 4, 8), steps=2, gain=8.0)
    test_plan._agrees(network, "fp16")
    assert world.driver.graph_launches > 2


def test_the_tests_of_arrays_pass(world: World) -> None:
    stream = world.driver.stream()

    def fetch(answer: Any) -> Any:
        taken = borrow(answer, world.keep(stream), 0)
        found = list[bytes]()
        world.driver.put(stream, lambda: found.append(world.driver.read(taken.address, taken.nbytes)))
        world.driver.settle()
        return np.frombuffer(found[0], np.float32).reshape(taken.shape)

    test_arrays.check_arrays(lambda array: InWorld(world, array, stream), fetch, "voxelrt")


class InWorld(Theirs):
    """An array of another library whose reader's stream is a handle of the simulated CuPy's."""

    def __init__(self, world: World, array: np.ndarray, stream: Any) -> None:
        super().__init__(world.driver, array, stream)
        self._world = world

    def __dlpack__(self, *, stream: int | None = None, **others: Any) -> Any:
        return super().__dlpack__(stream=self.driver.number(self._world[stream or 1]), **others)


@pytest.mark.slow  # the bench above has it in fp16
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_norms_by_our_kernels_give_the_cpu_s_answer(world: World, precision: str) -> None:
    before = world.driver.launches
    apart = EngineOptions(norms="kernels")
    test_plan._agrees(build_unet3d((4, 8), (8, 8, 8)), precision, engine=apart)
    # Six norms of three kernels each: launched once, and once more into the graph that is then replayed.
    assert world.driver.launches - before == 2 * 6 * 3
    assert len(Builder.built) == 7


@pytest.mark.slow
def test_the_tests_of_studies_pass(world: World, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    test_studies.test_the_driver_does_what_the_simulated_one_does()
    plans = test_studies.compiled_cases(tmp_path_factory.mktemp("nnunet"), ["slices"])
    test_studies.check_case(plans["slices"], "slices", tmp_path, mirroring=False, step=1.0)


@pytest.mark.parametrize("op", ["copy", "warp3d", "integrate"])
def test_the_tests_of_kernels_pass(world: World, op: str) -> None:
    kernel = entries()[op]
    small = replace(kernel, cases=kernel.cases[:2], gpu_cases=())
    test_kernels.test_cases(small, "cuda")
    assert world.driver.launches > 0


def test_a_gpu_s_errors_are_ours(world: World) -> None:
    from voxelrt.errors import DeviceError, EngineError
    from voxelrt.runtime.gpu_driver import DeviceMemoryError, LostDeviceError

    driver = CupyDriver(0, "this test")
    assert (driver.name, driver.architecture, driver.driver_version) == ("NVIDIA Simulated", "sm_90", "13000")
    with pytest.raises(DeviceError, match="no GPU 1"):
        CupyDriver(1, "this test")
    with pytest.raises(DeviceMemoryError):
        driver.allocate(1 << 40)
    with pytest.raises(DeviceError, match="400"):
        driver.synchronize(3)
    with pytest.raises(EngineError, match="damaged"):
        driver.engine(b"nothing", "tensorrt", b"")
    stream, event, address = driver.stream(), driver.event(), driver.allocate(64)
    world.driver.lose_after = 0
    with pytest.raises(LostDeviceError, match="start the program again"):
        driver.clear(stream, address, 64)
        driver.record(event, stream)
        driver.synchronize(event)


def test_engines_are_built_once_with_their_options_and_take_other_weights(world: World, tmp_path: Path) -> None:
    import voxelrt as vx
    from voxelrt.backends.cuda import CudaPlan, find_engines

    driver, told = CupyDriver(0, "this test"), list[tuple[str, int, int]]()
    x = np.random.default_rng(0).standard_normal((1, 1, 8, 8, 8)).astype(np.float32)
    answers = []
    for seed in (0, 0, 1):
        options: dict[str, Any] = {"device": "cuda", "arch": ["sm_90"], "tune": "off", "verify": False}
        plan = vx.compile(
            build_unet3d((4, 8), (8, 8, 8), seed=seed),
            engine=EngineOptions(workspace=1 << 20, effort=1, refit=True),
            **options,
        )
        engines = find_engines(driver.name, driver.driver_version, lambda *row: told.append(row))
        on_gpu = CudaPlan(plan, driver, engines)
        answers.append(on_gpu.run({"input": x}))
        (name,) = answers[-1]
        np.testing.assert_allclose(answers[-1][name], plan(x), rtol=1e-3, atol=1e-4)
        on_gpu.close()
    (built,) = Builder.built
    assert (built.builder_optimization_level, set(built.pools.values())) == (1, {1 << 20})
    assert told == [("Building Engine", 1, 2), ("Building Engine", 2, 2)]
    kept = sorted(path.suffix for path in (tmp_path / "cache" / "engines").iterdir())
    assert kept == [".engine", ".lock", ".timings"]
