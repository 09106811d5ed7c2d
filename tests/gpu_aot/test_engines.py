"""Engines for GPUs that are not here, built for real by TensorRT-RTX, and builds that must fail, failing clearly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import voxelrt as vx
from voxelrt.backends.tensorrt import EngineRequest, build_engine, unsupported_nodes
from voxelrt.backends.tensorrt_libraries import ARCHITECTURES, check_architecture
from voxelrt.cli import main
from voxelrt.errors import EngineError, FetchError, PlanError, UnsupportedError, UsageError
from voxelrt.graph.specialise import specialise
from voxelrt.models.architectures.named import ARCHITECTURES as NETWORKS
from voxelrt.models.architectures.unet3d import FEATURES, FEATURES_SMALL, build_unet3d
from voxelrt.models.fetch import fetch
from voxelrt.models.recipe import load_recipe
from voxelrt.plan.file import SectionKind
from voxelrt.plan.gpu import at_shapes, gpu_part
from voxelrt.plan.gpu_steps import EngineOptions, GpuPart, parts_of

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX (the extra gpu-aot) is not installed")


def _unet() -> ir.Model:
    return build_unet3d(FEATURES_SMALL, (16, 16, 16))


def _model(name: str) -> tuple[ir.Model, dict[str, Any], Any]:
    """A network specialised with an open batch, and its profile."""
    model = _unet() if name == "unet3d" else NETWORKS[name]()
    shapes: dict[str, tuple[Any, ...]] = {}
    for value in model.graph.inputs:
        dims = [d if isinstance(d, int) else 32 for d in value.shape or ()]
        first = value.shape[0] if value.shape is not None else 1
        shapes[str(value.name)] = (dims[0] if isinstance(first, int) else (1, 2, 4), *dims[1:])
    return at_shapes(model, shapes, {})


# A 3-D U-Net in fp16 is below, as large as nnU-Net's; all of them in both are in test_matrix.py.
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, precision) for name in ("resnet", "dncnn3d", "registration") for precision in ("fp32", "fp16")),
        ("unet3d", "fp32"),
        ("window_attention", "fp16"),
    ],
)
def test_networks_build_for_every_target(name: str, precision: str) -> None:
    model, profiles, twice = _model(name)
    part, sections = gpu_part(model, profiles, precision, ["sm_80", "sm_86", "sm_89", "sm_120", "sm_90"], twice=twice)
    assert part.architectures == {
        "sm_80": "engine",
        "sm_86": "engine",
        "sm_89": "engine",
        "sm_120": "engine",
        "sm_90": "on device",
    }
    built = {s.target: parts_of(bytes(s.data)) for s in sections if s.kind == SectionKind.ENGINES}
    assert set(built) == {"sm_80", "sm_86", "sm_89", "sm_120"}
    assert all(len(engine) > 10_000 for (engine,) in built.values())
    assert GpuPart.from_json(json.loads(json.dumps(part.to_json()))) == part


def test_turing_builds_in_float16_and_is_refused_in_float32() -> None:
    model, profiles, _ = _model("unet3d")
    part, _ = gpu_part(model, profiles, "fp16", ["sm_75"])
    assert part.architectures == {"sm_75": "engine"}
    with pytest.raises(UsageError, match="sm_75"):
        check_architecture("sm_75", "fp32")
    # The table says no more than what the library itself says.
    for name, reason in (("unet3d", "FP32 3D convolution"), ("mlp", "FP32 GEMM")):
        model = _model(name)[0]
        data = bytes(ir.serde.serialize_model(model).SerializeToString())
        with pytest.raises(EngineError, match=f"sm_75.*{reason}") as caught:
            build_engine(EngineRequest(data), "sm_75")
        assert any(f"'{node.name}'" in str(caught.value) for node in model.graph)


def test_what_cannot_be_built_says_why() -> None:
    model, profiles, _ = _model("unet3d")
    with pytest.raises(UsageError, match="sm_1"):
        gpu_part(model, profiles, "fp32", ["sm_1"])
    with pytest.raises(UsageError, match="--arch"):
        gpu_part(model, profiles, "fp32", [])
    with pytest.raises(UsageError, match="int4"):
        gpu_part(model, profiles, "int4", ["sm_86"])
    with pytest.raises(UsageError, match="sm_90"):
        build_engine(EngineRequest(b""), "sm_90")
    with pytest.raises(EngineError):
        build_engine(EngineRequest(b"no model"), "sm_86")
    data = bytes(ir.serde.serialize_model(model).SerializeToString())
    with pytest.raises(UsageError, match="nothing"):
        build_engine(EngineRequest(data, [{"nothing": ((1,), (1,), (1,))}]), "sm_86")
    for precision in ("bf16", "tf32"):
        with pytest.raises(UsageError, match="sm_80"):
            check_architecture("sm_75", precision)
    for name in ARCHITECTURES:
        check_architecture(name, "fp16")


def test_nodes_that_are_not_taken_are_all_named() -> None:
    nodes = [
        helper.make_node("Mystery", ["x"], ["y"], name="first", domain="elsewhere"),
        helper.make_node("Mystery", ["y"], ["z"], name="second", domain="elsewhere"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("elsewhere", 1)], ir_version=10
    )
    told = unsupported_nodes(model.SerializeToString())
    assert any("first (Mystery)" in line for line in told)
    with pytest.raises(UnsupportedError, match=r"first \(Mystery\)"):
        build_engine(EngineRequest(model.SerializeToString()), "sm_86")


def test_a_build_tells_its_progress_and_can_be_stopped() -> None:
    told: list[tuple[str, int, int]] = []
    fixed = specialise(NETWORKS["resnet"](), {"image": (1, 3, 224, 224)}, {})
    request = EngineRequest(bytes(ir.serde.serialize_model(fixed).SerializeToString()))
    build_engine(request, "sm_86", progress=lambda *row: told.append(row))
    assert told
    assert all(1 <= step <= steps for _, step, steps in told)
    with pytest.raises(EngineError):
        build_engine(request, "sm_86", progress=lambda *row: None, cancelled=lambda: True)


def test_bf16_and_tf32_build() -> None:
    for precision in ("bf16", "tf32"):
        model, profiles, _ = _model("unet3d")
        part, sections = gpu_part(model, profiles, precision, ["sm_120"])
        assert part.precision == precision
        assert len(sections) == 2


def test_the_typed_graph_is_the_network() -> None:
    """What engines are built of gives the source's answer in another executor."""
    ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime, the executor of this test, is not installed")
    x = np.random.default_rng(1).standard_normal((2, 1, 16, 16, 16)).astype(np.float32)
    model, profiles, _ = at_shapes(_unet(), {}, {})
    fixed = specialise(_unet(), {}, {})
    name = str(fixed.graph.inputs[0].name)
    source = bytes(ir.serde.serialize_model(fixed).SerializeToString())
    expected = ort.InferenceSession(source).run(None, {name: x[:1]})[0]
    _, sections = gpu_part(model, profiles, "fp16", ["sm_90"])
    (typed,) = parts_of(bytes(sections[0].data))
    onnx.checker.check_model(onnx.load_from_string(typed))
    out = ort.InferenceSession(typed).run(None, {name: x[:1]})[0]
    assert float(np.linalg.norm(out - expected) / np.linalg.norm(expected)) < 5e-3


