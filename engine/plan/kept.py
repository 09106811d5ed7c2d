"""What a plan keeps of the model that it was compiled of: its graph and its compile-time constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import UsageError
from voxelrt.graph.specialise import specialise
from voxelrt.kernels.common import capi
from voxelrt.plan.file import SectionKind
from voxelrt.plan.plan import Plan
from voxelrt.plan.portable import read_graph

Array = NDArray[Any]


def portable_graph(plan: Plan) -> ir.Model:
    """The graph that a plan was made of, at the shapes of its first variant."""
    graph = read_graph(bytes(plan.section(SectionKind.GRAPH)), plan.section(SectionKind.WEIGHTS))
    return specialise(graph, {io.name: tuple(io.dims) for io in plan.inputs}, kept_constants(plan))


def kept_constants(plan: Plan) -> dict[str, Array]:
    """The compile-time constants that a plan keeps in its settings."""
    return {
        name: np.array(c["values"], capi.numpy_dtype(capi.DTYPES[c["dtype"]])).reshape(c["shape"])
        for name, c in plan.info.settings["constants"].items()
    }


def constant_text(value: Array) -> dict[str, Any]:
    """A compile-time constant as JSON keeps it. Raises UsageError where it is large."""
    array = np.asarray(value)
    if array.size > 4096:
        raise UsageError(f"a compile-time constant of {array.size} elements; at most 4096 are kept with a plan")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "values": array.ravel().tolist()}
