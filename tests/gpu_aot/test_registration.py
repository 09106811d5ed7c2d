"""A whole registration network is one plan for GPUs: engines, and our kernels between them on the same memory.

The plan's steps are executed on a simulated device: engines as their typed ONNX in ONNX Runtime, kernels as the PTX
that the plan itself holds, in the interpreter. The answer is compared with the plan's CPU part.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import voxelrt as vx
from tests.emulation.simulated_driver import MisuseError, SimulatedDriver
from voxelrt.backends.cuda import CudaPlan
from voxelrt.errors import PlanError, ShapeError, UsageError
from voxelrt.kernels.common.gpu.cuda_compiler import nvcc
from voxelrt.models.architectures.layers import Layers
from voxelrt.models.architectures.recurrent import build_mdlstm
from voxelrt.models.architectures.volumes import build_deformable_registration
from voxelrt.plan.file import SectionKind
from voxelrt.plan.gpu_codes import choose, read_codes
from voxelrt.plan.gpu_steps import GpuPart, KernelStep, parts_of
from voxelrt.plan.plan import Plan

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX (the extra gpu-aot) is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime, the simulated device's engines, is not installed")
if nvcc() is None:
    pytest.skip("nvcc is not on PATH: CUDA kernels are not compiled", allow_module_level=True)

GRID = (8, 8, 12)
TOLERANCES = {"fp32": 5e-5, "fp16": 5e-3}


def _network() -> ir.Model:
    return build_deformable_registration((4, 4), (4, 4), (4,), GRID, steps=2, gain=8.0)


def _compiled(model: ir.Model, precision: str = "fp32", **options: Any) -> Plan:
    return vx.compile(model, device="cuda", arch=["sm_80"], precision=precision, tune="off", verify=False, **options)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return _compiled(_network())


def _simulated(plan: Plan, seed: int = 0, **options: Any) -> Any:
    def engines(plan: Plan, part: GpuPart, architecture: str) -> list[tuple[str, bytes]]:
        # What is deserialised on a GPU is taken here for what it was built of.
        assert len(parts_of(bytes(plan.section(SectionKind.ENGINES, architecture)))) == 1
        return [("simulated", b"")]

    return CudaPlan(plan, SimulatedDriver(seed, architecture="sm_80"), engines, **options)


def _inputs(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((1, 1, *GRID)).astype(np.float32) for name in ("moving", "fixed")}


def _error(out: Any, reference: Any) -> float:
    return float(np.linalg.norm(out - reference) / np.linalg.norm(reference))


def test_the_network_is_one_plan(plan: Plan) -> None:
    part = GpuPart.from_json(plan.info.settings["gpu"])
    assert [step.backend for step in part.steps] == ["tensorrt", "cuda", "cuda"]
    assert [step.op for step in part.steps if isinstance(step, KernelStep)] == ["integrate", "warp3d"]
    assert part.outputs == ("moved", "displacement")
    codes = read_codes(bytes(plan.section(SectionKind.KERNELS, "sm_80")))
    assert [code.name for code in codes] == ["integrate/cuda.cu", "warp3d/cuda.cu"]
    assert all(code.cubin[:4] == b"\x7fELF" and ".version" in code.ptx for code in codes)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_its_steps_give_the_cpu_s_answer(plan: Plan, precision: str) -> None:
    own = plan if precision == "fp32" else _compiled(_network(), precision)
    on_gpu, given = _simulated(own, seed=1), _inputs()
    out, reference = on_gpu.run(given), plan.run(given)
    assert set(out) == set(reference) == {"moved", "displacement"}
    assert float(np.abs(reference["displacement"]).max()) > 1  # voxels: the warp has something to do
    for name, expected in reference.items():
        assert _error(out[name], expected) < TOLERANCES[precision], name
    # The second time it is captured as a graph, then replayed; nothing more is allocated.
    driver, taken = on_gpu.driver, on_gpu.driver.allocations
    other = _inputs(1)
    for _ in range(2):
        again = on_gpu.run(other)
        assert all(_error(again[n], e) < TOLERANCES[precision] for n, e in plan.run(other).items())
    assert (driver.captured, driver.graph_launches, driver.allocations) == (1, 2, taken)
    on_gpu.close()
    assert driver.blocks == {}


def test_a_batch_is_launched_item_by_item() -> None:
    net = Layers(0, None)
    volume, field = net.input("volume", 1, 1, 4, 5, 6), net.input("field", 1, 3, 4, 5, 6)
    moved = net.our_op("Warp", net.conv(volume, 1, 2, 3, axes=3), field, mode="linear", padding="border")
    doubled = net.conv(moved, 2, 1, 1, axes=3)
    field_out = net.our_op("IntegrateVelocity", field, steps=1)
    model = net.finish("warped", out=(doubled, (1, 1, 4, 5, 6)), field_out=(field_out, (1, 3, 4, 5, 6)))
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape(["n", *list(value.shape or ())[1:]])
    shapes = {"volume": ((1, 2, 3), 1, 4, 5, 6), "field": ((1, 2, 3), 3, 4, 5, 6)}
    plan = _compiled(model, shapes=shapes)
    part = GpuPart.from_json(json.loads(json.dumps(plan.info.settings["gpu"])))
    assert [step.backend for step in part.steps].count("tensorrt") == 2
    assert all(step.repeated for step in part.steps if isinstance(step, KernelStep))
    assert part.batches == (1, 3)
    rng = np.random.default_rng(0)
    given = {name: rng.standard_normal((3, *part.values[name].dims[1:])).astype(np.float32) for name in shapes}

    on_gpu = CudaPlan(plan, SimulatedDriver(3, architecture="sm_80"), lambda *_: [("simulated", b"")] * 2)
    for batch in (3, 1, 2, 3, 3):
        some = {name: array[:batch] for name, array in given.items()}
        out, reference = on_gpu.run(some), plan.run(some)
        assert all(_error(out[name], reference[name]) < 5e-5 for name in reference)
    assert on_gpu.driver.captured == 1
    for wrong in (given | {"volume": given["volume"][:2]}, {n: np.repeat(a, 2, 0) for n, a in given.items()}):
        with pytest.raises(ShapeError):
            on_gpu.run(wrong)
    with pytest.raises(UsageError, match="missing field"):
        on_gpu.run({"volume": given["volume"]})


def test_lstms_in_all_directions_run_as_steps_of_the_plan_s_own_ptx() -> None:
    """MDLSTM's kernel, compiled into the plan, between engines."""
    plan = _compiled(build_mdlstm((4, 6), (4,)))
    part = GpuPart.from_json(json.loads(json.dumps(plan.info.settings["gpu"])))
    steps = [step for step in part.steps if isinstance(step, KernelStep)]
    assert {step.op for step in steps} == {"mdlstm"}
    count = sum(step.backend == "tensorrt" for step in part.steps)
    on_gpu = CudaPlan(plan, SimulatedDriver(4, architecture="sm_80"), lambda *_: [("simulated", b"")] * count)
    for seed in (0, 1):
        given = {"image": np.random.default_rng(seed).standard_normal((1, 1, 4, 6)).astype(np.float32)}
        out, reference = on_gpu.run(given), plan.run(given)
        assert _error(out["logits"], reference["logits"]) < 5e-5
    assert on_gpu.driver.launches > 0
    on_gpu.close()
    assert on_gpu.driver.blocks == {}


