"""Which of our kernels stand between engines of a plan for GPUs. Neither a GPU, TensorRT nor a compiler is needed."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx_ir as ir
import pytest

from voxelrt.errors import UnsupportedError, UsageError
from voxelrt.graph.edit import constant_of
from voxelrt.graph.passes import quantize_convolutions
from voxelrt.graph.specialise import specialise
from voxelrt.kernels.common.kernel import GPU_BACKENDS, entries
from voxelrt.models.architectures.layers import Layers
from voxelrt.models.architectures.named import ARCHITECTURES
from voxelrt.models.architectures.unet3d import build_unet3d
from voxelrt.models.architectures.volumes import build_deformable_registration
from voxelrt.plan.gpu_kernels import is_candidate, trace
from voxelrt.plan.gpu_partition import Parts, partition, prepare
from voxelrt.plan.gpu_steps import EngineOptions, EngineStep, KernelStep, Pointer

GRID = (8, 8, 12)


def _parts(model: ir.Model, precision: str = "fp32", norms: str = "engine") -> tuple[Parts, list[str]]:
    fixed = specialise(model, {}, {})
    typed, taken, notes = prepare(fixed, precision, norms)
    shapes = {str(v.name): tuple(int(d) for d in v.shape or ()) for v in typed.graph.inputs}  # type: ignore[arg-type]
    return partition(typed, taken, {name: (dims, dims, dims) for name, dims in shapes.items()}, None), notes


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_integration_and_warp_stand_behind_an_engine(precision: str) -> None:
    made, notes = _parts(build_deformable_registration((4, 4), (4, 4), (4,), GRID, steps=3), precision)
    first, *kernels = made.steps
    assert isinstance(first, EngineStep)
    assert [step.op for step in kernels if isinstance(step, KernelStep)] == ["integrate", "warp3d"]
    assert (len(made.typed), made.codes.names, notes) == (1, ("integrate/cuda.cu", "warp3d/cuda.cu"), [])
    # What passes a border is float32, as the kernels want it.
    assert {value.dtype for value in made.values.values()} == {"float32"}


def _sampled(mode: str, dims: int) -> ir.Model:
    net = Layers(0, None)
    size = (4, 5, 6)[:dims]
    volume, grid = net.input("volume", 1, 2, *size), net.input("grid", 1, *size, dims)
    out = net.op("GridSample", volume, grid, mode=mode, padding_mode="border", align_corners=1)
    return net.finish("sampled", out=(out, (1, 2, *size)))


def test_volumes_on_a_grid_are_ours_and_planes_are_not() -> None:
    made, _ = _parts(_sampled("linear", 3))
    (step,) = made.steps
    assert isinstance(step, KernelStep)
    assert step.op == "warp3d"
    # The grid is read where it lies, components last.
    places = {step.buffers[a.buffer].value for a in step.launches[0].arguments if isinstance(a, Pointer)}
    assert {"volume", "grid", "out"} < places
    assert sorted(len(data) for data in made.constants) == [72, 96]
    (engine,) = _parts(_sampled("linear", 2))[0].steps
    assert isinstance(engine, EngineStep)


@pytest.mark.parametrize(("precision", "between"), [("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16")])
def test_norms_are_ours_where_that_is_asked(precision: str, between: str) -> None:
    network = build_unet3d((4, 8), (8, 8, 8))
    made, notes = _parts(network, precision, "kernels")
    norms = [step for step in made.steps if isinstance(step, KernelStep)]
    assert ([step.op for step in norms], notes) == (["norm3d"] * 6, [])
    assert len(made.typed) == 7
    for step in norms:  # with the activation, on channels-last volumes in the engines' type
        (source,), (out,) = step.inputs, step.outputs
        assert made.values[source] == made.values[out]
        assert (made.values[out].dtype, made.values[out].dims[-1] in (4, 8)) == (between, True)
        *_, apply = step.launches
        number, slope = [a.bytes for a in apply.arguments if not isinstance(a, Pointer)][-3:-1]
        assert (np.frombuffer(number, np.int32)[0], np.frombuffer(slope, np.float32)[0]) == (2, np.float32(0.01))
    assert [step.backend for step in _parts(network, precision)[0].steps] == ["tensorrt"]


@pytest.mark.filterwarnings("error")
def test_volumes_of_more_voxels_than_float16_counts_are_taken_without_a_word() -> None:
    made, notes = _parts(build_unet3d((4, 8), (32, 32, 32)), "fp16", "kernels")
    assert max(value.item_bytes for value in made.values.values()) > 2 * 65504
    assert ([step.op for step in made.steps if isinstance(step, KernelStep)], notes) == (["norm3d"] * 6, [])


def test_a_norm_that_others_read_keeps_its_activation_apart() -> None:
    net = Layers(0, None)
    x = net.input("x", 1, 3, 4, 5, 6)
    scale, bias = net.constant(np.float32([1, 2, 3])), net.constant(np.float32([4, 5, 6]))
    normed = net.op("InstanceNormalization", x, scale, bias, epsilon=0.5)
    active = net.op("Relu", normed)
    both = net.op("Add", normed, active)
    given = net.input("given", 3)
    open_one = net.op("InstanceNormalization", active, given, bias)
    model = net.finish("norms", both=(both, (1, 3, 4, 5, 6)), other=(open_one, (1, 3, 4, 5, 6)))
    made, _ = _parts(model, norms="kernels")
    (step,) = (step for step in made.steps if isinstance(step, KernelStep))
    assert np.frombuffer(step.launches[-1].arguments[-3].bytes, np.int32)[0] == 0  # type: ignore[union-attr]
    assert sum(isinstance(s, EngineStep) for s in made.steps) == 2
    with pytest.raises(UsageError, match="norms go to one of engine, kernels"):
        EngineOptions(norms="cpu")


def test_what_no_kernel_takes_is_left_to_tensorrt_and_told() -> None:
    made, notes = _parts(_sampled("cubic", 3))
    assert [step.backend for step in made.steps] == ["tensorrt"]
    assert len(notes) == 1
    assert "cubic" in notes[0]


def test_what_runs_nowhere_is_named() -> None:
    net = Layers(0, None)
    volume, field = net.input("volume", 1, 1, 4, 4, 4), net.input("field", 1, 3, 4, 4, 4)
    moved = net.our_op("Warp", volume, field, mode="vote")
    with pytest.raises(UnsupportedError, match="vote"):
        _parts(net.finish("voted", out=(moved, (1, 1, 4, 4, 4))))


def test_a_grid_of_lstms_is_ours_as_soon_as_it_has_a_kernel() -> None:
    model = ARCHITECTURES["mdlstm"]()
    backends = set(entries()["mdlstm"].backends) & set(GPU_BACKENDS)
    if not backends or (backends == {"triton"} and importlib.util.find_spec("triton") is None):
        with pytest.raises(UnsupportedError, match="MDLSTM"):
            _parts(model)
        return
    made, _ = _parts(model)
    assert any(isinstance(step, KernelStep) and step.op == "mdlstm" for step in made.steps)


def test_a_program_that_arranges_values_on_the_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from voxelrt.kernels.warp3d import cuda

    own = cuda.program

    def copies(volume, *given, **options):  # type: ignore[no-untyped-def]
        return own(volume + 0, *given, **options)

    fixed = specialise(_sampled("linear", 3), {}, {})
    node = next(iter(fixed.graph))
    assert is_candidate(node)
    trace(node)
    monkeypatch.setattr(cuda, "program", copies)
    with pytest.raises(UnsupportedError, match="arranges its input on the host"):
        trace(node)


def test_constants_are_those_of_the_node() -> None:
    """An affine that the graph fixes is a constant of the plan; one that is an input cannot be."""
    net = Layers(0, None)
    rows = np.hstack([np.eye(3), np.full((3, 1), 0.25)]).astype(np.float32)[None]
    volume = net.input("volume", 1, 1, 4, 5, 6)
    moved = net.our_op("Warp", volume, None, net.constant(rows), mode="linear", padding="border")
    made, _ = _parts(net.finish("shifted", out=(moved, (1, 1, 4, 5, 6))))
    assert np.frombuffer(made.constants[0], np.float64).reshape(3, 4)[:, 3].tolist() == [0.25] * 3


def test_fp8_codes_of_weights_are_the_nearest_and_the_source_s_step_is_its_own() -> None:
    model = build_unet3d((4, 8), (8, 8, 8))
    model = specialise(model, {}, {})
    node = quantize_convolutions.candidates(model)[0]
    weights, source = constant_of(node.inputs[1]), str(node.inputs[0].name)
    made = quantize_convolutions.run(model, {source: 0.5}, quantize_convolutions.FP8)
    codes, steps = (constant_of(v) for v in node.inputs[1].producer().inputs)
    assert str(codes.dtype) == "float8_e4m3fn"
    back = codes.astype(np.float32) * steps.reshape(-1, 1, 1, 1, 1)
    # Three bits of mantissa: to half of an eighth; what is below the smallest normal number, to half of its step.
    assert (np.abs(back - weights) <= np.maximum(np.abs(weights) / 16, 2.0**-10 * steps.max()) * 1.001).all()
    assert np.abs(codes.astype(np.float32)).max() == 448
    step = constant_of(node.inputs[0].producer().inputs[1])
    assert float(step) == pytest.approx(0.5 * 127 / 448)
    assert made.opset_imports[""] == 19
    model.opset_imports[""] = 17
    with pytest.raises(UsageError, match="operator set 18"):
        quantize_convolutions.run(model, {}, quantize_convolutions.FP8)
