"""ONNX Runtime beside the demo's plan: the same graph, as many threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import MissingExtraError
from voxelrt.plan.file import SectionKind
from voxelrt.plan.plan import Plan

Arrays = Mapping[str, NDArray[Any]]


def onnxruntime_runner(plan: Plan) -> Callable[[Arrays], dict[str, NDArray[Any]]]:
    """The plan's own graph in ONNX Runtime.

    Raises
    ------
    MissingExtraError : ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnxruntime", "the demo's comparison") from error
    import onnx_ir as ir

    from voxelrt.plan.portable import read_graph

    graph = read_graph(bytes(plan.section(SectionKind.GRAPH)), plan.section(SectionKind.WEIGHTS))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = plan.threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        ir.to_proto(graph).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    taken = {value.name for value in session.get_inputs()}

    def run(inputs: Arrays) -> dict[str, NDArray[Any]]:
        fed = {name: np.asarray(array) for name, array in inputs.items() if name in taken}
        return dict(zip(names, session.run(names, fed), strict=True))

    return run
