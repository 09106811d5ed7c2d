"""Engines of TensorRT and of TensorRT-RTX: one face for both, their differences are in ``tensorrt_libraries.py``.

Networks are strongly typed: what each tensor is computed in is what its ONNX type says
(``graph/passes/lower_precision`` writes lower types), and int8 is explicit Q/DQ. A library says many things only to its
logger, a target that it does not know among them, so every line of an error is raised here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxelrt.backends.tensorrt_libraries import RTX, Library
from voxelrt.errors import EngineError, UnsupportedError, UsageError
from voxelrt.plan.gpu_steps import Range

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class EngineRequest:
    """What an engine is built from.

    Parameters
    ----------
    model : ONNX bytes whose types are those to compute in.
    profiles : one a variant: input -> shapes (min, opt, max); inputs of fixed shape need none.
    tf32 : whether float32 products may be rounded to tf32.
    workspace : bytes that kernels may use beside the activations; None is the library's default.
    """

    model: bytes
    profiles: Sequence[Mapping[str, Range]] = ()
    tf32: bool = False
    workspace: int | None = None


def version(library: Library = RTX) -> str:
    """The library's version, part of an engine's identity."""
    return str(library.load("reading its version").__version__)


def build_engine(
    request: EngineRequest,
    architecture: str | None,
    *,
    library: Library = RTX,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> bytes:
    """Build an engine.

    Parameters
    ----------
    request : what to build.
    architecture : such as ``sm_86``; None is the GPU of this machine.
    library : which of the two.
    progress : called with (phase, step, steps) while the library works.
    cancelled : asked now and then; True stops the build.

    Returns
    -------
    The serialised engine. Two builds of the same request differ in bytes.

    Raises
    ------
    MissingExtraError : the library is not installed.
    UsageError : the library does not build for that architecture.
    UnsupportedError : nodes that the library does not take, all of them named.
    EngineError : anything else that the library reported as an error.
    """
    trt = library.load("building engines for NVIDIA GPUs")
    if architecture is not None and architecture not in library.targets:
        known = ", ".join(library.targets) or "the GPU it runs on only"
        raise UsageError(f"{library.module} builds engines for {known}, not for {architecture}")
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(request.model):
        raise _unparsed(parser, logger)
    config = builder.create_builder_config()
    if architecture is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, library.targets[architecture]), 0)
    _set_tf32(trt, config, request.tf32)
    if request.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace)
    if progress is not None:
        config.progress_monitor = _monitor(trt, progress, cancelled)
    for shapes in request.profiles:
        config.add_optimization_profile(_profile(builder, network, shapes))
    built = builder.build_serialized_network(network, config)
    if built is None or logger.errors:
        raise EngineError(f"{library.module} built no engine{_for(architecture)}: {logger.told()}")
    return bytes(built)


def unsupported_nodes(model: bytes, library: Library = RTX) -> list[str]:
    """The nodes of an ONNX model that the library does not take, each ``name (operator): reason``.

    Raises
    ------
    MissingExtraError : the library is not installed.
    """
    trt = library.load("asking which nodes it takes")
    logger = _logger(trt)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    return [] if parser.parse(model) else _node_errors(parser)


class DeviceContext:
    """An engine's state for runs on one stream."""

    def __init__(self, context: Any, told: Callable[[], str]) -> None:
        self._context, self._told = context, told

    def enqueue(self, stream: int, addresses: Mapping[str, int], dims: Mapping[str, tuple[int, ...]]) -> None:
        """Put a run in a stream.

        Parameters
        ----------
        stream : its handle.
        addresses : of each input and output.
        dims : of each input.

        Raises
        ------
        EngineError : the engine refused dims or an address, or could not be launched.
        """
        context = self._context
        for name, shape in dims.items():
            if not context.set_input_shape(name, shape):
                raise EngineError(f"the engine refused {shape} for {name}: {self._told()}")
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise EngineError(f"the engine refused an address for {name}: {self._told()}")
        if not context.execute_async_v3(stream):
            raise EngineError(f"the engine could not be launched: {self._told()}")


