"""ONNX Runtime: islands of nodes without a native kernel, on the plan's own memory, and the reference executor."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from voxelrt import environment
from voxelrt.errors import MissingExtraError, ModelError, PlanError, UnsupportedError

Array = NDArray[Any]
_PLAIN = frozenset(
    ("float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool")
)


def runtime(purpose: str) -> Any:
    """The onnxruntime module. Raises MissingExtraError where it is not installed."""
    try:
        import onnxruntime  # an extra
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnxruntime", purpose) from error
    return onnxruntime


def make_session(model: bytes, threads: int, purpose: str = "a plan with nodes that have no native kernel") -> Any:
    """A session on one budget of threads, which sleep between runs instead of spinning.

    Raises
    ------
    MissingExtraError : onnxruntime is not installed.
    UnsupportedError : ONNX Runtime cannot load the model; names its nodes.
    """
    module = runtime(purpose)
    options = module.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = module.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return module.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        nodes = onnx.ModelProto.FromString(model).graph.node
        raise UnsupportedError(
            f"ONNX Runtime {module.__version__} cannot run these nodes: {_text(error)}",
            [f"{node.name} ({node.op_type})" for node in nodes],
        ) from error


def _text(error: BaseException) -> str:
    """What ONNX Runtime says, without its own codes and source paths."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    text = re.sub(r"/\S*onnxruntime\S*:\d+ [^\n]*?(?=\n|$)", "", text)
    return " ".join(text.split())[:500] or type(error).__name__


class Island:
    """A part of a graph that ONNX Runtime executes.

    Parameters
    ----------
    model : the part as ONNX, by ``voxelrt.plan.islands``.
    threads : compute threads, the plan's own number: islands and native steps never run at once.
    """

    def __init__(self, model: bytes, threads: int) -> None:
        self._session = make_session(model, threads)
        graph = onnx.ModelProto.FromString(model).graph
        self.inputs = [info.name for info in graph.input]
        self.outputs = [info.name for info in graph.output]
        self._types = {i.name: i.type.tensor_type.elem_type for i in (*graph.input, *graph.output)}
        self._names = ", ".join(f"{node.name} ({node.op_type})" for node in graph.node)

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Read the inputs and fill the outputs, C-contiguous arrays on any memory; nothing is copied.

        Raises
        ------
        ModelError : ONNX Runtime failed; names the nodes.
        """
        binding = self._session.io_binding()
        for name, array in zip(self.inputs, inputs, strict=True):
            binding.bind_input(name, "cpu", 0, self._types[name], array.shape, array.ctypes.data)
        for name, array in zip(self.outputs, outputs, strict=True):
            binding.bind_output(name, "cpu", 0, self._types[name], array.shape, array.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed in {self._names}: {_text(error)}") from error

    def call(self, inputs: Mapping[str, Any]) -> list[Any]:
        """Values of any kind in (arrays, lists for sequences, None for empty optionals), new values out, in order.

        Raises
        ------
        ModelError : ONNX Runtime failed, or an output has a dtype that it cannot give out.
        """
        try:
            if all(
                not isinstance(v, np.ndarray) or v.dtype.name in _PLAIN or v.dtype.kind in "OUS"
                for v in inputs.values()
            ):
                return list(self._session.run(None, dict(inputs)))
            module = runtime("an island")
            values = {n: _ort_value(module, np.asarray(v), self._types[n]) for n, v in inputs.items()}
            return [value.numpy() for value in self._session.run_with_ort_values(None, values)]
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed in {self._names}: {_text(error)}") from error


def _ort_value(module: Any, array: Array, element: int) -> Any:
    if array.dtype.kind in "OUS":
        return module.OrtValue.ortvalue_from_numpy(array)
    return module.OrtValue.ortvalue_from_numpy_with_onnx_type(np.asarray(array, order="C"), element)


def load_islands(section: bytes, threads: int) -> dict[int, Island]:
    """The islands of a plan: a JSON line with their sizes, then their ONNX models.

    Raises
    ------
    PlanError : the section is damaged. MissingExtraError, UnsupportedError : as ``make_session``.
    """
    head, _, data = section.partition(b"\n")
    try:
        sizes = [int(size) for size in json.loads(head)]
    except (ValueError, TypeError) as error:
        raise PlanError("the plan is damaged: its islands section does not begin with a list of sizes") from error
    if any(size < 0 for size in sizes) or sum(sizes) != len(data):
        raise PlanError(f"the plan is damaged: its islands should have {sum(sizes)} bytes and have {len(data)}")
    islands: dict[int, Island] = {}
    start = 0
    for number, size in enumerate(sizes):
        islands[number] = Island(data[start : start + size], threads)
        start += size
    return islands


def reference_session(model: bytes, threads: int | None = None) -> Callable[[dict[str, Array]], list[Array]]:
    """A whole model in ONNX Runtime, as the measure of a plan: a function from inputs by name to outputs in order."""
    island = Island(model, threads or environment.threads())

    def run(inputs: dict[str, Array]) -> list[Array]:
        return island.call({name: inputs[name] for name in island.inputs})

    return run
