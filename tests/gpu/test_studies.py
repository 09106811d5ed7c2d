"""Studies on a real GPU: the scheduler's streams, copies and graphs, against the CPU's labels."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import voxelrt as vx
from tests.pipeline import test_nnunet_run as cases
from voxelrt.backends.cupy_driver import CupyDriver
from voxelrt.plan.gpu_steps import EngineOptions
from voxelrt.plan.plan import Plan
from voxelrt.runtime.gpu_driver import DeviceMemoryError
from voxelrt.runtime.gpu_run import GpuPlan, open_gpus
from voxelrt.runtime.session import Session


def compiled_cases(root: Path, names: Iterable[str]) -> dict[str, Plan]:
    """The models of some cases, compiled for the GPU that is here."""
    with tarfile.open(cases.FOLDERS) as archive:
        archive.extractall(root, filter="data")
    options: dict[str, Any] = {"device": "cuda", "arch": [CupyDriver(0, "this test").architecture]}
    options |= {"tune": "off", "verify": False, "engine": EngineOptions(effort=1)}
    return {case: vx.compile(root / cases.MODELS[case], **options) for case in names}


def check_case(plan: Plan, case: str, folder: Path, **options: Any) -> None:
    """The GPU's labels are the CPU's, alone and in a session whose studies share batches."""
    gpus, study = open_gpus("this test"), cases._study(case, plan, folder)
    expected = vx.predict(plan, study, **options).labels.array
    on_gpu = plan.on_gpu(lambda part: GpuPlan(part, gpus))

    def right(found: Any) -> bool:
        union = int(((found != 0) | (expected != 0)).sum())
        return int((found != expected).sum()) <= union * 1e-3

    assert right(vx.predict(on_gpu, study, **options).labels.array)
    with Session(on_gpu, **options) as session:
        assert all(right(result.labels.array) for result in session.map([study, study]))
    assert on_gpu.gpu is not None
    on_gpu.gpu.close()


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory, builds_engines: None) -> dict[str, Plan]:
    return compiled_cases(tmp_path_factory.mktemp("nnunet"), cases.MODELS)


@pytest.mark.gpu
@pytest.mark.parametrize("case", cases.MODELS)
def test_a_case_gets_the_cpu_s_labels(plans: dict[str, Plan], case: str, tmp_path: Path) -> None:
    check_case(plans[case], case, tmp_path)


@pytest.mark.gpu
def test_the_driver_does_what_the_simulated_one_does() -> None:
    driver = CupyDriver(0, "this test")
    free, total = driver.memory()
    assert 0 < free <= total
    stream, event = driver.stream(), driver.event()
    data = driver.allocate_host(1 << 20)
    data[:] = np.random.default_rng(0).integers(0, 255, data.size, np.uint8)
    back, address, other = driver.allocate_host(1 << 20), driver.allocate(1 << 20), driver.allocate_mapped(1 << 20)
    driver.upload(stream, address, data)
    driver.copy(stream, other, address, 1 << 20)
    driver.clear(stream, other, 16)
    driver.download(stream, back, other)
    driver.record(event, stream)
    driver.synchronize(event)
    assert driver.finished(event)
    assert (back[:16] == 0).all()
    assert (back[16:] == data[16:]).all()
    with pytest.raises(DeviceMemoryError):
        driver.allocate(1 << 50)
    driver.free(address)
    driver.free_mapped(other)
