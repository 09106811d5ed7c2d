"""Class activation maps (Zhou et al., CVPR 2016), for networks that end in global average pooling and a linear layer.

There the logit of a class is the mean over space of Σ_c w_c·F_c plus a constant, so that sum is a map of where the
logit comes from, exactly, and no gradient is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.native import CancelFlag
from voxelrt.models.recipe_schema import Recipe
from voxelrt.plan.plan import Plan
from voxelrt.preprocess.layout import to_layout
from voxelrt.preprocess.spatial import resize

if TYPE_CHECKING:
    import onnx_ir as ir  # running a plan needs no graph; drawing this map does

Floats = NDArray[np.float32]
Tell = Callable[[str, int, int], None]
SHAPING = ("Reshape", "Flatten", "Squeeze", "Identity", "Dropout")
AFTER = ("Identity", "Softmax", "Sigmoid")


@dataclass(frozen=True, eq=False)
class PooledHead:
    """The end of such a network.

    Parameters
    ----------
    features : the name of the value that is pooled, (N, C, *space).
    weights : (classes, C) of the linear layer.
    """

    features: str
    weights: NDArray[np.float32]


def pooled_head(plan: Plan, output: str) -> PooledHead | None:
    """The head of a network that ends like that; None for any other."""
    from voxelrt.plan.kept import portable_graph

    graph = portable_graph(plan).graph
    value = next((v for v in graph.outputs if v.name == output), None)
    node = _maker(value, AFTER)
    if node is not None and node.op_type == "Add":
        node = _maker(next((v for v in node.inputs if v is not None and _constant(v) is None), None), ())
    if node is None or node.op_type not in ("MatMul", "Gemm"):
        return None
    weights = _weights(node)
    pooled = _maker(node.inputs[0], SHAPING)
    if weights is None or pooled is None:
        return None
    features = pooled.inputs[0]
    if features is None or features.shape is None or not _pools_all(pooled, len(features.shape)):
        return None
    if features.shape[1] != weights.shape[1] or features.name is None:
        return None
    return PooledHead(features.name, weights)


def class_activation(
    plan: Plan, recipe: Recipe, volume: Floats, head: PooledHead, chosen: int, tell: Tell, cancel: CancelFlag | None
) -> Floats:
    """The map of one class, (1, Z, Y, X) on the network's grid: what each place adds to the logit, times the places.

    Parameters
    ----------
    volume : (C, Z, Y, X) on the network's grid.
    head : see ``pooled_head``.
    chosen : which class.
    """
    flat = "Z" not in recipe.input.layout
    samples = [volume[:, z : z + 1] for z in range(volume.shape[1])] if flat else [volume]
    maps = []
    for number, sample in enumerate(samples):
        tensor = to_layout(sample, recipe.input.layout)
        features = np.asarray(plan.run({recipe.input.name: tensor}, taps=[head.features], cancel=cancel)[head.features])
        one = np.tensordot(head.weights[chosen], features[0].astype(np.float32), axes=1)
        maps.append(one[None] if flat else one)
        tell("run", number + 1, len(samples))
    joined = np.concatenate(maps)[None] if flat else maps[0][None]
    made: Floats = resize(joined, volume.shape[1:]).astype(np.float32)
    return made


def _maker(value: ir.Value | None, through: tuple[str, ...]) -> ir.Node | None:
    """The node that makes a value, nodes of some kinds passed over."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in through:
        before = node.inputs[0]
        node = None if before is None else before.producer()
    return node


def _constant(value: ir.Value | None) -> NDArray[Any] | None:
    tensor = None if value is None else value.const_value
    return None if tensor is None else tensor.numpy()


def _weights(node: ir.Node) -> NDArray[np.float32] | None:
    """(classes, C) of a linear layer; None where it is none."""
    matrix = _constant(node.inputs[1])
    if matrix is None or matrix.ndim != 2:
        return None
    if node.op_type == "MatMul":
        return np.asarray(matrix.T, np.float32)
    plain = node.attributes.get_int("transA", 0) == 0
    scale = node.attributes.get_float("alpha", 1.0)
    turned = matrix if node.attributes.get_int("transB", 0) else matrix.T
    return np.asarray(turned * scale, np.float32) if plain else None


def _pools_all(node: ir.Node, rank: int) -> bool:
    """Whether a node takes the mean over all axes of space."""
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean":
        return False
    axes = _constant(node.inputs[1]) if len(node.inputs) > 1 else node.attributes.get_ints("axes", None)
    return axes is not None and sorted(int(a) % rank for a in np.asarray(axes)) == list(range(2, rank))
