"""Studies through plans for GPUs: an nnU-Net folder compiled for four, and a case run on two that are simulated."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import voxelrt as vx
from tests.emulation.simulated_driver import SimulatedDriver
from tests.pipeline import test_nnunet_run as cases
from voxelrt.cli import main
from voxelrt.errors import PlanError, UsageError
from voxelrt.kernels.common.gpu.cuda_compiler import nvcc
from voxelrt.plan.file import SectionKind
from voxelrt.plan.gpu_codes import read_codes, window_codes
from voxelrt.plan.gpu_steps import GpuPart
from voxelrt.plan.plan import Plan
from voxelrt.runtime.gpu_pool import LeastLoaded
from voxelrt.runtime.gpu_run import GpuPlan
from voxelrt.runtime.session import Session

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX (the extra gpu-aot) is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime, the simulated device's engines, is not installed")
if nvcc() is None:
    pytest.skip("nvcc is not on PATH: CUDA kernels are not compiled", allow_module_level=True)

ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_120"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tarfile

    root = tmp_path_factory.mktemp("nnunet")
    with tarfile.open(cases.FOLDERS) as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture(scope="module")
def plan(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """As the command makes it."""
    out = tmp_path_factory.mktemp("plans") / "flat.vxp"
    arguments = ["compile", str(folder / "Dataset803_Flat"), "-o", str(out), "--tune", "off", "--no-verify"]
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--device", "cuda", "--arch", ",".join(ARCHITECTURES), "--quiet"])
    return Plan.open(out)


def _engines(plan: Plan, part: GpuPart, architecture: str) -> list[tuple[str, bytes]]:
    assert part.architectures[architecture] == "engine"
    return [("simulated", b"")]


def _gpus(count: int) -> list[Any]:
    drivers = [SimulatedDriver(seed, 0.5, 1 << 24, "sm_86") for seed in range(count)]
    return [(driver, _engines) for driver in drivers]


def test_the_command_compiles_a_folder_for_four_gpus(plan: Plan) -> None:
    part = GpuPart.from_json(plan.info.settings["gpu"])
    assert part.architectures == dict.fromkeys(ARCHITECTURES, "engine")
    assert part.batches == (1, 4)
    for architecture in ARCHITECTURES:
        assert len(window_codes(read_codes(bytes(plan.section(SectionKind.KERNELS, architecture))))) == 3


def test_cases_on_two_gpus_get_the_cpu_s_labels(plan: Plan, tmp_path: Path) -> None:
    study = cases._study("slices", plan, tmp_path)
    options: dict[str, Any] = {"mirroring": False, "step": 1.0}
    expected = vx.predict(plan, study, **options).labels.array
    gpus, said = _gpus(2), list[str]()
    on_gpu = plan.on_gpu(lambda part: GpuPlan(part, gpus))
    found = vx.predict(on_gpu, study, say=said.append, **options).labels.array
    union = int(((found != 0) | (expected != 0)).sum())
    assert union > 1000
    assert int((found != expected).sum()) <= union * 1e-4
    assert any("windows at once" in line for line in said)
    assert gpus[0][0].launches > 10
    with pytest.raises(UsageError, match="CPU only"):
        vx.predict(on_gpu, study, source_rounding=True)
    with pytest.raises(UsageError, match="memory"):
        vx.predict(on_gpu, study, memory="1KiB", **options)
    with Session(on_gpu, **options) as session:
        (result,) = session.map([study])
    assert (result.labels.array == found).all()
    assert on_gpu.gpu is not None
    on_gpu.gpu.close()
    assert [driver.blocks for driver, _ in gpus] == [{}, {}]


def test_a_plan_without_a_gpu_part_says_how_to_make_one(folder: Path) -> None:
    plain = vx.compile(folder / "Dataset803_Flat", tune="off", verify=False)
    with pytest.raises(PlanError, match="--device cuda --arch"):
        plain.on_gpu(lambda part: GpuPlan(part, _gpus(1)))


def test_work_goes_to_the_gpu_with_the_least_of_it() -> None:
    pool, taken, first = LeastLoaded(["a", "b"]), list[str](), threading.Event()

    def use(load: int, wait: bool) -> None:
        with pool.take(load) as worker:
            taken.append(worker)
            if wait:
                first.wait(10)

    holder = threading.Thread(target=use, args=(10, True))
    holder.start()
    while not taken:
        pass
    use(3, False)
    use(3, False)
    first.set()
    holder.join()
    use(1, False)
    assert taken == ["a", "b", "b", "a"]
    assert np.sum(pool._loads) == 0
