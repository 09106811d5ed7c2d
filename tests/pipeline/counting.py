"""A network whose answer is known: it gives back the whole number that each voxel holds, by convolution and argmax.

The score of class k is k·x - k²/2, which is largest for the k nearest to x. So labels that come out must be the image
that went in, voxel for voxel, whatever way they took.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 9

RECIPE = """
name = "counting"
task = "segmentation"
{head}
[source]
path = "counting.onnx"
[input]
name = "image"
{input}
[[input.channels]]
name = "image"
{channel}
[input.grid]
{grid}
[input.intensity]
{intensity}
[output]
name = "scores"
{output}
"""

LABELS = "".join(f'[[output.labels]]\nvalue = {k}\nname = "octant {k}"\n' for k in range(1, CLASSES))


def counting(size: Any = ("z", "y", "x"), batch: Any = 1) -> onnx.ModelProto:
    """(N, 1, Z, Y, X) -> the scores (N, 9, Z, Y, X)."""
    k = np.arange(CLASSES, dtype=np.float32)
    weights = {"w": k.reshape(-1, 1, 1, 1, 1), "b": -(k**2) / 2}
    return _model(
        [helper.make_node("Conv", ["image", "w", "b"], ["scores"], name="count")], weights, size, CLASSES, batch
    )


def identity(size: Any = ("z", "y", "x"), channels: int = 1) -> onnx.ModelProto:
    """(1, C, Z, Y, X) -> the sum of its channels, (1, 1, Z, Y, X)."""
    weights = {"w": np.ones((1, channels, 1, 1, 1), np.float32)}
    return _model([helper.make_node("Conv", ["image", "w"], ["scores"], name="sum")], weights, size, 1, 1, channels)


def _model(nodes: Any, weights: Any, size: Any, classes: int, batch: Any, channels: int = 1) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "counting",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, channels, *size])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, classes, *size])],
        [numpy_helper.from_array(v, name) for name, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(
    folder: Path,
    model: onnx.ModelProto,
    *,
    grid: str = "",
    output: str = 'kind = "logits"\n' + LABELS,
    head: str = "",
    input: str = "",
    channel: str = "",
    intensity: str = "",
) -> Path:
    """Write the network and its recipe beside it; the path of the network."""
    path = folder / "counting.onnx"
    onnx.save(model, path)
    text = RECIPE.format(head=head, input=input, channel=channel, grid=grid, intensity=intensity, output=output)
    path.with_suffix(".toml").write_text(text, "utf-8")
    return path
