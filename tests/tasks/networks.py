"""Networks whose answers are known, and recipes beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from voxelrt.volume import Volume

Array = NDArray[Any]
# Oblique, anisotropic, left-handed: a mistake of axes or signs moves what is found.
OBLIQUE = np.array(
    [[-0.9, 0.35, 0.2, 31.0], [0.3, 1.9, -0.5, -12.0], [0.25, 0.4, 2.8, 7.0], [0.0, 0.0, 0.0, 1.0]], np.float64
)


def save(
    folder: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Mapping[str, Sequence[Any]],
    weights: Mapping[str, Array],
    recipe: str,
) -> Path:
    """Write network and recipe; the recipe's path."""
    graph = helper.make_graph(
        list(nodes),
        "known",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "known.onnx")
    path = folder / "known.toml"
    path.write_text(recipe, "utf-8")
    return path


def study(array: Array, affine: Array = OBLIQUE) -> Volume:
    """A volume on the oblique grid."""
    return Volume(np.asarray(array, np.float32), affine)