def test_a_kernel_that_gets_another_s_arguments_shows(plan: Plan) -> None:
    """The proof above can fail: one wrong number in the plan's launches, and it does."""
    raw = json.loads(json.dumps(plan.info.settings["gpu"]))
    warp = raw["steps"][2]["launches"][0]
    row = next(i for i, a in enumerate(warp["arguments"]) if a.get("type") == "i64" and a["bits"] == "0c" + "00" * 7)
    warp["arguments"][row]["bits"] = "0b" + "00" * 7
    wrong = plan.with_info(replace(plan.info, settings={**plan.info.settings, "gpu": raw}))
    with pytest.raises(MisuseError, match="read before they were written"):
        _simulated(wrong).run(_inputs())


def test_a_newer_gpu_runs_the_ptx() -> None:
    assert choose(["sm_80", "sm_86"], "sm_86") == ("sm_86", True)
    assert choose(["sm_80", "sm_86"], "sm_103") == ("sm_86", False)
    with pytest.raises(PlanError, match="--arch sm_75"):
        choose(["sm_80"], "sm_75")


def test_damaged_steps_are_errors(plan: Plan) -> None:
    raw = json.loads(json.dumps(plan.info.settings["gpu"]))

    def damaged(edit: Any) -> None:
        copy = json.loads(json.dumps(raw))
        edit(copy)
        with pytest.raises(PlanError):
            GpuPart.from_json(copy)

    kernel = 2
    damaged(lambda r: r["steps"][kernel].update(inputs=["nothing"]))
    damaged(lambda r: r["steps"][kernel]["buffers"][0].update(bytes=1 << 50))
    damaged(lambda r: r["steps"][kernel]["buffers"][0].update(bytes=4))
    damaged(lambda r: r["steps"][kernel]["buffers"][0].update(kind="other"))
    damaged(lambda r: r["steps"][kernel]["launches"][0].update(code=9))
    damaged(lambda r: r["steps"][kernel]["launches"][0].update(grid=[1, 1]))
    damaged(lambda r: r["steps"][kernel]["launches"][0].update(block=[1024, 2, 1]))
    damaged(lambda r: r["steps"][kernel]["launches"][0]["arguments"][0].update(offset=1 << 30))
    damaged(lambda r: r["steps"][kernel]["launches"][0]["arguments"][0].update(buffer=77))
    damaged(lambda r: r["values"].pop("moved"))
    damaged(lambda r: r.update(outputs=["nothing"]))
    damaged(lambda r: r["steps"].reverse())
    section = bytes(plan.section(SectionKind.KERNELS, "sm_80"))
    for cut in (section[:-1], section + b"x", b"[2]\n{}", b"[2]\n[]"[:-1] + b"[", b""):
        with pytest.raises(PlanError):
            read_codes(cut)