class DeviceEngine:
    """A loaded engine."""

    def __init__(self, trt: Any, runtime: Any, engine: Any, logger: Any) -> None:
        # An engine does not outlive the runtime that loaded it.
        self._trt, self._runtime, self._engine, self._logger = trt, runtime, engine, logger

    def scratch_bytes(self, dims: Mapping[str, tuple[int, ...]]) -> int:
        """The memory that a run of these inputs works in.

        Raises
        ------
        EngineError : the engine refuses these dims.
        """
        context = self._context()
        for name, shape in dims.items():
            if not context.set_input_shape(name, shape):
                raise EngineError(f"the engine refused {shape} for {name}: {self._logger.told()}")
        return int(context.update_device_memory_size_for_shapes())

    def context(self, scratch: int, size: int) -> DeviceContext:
        """A context that works in `size` bytes at an address; contexts of one stream may share them.

        Raises
        ------
        EngineError : the library made none.
        """
        made = self._context()
        made.set_device_memory(scratch, size)
        return DeviceContext(made, self._logger.told)

    def _context(self) -> Any:
        made = self._engine.create_execution_context(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if made is None:
            raise EngineError(f"the engine has no context: {self._logger.told()}")
        return made


def load_engine(library: Library, data: bytes) -> DeviceEngine:
    """An engine on the current GPU.

    Raises
    ------
    MissingExtraError : the library is not installed. EngineError : the engine is of another GPU or library, or
        damaged.
    """
    trt = library.load("running engines on NVIDIA GPUs")
    logger = _logger(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None or logger.errors:
        raise EngineError(f"{library.module} could not load the engine: {logger.told()}")
    return DeviceEngine(trt, runtime, engine, logger)


def _for(architecture: str | None) -> str:
    return "" if architecture is None else f" for {architecture}"


def _set_tf32(trt: Any, config: Any, wanted: bool) -> None:
    """The libraries round products to tf32 unless told not to."""
    if wanted:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)


def _profile(builder: Any, network: Any, shapes: Mapping[str, Range]) -> Any:
    names = {network.get_input(i).name for i in range(network.num_inputs)}
    unknown = sorted(set(shapes) - names)
    if unknown:
        raise UsageError(f"the network has no input {', '.join(unknown)}; it has {', '.join(sorted(names))}")
    profile = builder.create_optimization_profile()
    for name, (least, usual, most) in shapes.items():
        profile.set_shape(name, least, usual, most)
    if not profile:
        raise UsageError(f"shapes are not in order (min ≤ opt ≤ max): {dict(shapes)}")
    return profile


def _unparsed(parser: Any, logger: Any) -> EngineError | UnsupportedError:
    nodes = _node_errors(parser)
    if nodes:
        return UnsupportedError(f"TensorRT does not take {len(nodes)} of the network's nodes:", nodes)
    return EngineError(f"TensorRT could not read the network: {logger.told()}")


def _node_errors(parser: Any) -> list[str]:
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name, operator = error.node_name(), error.node_operator()
        if operator:
            found.append(f"{name} ({operator}): {_tidy(error.desc())}")
    return list(dict.fromkeys(found))


def _tidy(text: str) -> str:
    """A library's message without its sources' line numbers and line breaks."""
    return re.sub(r"\s+", " ", re.sub(r"\[[\w./]+:\d+\]|In function \w+:?", "", text)).strip()


def _logger(trt: Any) -> Any:
    """A logger that keeps errors; a subclass of a class that is only there once the library is loaded."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(_tidy(message))

        def told(self) -> str:
            return "; ".join(dict.fromkeys(self.errors)) or "it gave no reason"

    return Logger()


def _monitor(trt: Any, progress: Progress, cancelled: Callable[[], bool]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str, steps: int) -> None:
            del parent
            self._steps[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            progress(phase, step + 1, self._steps.get(phase, step + 1))
            return not cancelled()

        def phase_finish(self, phase: str) -> None:
            self._steps.pop(phase, None)

    return Monitor()
