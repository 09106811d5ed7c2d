"""Engines are built by TensorRT and by TensorRT-RTX: one face for both, what they differ in is a table
(``tensorrt_libraries.py``). They are loaded in ``tensorrt_engine.py``.

Networks are strongly typed: what each tensor is computed in is what its ONNX type says
(``graph/passes/lower_precision`` writes lower types), and int8 is explicit Q/DQ. A library says many things only to its
logger, a target that it does not know among them, so every line of an error is raised here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxelrt.backends.tensorrt_libraries import RTX, Library
from voxelrt.errors import EngineError, OutputError, UnsupportedError, UsageError
from voxelrt.io.atomic import atomic_path
from voxelrt.plan.gpu_steps import DEFAULT_OPTIONS, EngineOptions, Range

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class EngineRequest:
    """What an engine is built from.

    Parameters
    ----------
    model : ONNX bytes whose types are those to compute in.
    profiles : one a variant: input -> shapes (min, opt, max); inputs of fixed shape need none.
    tf32 : whether float32 products may be rounded to tf32.
    options : see there.
    """

    model: bytes
    profiles: Sequence[Mapping[str, Range]] = ()
    tf32: bool = False
    options: EngineOptions = DEFAULT_OPTIONS


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
    timings: Path | None = None,
) -> bytes:
    """Build an engine.

    Parameters
    ----------
    request : what to build.
    architecture : such as ``sm_86``; None is the GPU of this machine.
    library : which of the two.
    progress : called with (phase, step, steps) while the library works.
    cancelled : asked now and then; True stops the build.
    timings : a file of kernels' times, read and written by libraries that time them.

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
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(request.model):
        raise _unparsed(parser, logger)
    config = builder.create_builder_config()
    if architecture is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, library.targets[architecture]), 0)
    _set_options(trt, config, request, library)
    if timings is not None and library.timing_cache:
        config.set_timing_cache(config.create_timing_cache(_kept(timings)), False)
    if progress is not None:
        config.progress_monitor = _monitor(trt, progress, cancelled)
    for shapes in request.profiles:
        config.add_optimization_profile(_profile(builder, network, shapes))
    built = builder.build_serialized_network(network, config)
    if built is None or logger.errors:
        raise EngineError(f"{library.module} built no engine{_for(architecture)}: {logger.told()}")
    if timings is not None and library.timing_cache:
        keep_file(timings, bytes(config.get_timing_cache().serialize()))
    return bytes(built)


def _kept(place: Path) -> bytes:
    """A kept file's bytes; none where it is not there."""
    try:
        return place.read_bytes()
    except OSError:
        return b""


def keep_file(place: Path, data: bytes) -> None:
    """Keep some bytes in the cache folder; where that cannot be written to they cost time again, not results."""
    with suppress(OSError, OutputError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(place) as partial:
            partial.write_bytes(data)


def unsupported_nodes(model: bytes, library: Library = RTX) -> list[str]:
    """The nodes of an ONNX model that the library does not take, each ``name (operator): reason``.

    Raises
    ------
    MissingExtraError : the library is not installed.
    """
    trt = library.load("asking which nodes it takes")
    logger = make_logger(trt)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    return [] if parser.parse(model) else _node_errors(parser)


def _for(architecture: str | None) -> str:
    return "" if architecture is None else f" for {architecture}"


def _set_options(trt: Any, config: Any, request: EngineRequest, library: Library) -> None:
    # The libraries round products to tf32 unless told not to.
    if request.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    options = request.options
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.effort is not None:
        config.builder_optimization_level = options.effort
    if options.refit:
        if not library.refit:
            raise UsageError(
                f"{library.module} builds no engines that take other weights: leave refit out, or name GPUs whose "
                "engines are built where they run"
            )
        config.set_flag(trt.BuilderFlag.REFIT)


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
            text = _tidy(error.desc())  # of an operator that has no layer it is the condition that failed
            found.append(f"{name} ({operator}): {'there is no such layer' if text in ('', 'false') else text}")
    return list(dict.fromkeys(found))


def _tidy(text: str) -> str:
    """A library's message without its sources' line numbers and line breaks."""
    return re.sub(r"\s+", " ", re.sub(r"\[[\w./]+:\d+\]|In function \w+:?", "", text)).strip()


def make_logger(trt: Any) -> Any:
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
