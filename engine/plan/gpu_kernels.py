"""Nodes that our own kernels carry out in a plan for GPUs, as launches on values of the graph.

A rule says for an operator which op it is and what it is called with. The op's ``program`` is then called on arrays of
the right shapes; which of its buffers are values shows in where the arrays lie, and what depends on nothing but shapes
and constants is a constant. A program that copies or computes with a value on the host is refused: it could not run on
values that are on the device.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from voxelrt.errors import MissingExtraError, ShapeError, UnsupportedError, UsageError
from voxelrt.graph.edit import constant_of, static_shape
from voxelrt.graph.passes import norms_apart
from voxelrt.graph.spec import OUR_DOMAIN
from voxelrt.kernels.common.gpu.program import Buffer, Launch, Program, Tensor
from voxelrt.kernels.common.kernel import GPU_BACKENDS, Array, entries
from voxelrt.kernels.warp3d import normalised, onnx_padding
from voxelrt.plan.gpu_codes import CodeTable
from voxelrt.plan.gpu_steps import GpuLaunch, KernelStep, Number, Pointer, StepBuffer

Arrays = Mapping[ir.Value, Array]


class Call(NamedTuple):
    """What an op is called with; ``arrange`` makes a view of its answer that is the node's output."""

    op: str
    given: tuple[Any, ...]
    options: dict[str, Any]
    arrange: Callable[[Array], Array] = lambda answer: answer


_GRID_MODES = {"linear": "linear", "bilinear": "linear", "nearest": "nearest"}


@dataclass(frozen=True)
class Traced:
    """A node's program on arrays that stand for its values."""

    op: str
    backend: str
    program: Program
    arrays: dict[ir.Value, Array]


