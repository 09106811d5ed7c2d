"""A plan's GPU part on a real GPU gives the CPU's answer, from graphs too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import voxelrt as vx
from voxelrt.backends.cuda import CudaPlan, find_engines
from voxelrt.backends.cupy_driver import CupyDriver
from voxelrt.models.architectures.unet3d import FEATURES_SMALL, build_unet3d
from voxelrt.models.architectures.volumes import build_deformable_registration
from voxelrt.plan.gpu_steps import EngineOptions

QUICKLY = EngineOptions(effort=1)  # answers are wanted here, not speed
TOLERANCES = {"fp32": 5e-5, "tf32": 5e-3, "fp16": 5e-3, "bf16": 3e-2}


def _agrees(model: Any, precision: str, **options: Any) -> None:
    driver = CupyDriver(0, "this test")
    arch = [driver.architecture]
    options = {"engine": QUICKLY} | options | {"arch": arch, "precision": precision, "tune": "off", "verify": False}
    plan = vx.compile(model, device="cuda", **options)
    on_gpu = CudaPlan(plan, driver, find_engines(driver.name, driver.driver_version))
    first = {io.name: np.random.default_rng(0).standard_normal(io.dims).astype(np.float32) for io in plan.inputs}
    second = {name: array[..., ::-1].copy() for name, array in first.items()}
    answers = []
    for given in (first, second, first):  # launched, captured, replayed
        out, reference = on_gpu.run(given), plan.run(given)
        for name, expected in reference.items():
            error = float(np.linalg.norm(out[name] - expected) / np.linalg.norm(expected))
            assert error < TOLERANCES[precision], f"{name}: {error:.3g}"
        answers.append(out)
    assert all((answers[0][name] == answers[2][name]).all() for name in answers[0])
    on_gpu.close()


@pytest.mark.gpu
@pytest.mark.usefixtures("builds_engines")
@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_gpu_gives_the_cpu_s_answer(precision: str) -> None:
    _agrees(build_unet3d(FEATURES_SMALL, (16, 16, 16)), precision)


@pytest.mark.gpu
@pytest.mark.usefixtures("builds_engines")
@pytest.mark.parametrize("precision", TOLERANCES)
def test_norms_by_our_kernels_give_it_too(precision: str) -> None:
    _agrees(build_unet3d(FEATURES_SMALL, (16, 16, 16)), precision, engine=EngineOptions(effort=1, norms="kernels"))


@pytest.mark.gpu
@pytest.mark.usefixtures("builds_engines")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_registration_network_runs_with_our_kernels_between(precision: str) -> None:
    _agrees(build_deformable_registration(grid=(32, 32, 32), gain=8.0), precision)
