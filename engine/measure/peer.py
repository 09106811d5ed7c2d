"""Another program on a plan's own graph, in a process of its own.

``python -m voxelrt.measure.peer NAME FOLDER THREADS``: FOLDER holds ``model.onnx`` and ``inputs.npz``. The process
writes one line of JSON when it is ready; then, for each line it reads, ``run`` is answered with the seconds of one run
and ``answer`` writes ``NAME.npz``. It ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Run = Callable[[], Arrays]


def onnxruntime(model: Path, inputs: Arrays, threads: int) -> Run:
    """All optimisations, which is its default, and arrays in the caller's memory."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    taken = {value.name for value in session.get_inputs()}
    fed = {name: array for name, array in inputs.items() if name in taken}
    return lambda: dict(zip(names, session.run(names, fed), strict=True))


def openvino(model: Path, inputs: Arrays, threads: int) -> Run:
    """The latency hint and one stream; float32 by name, since its default may be bfloat16."""
    import openvino as ov

    core = ov.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    network = core.read_model(str(model))
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    taken = {port.get_any_name() for port in network.inputs}
    fed = {name: array for name, array in inputs.items() if name in taken}
    names = [port.get_any_name() for port in network.outputs]

    def run() -> Arrays:
        request.infer(fed, share_inputs=True, share_outputs=True)
        return {name: request.get_output_tensor(i).data for i, name in enumerate(names)}

    return run


def torch(model: Path, inputs: Arrays, threads: int) -> Run:
    """The same weights as torch modules, eager, in inference mode."""
    import onnx_ir as ir
    import torch as pytorch

    from voxelrt.measure.torch_twin import build_twin

    pytorch.set_num_threads(threads)
    graph = ir.load(model).graph
    (name,) = (value.name for value in graph.outputs)
    (taken,) = (value.name for value in graph.inputs)
    module, x = build_twin(model).eval(), pytorch.from_numpy(inputs[str(taken)])

    def run() -> Arrays:
        with pytorch.inference_mode():
            return {str(name): module(x).numpy()}

    return run


PEERS: dict[str, Callable[[Path, Arrays, int], Run]] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "torch": torch,
}


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays whose names may be any text: the names come first, as an array of their own."""
    np.savez(path, np.array(list(arrays)), *arrays.values())


def load_arrays(path: Path) -> Arrays:
    """Read what ``save_arrays`` wrote."""
    with np.load(path) as stored:
        return {str(name): stored[f"arr_{i}"] for i, name in enumerate(stored["arr_0"], 1)}


def main() -> None:
    """Serve one peer; what its libraries print goes to standard error."""
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(**answer: Any) -> None:
        replies.write(json.dumps(answer) + "\n")
        replies.flush()

    try:
        inputs = load_arrays(folder / "inputs.npz")
        run = PEERS[name](folder / "model.onnx", inputs, threads)
        answer = run()
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is its row's result
        reply(error=f"{type(error).__name__}: {str(error).strip()[:400] or 'no message'}")
        return
    reply(ready=True)
    for line in sys.stdin:
        try:
            if line.strip() == "answer":
                save_arrays(folder / f"{name}.npz", answer)
                reply(ready=True)
            else:
                start = time.perf_counter()
                answer = run()
                reply(seconds=time.perf_counter() - start)
        except Exception as error:  # noqa: BLE001 - as above
            reply(error=f"{type(error).__name__}: {str(error).strip()[:400] or 'no message'}")


if __name__ == "__main__":
    main()