def _text(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return str(attribute.as_string()) if attribute is not None else default


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return int(attribute.as_int()) if attribute is not None else default


def _real(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return float(attribute.as_float()) if attribute is not None else default


def _input(node: ir.Node, index: int, arrays: Arrays) -> Array | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    constant = constant_of(value)
    return arrays[value] if constant is None else constant


def _warp(node: ir.Node, arrays: Arrays) -> Call:
    volume, field, affine = (_input(node, i, arrays) for i in range(3))
    options: dict[str, Any] = {"mode": _text(node, "mode", "linear"), "padding": _text(node, "padding", "zeros")}
    if affine is not None:
        options["affine"] = affine
    if field is None:
        options["shape"] = (static_shape(node.outputs[0]) or ())[2:]
    return Call("warp3d", (volume, field), options)


def _integrate(node: ir.Node, arrays: Arrays) -> Call:
    options = {"steps": _integer(node, "steps", 7), "padding": _text(node, "padding", "zeros")}
    return Call("integrate", (_input(node, 0, arrays),), options)


def _mdlstm(node: ir.Node, arrays: Arrays) -> Call:
    return Call("mdlstm", tuple(_input(node, i, arrays) for i in range(4)), {})


def _norm(node: ir.Node, arrays: Arrays) -> Call:
    x, scale, bias = (_input(node, i, arrays) for i in range(3))
    assert x is not None
    name = _text(node, "activation", "none")
    options = {"epsilon": _real(node, "epsilon", 1e-5), "activation": (name, _real(node, "alpha", 0.0), 0.0)}
    return Call("norm3d", (np.moveaxis(x, -1, 1), scale, bias), options, lambda y: np.moveaxis(y, 1, -1))


def _grid_sample(node: ir.Node, arrays: Arrays) -> Call:
    volume, grid = (_input(node, i, arrays) for i in range(2))
    assert volume is not None
    assert grid is not None
    mode = _GRID_MODES.get(_text(node, "mode", "linear"))
    if mode is None:
        raise UnsupportedError(f"the mode {_text(node, 'mode', '')!r}")
    corners = bool(_integer(node, "align_corners", 0))
    padding = onnx_padding(mode, _text(node, "padding_mode", "zeros"), corners)
    affine, matrix = normalised(volume.shape[2:], corners)
    options = {"mode": mode, "padding": padding, "affine": affine, "matrix": matrix}
    return Call("warp3d", (volume, np.moveaxis(grid, -1, 1)), options)


_RULES: dict[tuple[str, str], Callable[[ir.Node, Arrays], Call]] = {
    (OUR_DOMAIN, "Warp"): _warp,
    (OUR_DOMAIN, "IntegrateVelocity"): _integrate,
    (OUR_DOMAIN, "MDLSTM"): _mdlstm,
    (OUR_DOMAIN, norms_apart.OPERATOR): _norm,
    ("", "GridSample"): _grid_sample,
}


def is_candidate(node: ir.Node) -> bool:
    """Whether a kernel of ours takes the node if it can: our own operators, and volumes sampled on a grid (a plane is
    left to TensorRT, which samples it inside an engine)."""
    if (node.domain, node.op_type) not in _RULES:
        return False
    return node.domain == OUR_DOMAIN or len(static_shape(node.inputs[0]) or ()) == 5


def trace(node: ir.Node) -> Traced:
    """The program of a node.

    Raises
    ------
    UnsupportedError : no kernel takes it; says why.
    """
    values = [v for v in dict.fromkeys(node.inputs) if v is not None and constant_of(v) is None]
    random = np.random.default_rng(0)
    fills: tuple[Callable[[Any, Any], Array], ...] = (
        np.zeros,
        lambda shape, dtype: random.integers(1, 100, shape, np.int8).astype(dtype),
    )
    made = []
    rule = _RULES[(node.domain, node.op_type)]
    for fill in fills:
        arrays = {v: fill(_shape(v), v.dtype.numpy()) for v in values if v.dtype is not None}
        call = rule(node, arrays)
        backend, make = _backend(call.op)
        try:
            made.append(Traced(call.op, backend, make(*call.given, **call.options), arrays))
        except (UnsupportedError, UsageError, ShapeError) as error:
            raise UnsupportedError(str(error)) from error
    first, second = made
    for a, b in zip(first.program.buffers, second.program.buffers, strict=True):
        if a.initial is None or _value_of(a, first.arrays) is not None:
            continue
        assert b.initial is not None
        if a.initial.tobytes() != b.initial.tobytes():
            raise UnsupportedError(f"{first.backend} of {first.op} arranges its input on the host")
    _check_answer(node, first, call.arrange)
    return first


def _backend(op: str) -> tuple[str, Callable[..., Program]]:
    kernel = entries()[op]
    for backend in ("cuda", "triton"):
        if backend in kernel.backends and (backend == "cuda" or importlib.util.find_spec("triton") is not None):
            try:
                return backend, kernel.program(backend)
            except MissingExtraError as error:
                raise UnsupportedError(str(error)) from error
    there = [b for b in kernel.backends if b in GPU_BACKENDS]
    raise UnsupportedError(f"{op} has no kernel for GPUs" + (f" without {there[0]}" if there else ""))


def _shape(value: ir.Value) -> tuple[int, ...]:
    shape = static_shape(value)
    if shape is None:
        raise UnsupportedError(f"the shape of {value.name} is not known")
    return shape


def _value_of(buffer: Buffer, arrays: Mapping[ir.Value, Array]) -> ir.Value | None:
    """The value in whose array a buffer's own lies."""
    if buffer.given is None:
        return None
    return next((value for value, array in arrays.items() if np.may_share_memory(array, buffer.given)), None)


def _check_answer(node: ir.Node, traced: Traced, arrange: Callable[[Array], Array]) -> None:
    """The answers' memory holds the node's outputs in C order."""
    program = traced.program
    if len(program.answers) != len(node.outputs):
        raise UnsupportedError(f"{traced.op} has {len(program.answers)} answers, the node {len(node.outputs)} outputs")
    memory = {id(t.buffer): np.empty(t.size, t.dtype) for t in program.answers}
    found = program.result(lambda buffer: memory[id(buffer)])
    for out, tensor, value in zip(
        map(arrange, found if isinstance(found, tuple) else (found,)), program.answers, node.outputs, strict=True
    ):
        same = (
            out.shape == _shape(value) and out.flags.c_contiguous and np.shares_memory(out, memory[id(tensor.buffer)])
        )
        if not same or tensor.offset:
            raise UnsupportedError(f"{traced.op} arranges its answer on the host")


def kernel_step(
    node: ir.Node, traced: Traced, codes: CodeTable, constants: list[bytes], batched: Mapping[ir.Value, bool]
) -> KernelStep:
    """A traced node as a step; its code and constants are added to those of the plan.

    Parameters
    ----------
    node, traced : of a batch of one where the batch is a range.
    codes, constants : of the plan.
    batched : for each of the node's values, whether it grows with the batch.
    """
    program = traced.program
    answers = {id(t.buffer): value for t, value in zip(program.answers, node.outputs, strict=True)}
    buffers: list[StepBuffer] = []
    place: dict[int, tuple[int, int]] = {}  # of a program's buffer: the step's, and bytes into it
    for index, buffer in enumerate(program.buffers):
        value = answers.get(id(buffer)) or _value_of(buffer, traced.arrays)
        ahead = 0
        if value is not None:
            size = int(np.prod(_shape(value), dtype=np.int64)) * buffer.dtype.itemsize
            buffers.append(StepBuffer("value", size, str(value.name)))
            if value in traced.arrays:
                ahead = _bytes_ahead(buffer, traced.arrays[value])
        elif buffer.initial is not None:
            buffers.append(StepBuffer("constant", buffer.nbytes, constant=len(constants)))
            constants.append(np.ascontiguousarray(buffer.initial).tobytes())
        else:
            buffers.append(StepBuffer("scratch", buffer.nbytes))
        place[id(buffer)] = (index, ahead)
    launches = tuple(_launch(program, launch, codes, place) for launch in program.launches)
    inputs = tuple(dict.fromkeys(str(v.name) for v in traced.arrays))
    outputs = tuple(str(v.name) for v in node.outputs)
    repeated = any(batched[v] for v in (*traced.arrays, *node.outputs))
    return KernelStep(traced.op, traced.backend, str(node.name), inputs, outputs, tuple(buffers), launches, repeated)


def _bytes_ahead(buffer: Buffer, array: Array) -> int:
    """How far into a value's array the memory of a buffer begins."""
    given = buffer.given
    assert given is not None
    backwards = sum((n - 1) * s for n, s in zip(given.shape, given.strides, strict=True) if s < 0)
    start: int = given.__array_interface__["data"][0] + backwards
    return start - int(array.__array_interface__["data"][0])


def _launch(program: Program, launch: Launch, codes: CodeTable, place: Mapping[int, tuple[int, int]]) -> GpuLaunch:
    arguments: list[Pointer | Number] = []
    for value, kind in zip(launch.arguments, launch.types(), strict=True):
        if isinstance(value, Tensor):
            index, ahead = place[id(value.buffer)]
            arguments.append(Pointer(index, ahead + value.offset * value.dtype.itemsize))
        else:
            arguments.append(Number(kind, value.tobytes().hex()))
    entry = launch.kernel if isinstance(launch.kernel, str) else ""
    return GpuLaunch(codes.number(program, launch), entry, launch.grid, launch.block, launch.shared, tuple(arguments))
