"""Arrays of CuPy and torch that lie on the GPU, written by streams of theirs, through a plan and back to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import voxelrt as vx
from voxelrt.backends.cuda import CudaPlan, find_engines
from voxelrt.backends.cupy_driver import CupyDriver
from voxelrt.models.architectures.unet3d import build_unet3d
from voxelrt.plan.gpu_steps import EngineOptions

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("builds_engines")]


def check_arrays(give: Callable[[Any], Any], fetch: Callable[[Any], Any], kind: str) -> None:
    """Some runs in a row on arrays of the GPU: the CPU's answers, each in an array of the library that gave the input.

    give : puts an array on the GPU, by a stream that is late. fetch : brings an answer to the host.
    """
    driver = CupyDriver(0, "this test")
    options: dict[str, Any] = {"arch": [driver.architecture], "tune": "off", "verify": False}
    plan = vx.compile(build_unet3d((4, 8), (8, 8, 8)), device="cuda", engine=EngineOptions(effort=1), **options)
    on_gpu = CudaPlan(plan, driver, find_engines(driver.name, driver.driver_version))
    x = [np.random.default_rng(seed).standard_normal((1, 1, 8, 8, 8)).astype(np.float32) for seed in range(4)]
    (name,) = plan.output_names
    found = []
    for array in x:  # given up before it was read
        answer = on_gpu.run({"input": give(array)})[name]
        assert type(answer).__module__.partition(".")[0] == kind
        found.append(fetch(answer))
    kept = [on_gpu.run({"input": give(array)})[name] for array in x]  # all at once
    for array, one, other in zip(x, found, kept, strict=True):
        expected = plan(array)
        for answer in (one, fetch(other)):
            assert float(np.linalg.norm(answer - expected) / np.linalg.norm(expected)) < 5e-5
    on_gpu.close()


def test_cupy_arrays() -> None:
    import cupy

    if not hasattr(cupy, "ndarray"):
        pytest.skip("this CuPy is simulated, without its arrays")
    stream = cupy.cuda.Stream(non_blocking=True)

    def give(array: Any) -> Any:
        with stream:
            slow = cupy.asarray(array)
            for _ in range(200):
                slow = -slow
            return slow

    def fetch(answer: Any) -> Any:
        with stream:
            return cupy.asnumpy(answer * cupy.float32(1))

    check_arrays(give, fetch, "cupy")


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: its tensors are not tried")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    stream = torch.cuda.Stream()

    def give(array: Any) -> Any:
        with torch.cuda.stream(stream):
            slow = torch.from_numpy(array).cuda()
            torch.cuda._sleep(10_000_000)
            return slow * 1.0

    check_arrays(give, lambda answer: answer.cpu().numpy(), "torch")
