"""A small network of windows as a plan's GPU part, on a simulated driver. No TensorRT is needed: engines are ONNX."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper

from tests.runtime.studies import CLASSES, WINDOW
from voxelrt.plan.gpu import at_shapes
from voxelrt.plan.gpu_codes import add_window_codes, read_codes
from voxelrt.plan.gpu_partition import partition, prepare
from voxelrt.plan.gpu_steps import GpuPart
from voxelrt.runtime.gpu_network import Compiled

BATCH = 4


def _network() -> ir.Model:
    """The network of ``tests/runtime/studies.py`` in ONNX: sin((k + 1) x) + 0.1 k mean(x) for each class k."""
    nodes = [helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=1)]
    constants = {"axes": np.array([1, 2, 3, 4])}
    for k in range(CLASSES):
        constants |= {f"w{k}": np.float32([k + 1]), f"m{k}": np.float32([0.1 * k])}
        nodes += [
            helper.make_node("Mul", ["input", f"w{k}"], [f"a{k}"]),
            helper.make_node("Sin", [f"a{k}"], [f"s{k}"]),
            helper.make_node("Mul", ["mean", f"m{k}"], [f"b{k}"]),
            helper.make_node("Add", [f"s{k}", f"b{k}"], [f"c{k}"]),
        ]
    nodes.append(helper.make_node("Concat", [f"c{k}" for k in range(CLASSES)], ["logits"], axis=1))
    graph = helper.make_graph(
        nodes,
        "windows",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 1, *WINDOW])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES, *WINDOW])],
        [
            helper.make_tensor(n, TensorProto.INT64 if a.dtype == np.int64 else TensorProto.FLOAT, a.shape, a)
            for n, a in constants.items()
        ],
    )
    for number, node in enumerate(graph.node):
        node.name = f"node_{number}"
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


@cache
def compiled(most: int = BATCH) -> Compiled:
    """The network for batches of 1 to `most`, with our kernels' code for sm_86."""
    shapes: dict[str, Any] = {"input": ((1, most, most), 1, *WINDOW)}
    model, profiles, twice = at_shapes(_network(), shapes, {})
    typed, taken, _ = prepare(model, "fp32")
    again, _, _ = prepare(twice, "fp32") if twice is not None else (None, None, None)
    parts = partition(typed, taken, profiles, again)
    add_window_codes(parts.codes)
    codes = read_codes(bytes(parts.codes.section("sm_86").data))
    steps = tuple(parts.steps)
    part = GpuPart("fp32", "", {}, steps, parts.values, dict(profiles), ("logits",), parts.codes.names, "")
    return Compiled(part, [("simulated", b"")] * len(parts.typed), parts.typed, codes, False, parts.constants)