def test_a_plan_for_gpus_runs_here_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ir.save(_unet(), tmp_path / "net.onnx")
    arguments = ["compile", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "net.vxp"), "--tune", "off", "--describe"]
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--device", "cuda", "--arch", "sm_86,sm_89", "--precision", "fp16"])
    said = capsys.readouterr().out
    assert "for GPUs: fp16, tensorrt_rtx" in said
    with pytest.raises(SystemExit, match="0"):
        main(["info", str(tmp_path / "net.vxp")])
    assert "sm_86 (engine), sm_89 (engine)" in capsys.readouterr().out
    assert "sm_86 (engine), sm_89 (engine)" in said
    assert "gpu plan: pending against the first load on a GPU" in said
    plan = vx.Plan.open(tmp_path / "net.vxp")
    assert {"sm_86", "sm_89"} < set(plan.targets)
    x = np.random.default_rng(1).standard_normal((1, 1, 16, 16, 16)).astype(np.float32)
    assert np.isfinite(plan(x)).all()
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--device", "cuda"])
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--arch", "sm_86"])


def test_a_network_is_calibrated_for_gpus_too() -> None:
    x = np.random.default_rng(1).standard_normal((1, 1, 16, 16, 16)).astype(np.float32)
    plan = vx.compile(
        _unet(), device="cuda", arch=["sm_86", "sm_90"], precision="int8", calibration=[{"input": x}], verify=False
    )
    assert plan.info.precision == "fp32"  # of the CPU's part
    part = GpuPart.from_json(plan.info.settings["gpu"])
    assert (part.precision, part.architectures) == ("int8", {"sm_86": "engine", "sm_90": "on device"})
    (typed,) = parts_of(bytes(plan.section(SectionKind.TYPED, "cuda")))
    operators = [node.op_type for node in onnx.load_from_string(typed).graph.node]
    assert operators.count("DequantizeLinear") > operators.count("Conv") > 3
    with pytest.raises(UsageError, match="calibration"):
        vx.compile(_unet(), device="cuda", arch=["sm_86"], precision="fp16", calibration=[{"input": x}])


