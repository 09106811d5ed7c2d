"""What drives each program: load a network once, then answer one fixed input as often as asked.

Every runner gets the input as a C-ordered array in the network's own layout and must leave the answer where the caller
can read it: that much is timed, for all alike. Packages are imported by the runner that needs them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Runner(Protocol):
    """One loaded network and its input."""

    def run(self) -> float | None:
        """Compute the answer; it is complete when this returns. Seconds, where not all of the call is to count."""

    def answer(self) -> Array:
        """A float32 copy of the last answer, outside of what is timed."""


class _VoxelRT:
    """A plan of our own kernels alone: what they do not run is an error, never ONNX Runtime's time under our name."""

    def __init__(self, model: Path, x: Array, threads: int, options: Mapping[str, Any]) -> None:
        from voxelrt.compile import compile as compile_plan

        self.plan = compile_plan(
            str(model), device="cpu", verify=False, fallback=options.get("fallback", "error"), threads=threads
        )
        self.inputs = {self.plan.inputs[0].name: x}
        self.outputs = self.plan.run(self.inputs)

    def run(self) -> float | None:
        self.plan.run(self.inputs, out=self.outputs)
        return None

    def answer(self) -> Array:
        return np.array(next(iter(self.outputs.values())), np.float32)


class _VoxelRTSteps(_VoxelRT):
    """A single layer: only its convolution counts, between a network's steps nothing changes its layout."""

    def __init__(self, model: Path, x: Array, threads: int, options: Mapping[str, Any]) -> None:
        from voxelrt.plan.description import step_rows

        super().__init__(model, x, threads, options)
        self.counted = [i for i, row in enumerate(step_rows(self.plan)) if row["kernel"].startswith("conv3d.")]

    def run(self) -> float:
        times = self.plan.time_steps(self.inputs, out=self.outputs).time_ns
        return float(times[self.counted].sum()) * 1e-9


class _OnnxRuntime:
    def __init__(self, model: Path, x: Array, threads: int, options: Mapping[str, Any]) -> None:
        import onnxruntime as ort

        levels = {
            "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
            "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        }
        session_options = ort.SessionOptions()
        session_options.intra_op_num_threads = threads
        session_options.graph_optimization_level = levels[options["graph_optimization_level"]]
        spinning = "1" if options["intra_op_spinning"] else "0"
        session_options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        self.session = ort.InferenceSession(str(model), session_options, providers=["CPUExecutionProvider"])
        output = self.session.get_outputs()[0]
        self.output = ort.OrtValue.ortvalue_from_shape_and_type(output.shape, np.float32, "cpu")
        self.binding = self.session.io_binding()
        self.binding.bind_ortvalue_input(self.session.get_inputs()[0].name, ort.OrtValue.ortvalue_from_numpy(x))
        self.binding.bind_ortvalue_output(output.name, self.output)

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def answer(self) -> Array:
        return np.array(self.output.numpy(), np.float32)


class _OpenVino:
    def __init__(self, model: Path, x: Array, threads: int, options: Mapping[str, Any]) -> None:
        import openvino

        core = openvino.Core()
        settings = {
            "PERFORMANCE_HINT": options["performance_hint"],
            "INFERENCE_PRECISION_HINT": options["inference_precision"],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        compiled = core.compile_model(core.read_model(str(model)), "CPU", settings)
        used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if used != options["inference_precision"]:
            raise RuntimeError(f"OpenVINO computes in {used} here, not in {options['inference_precision']}")
        self.request = compiled.create_infer_request()
        self.x = x

    def run(self) -> None:
        self.request.infer([self.x], share_inputs=True, share_outputs=True)

    def answer(self) -> Array:
        return np.array(self.request.get_output_tensor(0).data, np.float32)


class _Torch:
    def __init__(self, model: Path, x: Array, threads: int, options: Mapping[str, Any]) -> None:
        import torch

        from voxelrt.measure.torch_twin import build_twin

        torch.set_num_threads(threads)
        self.torch = torch
        self.module: Any = build_twin(model).eval()
        self.autocast = options.get("autocast", "")
        self.x = torch.from_numpy(x)
        if options.get("memory_format") == "channels_last_3d":
            self.module = self.module.to(memory_format=torch.channels_last_3d)
            self.x = self.x.contiguous(memory_format=torch.channels_last_3d)
        self.output: Any = None

    def run(self) -> None:
        torch = self.torch
        cast = torch.autocast("cpu", getattr(torch, self.autocast)) if self.autocast else contextlib.nullcontext()
        with torch.inference_mode(), cast:
            self.output = self.module(self.x)

    def answer(self) -> Array:
        return np.array(self.output.float().contiguous().numpy(), np.float32)


class _TorchCompiled(_Torch):
    def __init__(self, model: Path, x: Array, threads: int, options: Mapping[str, Any]) -> None:
        import torch
        import torch._inductor.config

        super().__init__(model, x, threads, options)
        torch._inductor.config.freezing = options["freezing"]
        self.module = torch.compile(self.module)

    def run(self) -> None:
        with self.torch.no_grad():  # freezing needs no_grad; it does not take inference tensors
            self.output = self.module(self.x)


RUNNERS: dict[str, Callable[[Path, Array, int, Mapping[str, Any]], Runner]] = {
    "voxelrt": _VoxelRT,
    "voxelrt_steps": _VoxelRTSteps,
    "onnxruntime": _OnnxRuntime,
    "openvino": _OpenVino,
    "torch_eager": _Torch,
    "torch_compile": _TorchCompiled,
}
