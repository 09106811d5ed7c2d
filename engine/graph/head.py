"""The head of a network: a last convolution of 1×1×1 voxels, which is linear in each voxel's features.

The weighted mean of its answers over windows is its answer on the weighted mean of the features. So where there are
fewer features than classes, windows' features are summed in place of their logits, and the head is taken of the means:
less memory in the same measure, and one product a voxel in place of one for each window over it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from voxelrt.graph.edit import constant_of, names_of
from voxelrt.models.nnunet_settings import FEATURES
from voxelrt.plan.head import Head


def head_of(model: ir.Model) -> Head | None:
    """The head of a network of one output, where it has fewer features than classes; else None."""
    node = _last(model.graph)
    if node is None or node.op_type != "Conv" or node.domain != "":
        return None
    weights, added = constant_of(node.inputs[1]), node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant_of(added)
    if weights is None or weights.dtype != np.float32 or (added is not None and bias is None):
        return None
    classes, features = weights.shape[:2]
    pointwise = set(weights.shape[2:]) == {1} and all(
        set(node.attributes[name].as_ints()) <= {value}
        for name, value in (("strides", 1), ("pads", 0))
        if name in node.attributes
    )
    grouped = "group" in node.attributes and node.attributes["group"].as_int() != 1
    if not pointwise or grouped or features >= classes or FEATURES in names_of(model.graph):
        return None
    matrix = np.zeros((classes, features + 1), np.float32)
    matrix[:, :-1] = weights.reshape(classes, features)
    if bias is not None:
        matrix[:, -1] = bias
    return Head(matrix)


def without_head(model: ir.Model) -> ir.Model:
    """A copy of a network that ``head_of`` found a head of, which gives ``FEATURES``."""
    made = model.clone()
    node = _last(made.graph)
    assert node is not None
    assert node.inputs[0] is not None
    logits, features = node.outputs[0], node.inputs[0]
    weights = constant_of(node.inputs[1])
    assert weights is not None
    assert logits.shape is not None
    features.name, features.type = FEATURES, logits.type
    batch, _, *space = logits.shape
    features.shape = ir.Shape([batch, weights.shape[1], *space])
    made.graph.outputs[:] = [features]
    made.graph.remove(node, safe=True)
    return made


def _last(graph: ir.Graph) -> ir.Node | None:
    """The node that gives the only output, where nothing else reads it or what it reads."""
    if len(graph.outputs) != 1:
        return None
    node = graph.outputs[0].producer()
    if node is None or graph.outputs[0].uses():
        return None
    read = node.inputs[0]
    alone = read is not None and read.producer() is not None and len(list(read.uses())) == 1
    return node if alone and node.graph is graph else None