def test_fp8_is_built_where_the_gpu_has_it() -> None:
    ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime, the executor of this test, is not installed")
    x = np.random.default_rng(1).standard_normal((1, 1, 16, 16, 16)).astype(np.float32)
    options: dict[str, Any] = {"device": "cuda", "calibration": [{"input": x}], "verify": False, "tune": "off"}
    plan = vx.compile(_unet(), arch=["sm_89", "sm_120", "sm_90"], precision="fp8", **options)
    part = GpuPart.from_json(plan.info.settings["gpu"])
    assert (part.precision, set(part.architectures.values())) == ("fp8", {"engine", "on device"})
    (typed,) = parts_of(bytes(plan.section(SectionKind.TYPED, "cuda")))
    kinds = {t.data_type for t in onnx.load_from_string(typed).graph.initializer}
    assert TensorProto.FLOAT8E4M3FN in kinds
    assert TensorProto.INT8 not in kinds
    (out,) = ort.InferenceSession(typed).run(None, {"input": x})
    expected = plan(x)
    assert float(np.linalg.norm(out - expected) / np.linalg.norm(expected)) < 2e-1  # of three bits of mantissa
    with pytest.raises(UsageError, match="fp8"):
        vx.compile(_unet(), arch=["sm_86"], precision="fp8", **options)
    with pytest.raises(UsageError, match="fp8"):
        vx.compile(_unet(), precision="fp8", calibration=[{"input": x}])


def test_options_of_engines_are_kept_for_builds_on_the_gpu(tmp_path: Path) -> None:
    ir.save(_unet(), tmp_path / "net.onnx")
    arguments = ["compile", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "net.vxp"), "--tune", "off", "--quiet"]
    arguments += ["--no-verify", "--device", "cuda", "--engine-workspace", "64MiB", "--engine-effort", "2"]
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--arch", "sm_86"])
    part = GpuPart.from_json(vx.Plan.open(tmp_path / "net.vxp").info.settings["gpu"])
    assert part.build == EngineOptions(workspace=64 << 20, effort=2)
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--arch", "sm_90", "--refit"])
    with pytest.raises(SystemExit, match="2"):  # TensorRT-RTX builds such engines on a GPU alone
        main([*arguments, "--arch", "sm_86", "--refit"])
    with pytest.raises(UsageError, match="device='cuda'"):
        vx.compile(_unet(), engine=EngineOptions(effort=1))
    with pytest.raises(UsageError, match="0 to 5"):
        EngineOptions(effort=6)


@pytest.mark.data
def test_the_demo_s_network_compiles_for_four_gpus(tmp_path: Path) -> None:
    """As its README says to do it; an nnU-Net folder is compiled so in ``test_studies.py``."""
    try:
        fetch(load_recipe("brain-extraction"))
    except FetchError as error:
        pytest.skip(str(error))
    out = tmp_path / "brain.vxp"
    arguments = ["compile", "brain-extraction", "-o", str(out), "--tune", "off", "--no-verify", "--quiet"]
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--device", "cuda", "--arch", "sm_80,sm_86,sm_89,sm_120", "--precision", "fp16"])
    plan = vx.Plan.open(out)
    part = GpuPart.from_json(plan.info.settings["gpu"])
    assert part.architectures == dict.fromkeys(("sm_80", "sm_86", "sm_89", "sm_120"), "engine")
    for architecture in part.architectures:
        (engine,) = parts_of(bytes(plan.section(SectionKind.ENGINES, architecture)))
        assert len(engine) > 100_000


def test_an_nnunet_class_network_compiles_for_four_gpus(tmp_path: Path) -> None:
    """As deep and wide as nnU-Net's, by the command; a small window, which engines do not mind."""
    model, out = _open(build_unet3d(FEATURES, (64, 64, 64))), tmp_path / "net.vxp"
    ir.save(model, tmp_path / "net.onnx")
    arguments = ["compile", str(tmp_path / "net.onnx"), "-o", str(out), "--tune", "off", "--no-verify", "--quiet"]
    arguments += ["--device", "cuda", "--arch", "sm_80,sm_86,sm_89,sm_120", "--precision", "fp16"]
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--shape", "input=1:2:4,1,64,64,64"])
    plan = vx.Plan.open(out)
    part = GpuPart.from_json(plan.info.settings["gpu"])
    assert part.architectures == dict.fromkeys(("sm_80", "sm_86", "sm_89", "sm_120"), "engine")
    assert part.batches == (1, 4)
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    for architecture in part.architectures:
        (engine,) = parts_of(bytes(plan.section(SectionKind.ENGINES, architecture)))
        assert len(engine) > weights // 4


def _open(model: ir.Model) -> ir.Model:
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape(["n", *list(value.shape or ())[1:]])
    return model


def test_a_damaged_gpu_part_is_an_error() -> None:
    model, profiles, _ = _model("unet3d")
    part, sections = gpu_part(model, profiles, "fp16", ["sm_86"])
    raw = part.to_json()
    for key in raw:
        if key != "build":  # which plans of earlier versions do not have
            with pytest.raises(PlanError):
                GpuPart.from_json({k: v for k, v in raw.items() if k != key})
    for wrong in (
        None,
        [],
        "x",
        {**raw, "steps": 3},
        {**raw, "profiles": {"input": [1, 2, 3]}},
        {**raw, "build": {"effort": 9}},
    ):
        with pytest.raises(PlanError):
            GpuPart.from_json(wrong)
    data = bytes(sections[-1].data)
    for damaged in (b"", data[:-1], data + b"x", b"[-1]\n" + data, b"[" * 100 + b"\n", b"[true]\nx"):
        with pytest.raises(PlanError):
            parts_of(damaged)
