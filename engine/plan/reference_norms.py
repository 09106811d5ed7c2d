"""Instance norms of large volumes spelled out, for an executor that serves as the measure of a plan.

ONNX Runtime's InstanceNormalization adds all voxels of a channel to one float: at 128³ its mean and variance are off by
more than a plan may be. As means along one axis after the other, of distances from the mean, they are good to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

LARGE = 1 << 16  # voxels of a channel
AXES_AS_INPUT = 18  # version of the operator set since which ReduceMean takes its axes as an input


def spell_norms(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Replace the InstanceNormalization nodes whose input has a known, large shape. In place."""
    opset = max(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    nodes = []
    for node in proto.graph.node:
        shape = shapes.get(node.input[0], ()) if node.op_type == "InstanceNormalization" and not node.domain else ()
        if len(shape) < 3 or int(np.prod(shape[2:])) < LARGE:
            nodes.append(node)
        else:
            nodes += _spelled(proto.graph, node, len(shape), opset)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _spelled(graph: onnx.GraphProto, node: onnx.NodeProto, rank: int, opset: int) -> list[onnx.NodeProto]:
    stem = f"{node.output[0]}/spelled"
    made: list[onnx.NodeProto] = []

    def constant(name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.int64 | np.float32]]) -> str:
        graph.initializer.append(numpy_helper.from_array(array, f"{stem}/{name}"))
        return f"{stem}/{name}"

    def add(operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        output = name if name == node.output[0] else f"{stem}/{name}"
        made.append(helper.make_node(operator, inputs, [output], f"{stem}/{name}", **attributes))
        return output

    def mean(name: str, value: str) -> str:
        for axis in range(rank - 1, 1, -1):
            if opset >= AXES_AS_INPUT:
                along = constant(f"{name}/axis{axis}", np.array([axis], np.int64))
                value = add("ReduceMean", f"{name}/{axis}", value, along, keepdims=1)
            else:
                value = add("ReduceMean", f"{name}/{axis}", value, axes=[axis], keepdims=1)
        return value

    source, gamma, beta = node.input
    spread = constant("spread", np.array([1, -1] + [1] * (rank - 2), np.int64))
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    distance = add("Sub", "distance", source, mean("mean", source))
    variance = mean("variance", add("Mul", "square", distance, distance))
    deviation = add("Sqrt", "deviation", add("Add", "more", variance, constant("eps", np.array(epsilon, np.float32))))
    scale = add("Div", "scale", add("Reshape", "gamma", gamma, spread), deviation)
    add("Add", node.output[0], add("Mul", "scaled", distance, scale), add("Reshape", "beta", beta, spread))
    return made
