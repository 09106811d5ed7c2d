"""Every network of models/architectures for every GPU that TensorRT-RTX builds for: `make test-gpu-matrix`.

What engines are built of is run by ONNX Runtime and agrees with the network within its precision's tolerance.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import voxelrt as vx
from voxelrt.errors import EngineError, ModelError, UnsupportedError, UsageError
from voxelrt.graph.passes import spell_domain
from voxelrt.graph.specialise import specialise
from voxelrt.kernels.common.kernel import GPU_BACKENDS, entries
from voxelrt.models.architectures.named import ARCHITECTURES
from voxelrt.models.architectures.unet3d import FEATURES_SMALL
from voxelrt.plan.file import SectionKind
from voxelrt.plan.gpu import at_shapes, gpu_part
from voxelrt.plan.gpu_steps import EngineOptions, EngineStep, KernelStep, parts_of

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX (the extra gpu-aot) is not installed")
ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime, the executor of this test, is not installed")
pytestmark = pytest.mark.slow

SMALL: dict[str, dict[str, Any]] = {
    "unet3d": {"features": FEATURES_SMALL, "patch": (16, 16, 16)},
    "deformable_registration": {"grid": (16, 16, 16)},
    "registration": {"grid": (16, 16, 16)},
    "dncnn3d": {"depth": 5, "width": 8, "grid": (8, 8, 8)},
}
# The first dimension is time (conv_lstm), is moved inwards (mdlstm), or a reshape of the network's own says it is one.
FIXED = {"cine", "classifier3d", "conv_lstm", "densenet", "hierarchical_lstm", "mdlstm", "window_attention"}
TARGETS = {"fp32": ["sm_80", "sm_86", "sm_89", "sm_120"], "fp16": ["sm_75", "sm_80", "sm_86", "sm_89", "sm_120"]}
TOLERANCES = {"fp32": 5e-5, "fp16": 5e-3}


def _network(name: str) -> tuple[ir.Model, dict[str, Any]]:
    """The network with an open batch, and its shapes."""
    model, shapes = ARCHITECTURES[name](**SMALL.get(name, {})), dict[str, Any]()
    for value in model.graph.inputs:
        dims = [int(d) for d in value.shape or ()]  # type: ignore[arg-type]
        if name not in FIXED:
            value.shape = ir.Shape(["batch", *dims[1:]])
            shapes[str(value.name)] = ((1, 2, 4), *dims[1:])
    for value in model.graph.outputs if name not in FIXED else ():
        value.shape = None
    return model, shapes


def _has_kernels(name: str) -> bool:
    there = set(entries()["mdlstm"].backends) & set(GPU_BACKENDS)
    triton = importlib.util.find_spec("triton") is not None
    return name != "mdlstm" or "cuda" in there or ("triton" in there and triton)


@pytest.mark.parametrize("precision", TARGETS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_builds_and_says_what_the_network_says(name: str, precision: str) -> None:
    graph, shapes = _network(name)
    model, profiles, twice = at_shapes(graph, shapes, {})
    if not _has_kernels(name):
        with pytest.raises(UnsupportedError, match="MDLSTM"):
            gpu_part(model, profiles, precision, ["sm_86"], twice=twice)
        return
    targets = TARGETS[precision]
    part, sections = gpu_part(model, profiles, precision, targets, twice=twice)
    assert part.architectures == dict.fromkeys(targets, "engine")
    engines = {s.target: parts_of(bytes(s.data)) for s in sections if s.kind == SectionKind.ENGINES}
    count = sum(isinstance(step, EngineStep) for step in part.steps)
    assert {target: len(built) for target, built in engines.items()} == dict.fromkeys(targets, count)
    if count == len(part.steps) == 1:
        (typed,) = parts_of(bytes(sections[0].data))
        _agrees(graph, shapes, typed, TOLERANCES[precision])


def _agrees(graph: ir.Model, shapes: dict[str, Any], typed: bytes, tolerance: float) -> None:
    fixed = specialise(graph, {name: (2, *dims[1:]) for name, dims in shapes.items()}, {})
    source = bytes(ir.serde.serialize_model(spell_domain.run(fixed)).SerializeToString())
    rng = np.random.default_rng(0)
    given = {
        str(v.name): rng.standard_normal([int(d) for d in v.shape or ()]).astype(np.float32)  # type: ignore[arg-type]
        for v in fixed.graph.inputs
    }
    out, reference = _run(typed, given), _run(source, given)
    assert set(out) == set(reference)
    for name, expected in reference.items():
        assert float(np.linalg.norm(out[name] - expected) / np.linalg.norm(expected)) < tolerance, name


def _run(model: bytes, given: dict[str, Any]) -> dict[str, Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


@pytest.mark.parametrize("name", sorted(FIXED))
def test_a_batch_that_a_network_fixes_is_refused(name: str) -> None:
    """Wherever it shows, a plan that would be wrong for a batch is not made."""
    model, shapes = ARCHITECTURES[name](), dict[str, Any]()
    for value in model.graph.inputs:
        dims = [int(d) for d in value.shape or ()]  # type: ignore[arg-type]
        value.shape = ir.Shape(["batch", *dims[1:]])
        shapes[str(value.name)] = ((1, 2, 4), *dims[1:])
    for value in model.graph.outputs:
        value.shape = None
    with pytest.raises((EngineError, UnsupportedError, UsageError, ModelError)):
        graph, profiles, twice = at_shapes(model, shapes, {})
        gpu_part(graph, profiles, "fp32", ["sm_86"], twice=twice)


def test_int8_says_what_the_network_says() -> None:
    model = ARCHITECTURES["unet3d"](**SMALL["unet3d"])
    x = np.random.default_rng(1).standard_normal((1, 1, 16, 16, 16)).astype(np.float32)
    plan = vx.compile(
        model, device="cuda", arch=TARGETS["fp32"], precision="int8", calibration=[{"input": x}], verify=False
    )
    (typed,) = parts_of(bytes(plan.section(SectionKind.TYPED, "cuda")))
    (out,) = _run(typed, {"input": x}).values()
    narrow = vx.compile(model, precision="int8", calibration=[{"input": x}], verify=False, tune="off")
    # Of the same codes only roundings at their edges differ; of eight bits against float32 much more does.
    for reference, tolerance in ((narrow(x), 6e-2), (plan(x), 1.2e-1)):
        assert float(np.linalg.norm(out - reference) / np.linalg.norm(reference)) < tolerance


@pytest.mark.parametrize("precision", TARGETS)
def test_a_unet_builds_with_its_norms_between_engines(precision: str) -> None:
    model, shapes = _network("unet3d")
    fixed, profiles, twice = at_shapes(model, shapes, {})
    apart = EngineOptions(norms="kernels")
    part, sections = gpu_part(fixed, profiles, precision, TARGETS[precision], twice=twice, options=apart)
    kinds = [type(step) for step in part.steps]
    assert kinds == [EngineStep, KernelStep] * 10 + [EngineStep]
    built = {s.target: parts_of(bytes(s.data)) for s in sections if s.kind == SectionKind.ENGINES}
    assert {target: len(engines) for target, engines in built.items()} == dict.fromkeys(TARGETS[precision], 11)
