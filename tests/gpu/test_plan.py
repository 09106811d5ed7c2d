"""A plan's GPU part on a real GPU gives the CPU's answer."""

from __future__ import annotations

import numpy as np
import pytest

import voxelrt as vx
from voxelrt.kernels.common.gpu.device import open_device
from voxelrt.models.architectures.unet3d import FEATURES_SMALL, build_unet3d

TOLERANCES = {"fp32": 5e-5, "tf32": 5e-3, "fp16": 5e-3, "bf16": 3e-2}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_gpu_gives_the_cpu_s_answer(precision: str) -> None:
    from voxelrt.backends.cuda import CudaPlan

    architecture = f"sm_{open_device('this test').target}"
    model = build_unet3d(FEATURES_SMALL, (16, 16, 16))
    plan = vx.compile(model, device="cuda", arch=[architecture], precision=precision, tune="off", verify=False)
    x = np.random.default_rng(0).standard_normal((1, 1, 16, 16, 16)).astype(np.float32)
    on_gpu = CudaPlan(plan)
    (out,) = on_gpu.run({"input": x}).values()
    reference = plan(x)
    assert float(np.linalg.norm(out - reference) / np.linalg.norm(reference)) < TOLERANCES[precision]
    (again,) = on_gpu.run({"input": x}).values()
    assert (again == out).all()
