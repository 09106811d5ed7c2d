"""Engines of the two TensorRT libraries on a GPU: loaded, given other weights, put in streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from voxelrt.backends.tensorrt import keep_file, make_logger
from voxelrt.backends.tensorrt_libraries import Library
from voxelrt.errors import EngineError


class DeviceContext:
    """An engine's state for runs on one stream."""

    def __init__(self, context: Any, told: Callable[[], str], asks: bool) -> None:
        self._context, self._told, self._asks = context, told, asks

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

    def capturable(self, stream: int) -> bool:
        """Whether the next run may be captured as a graph: not while the library still compiles kernels for it."""
        return not self._asks or bool(self._context.is_stream_capturable(stream))


class DeviceEngine:
    """A loaded engine.

    Parameters
    ----------
    trt, library : the library.
    runtime, engine, logger : its objects.
    kept : a file of kernels that were compiled while the engine ran, for libraries that do.
    """

    def __init__(self, trt: Any, library: Library, runtime: Any, engine: Any, logger: Any, kept: Path | None) -> None:
        # An engine does not outlive the runtime that loaded it.
        self._trt, self._library, self._runtime, self._engine, self._logger = trt, library, runtime, engine, logger
        self._kept, self._config, self._cache = kept, None, None
        if library.runtime_cache:
            self._config, self._cache = self._configured()

    def _configured(self) -> tuple[Any, Any]:
        """How contexts are made by a library that compiles kernels when they run first."""
        trt, config = self._trt, self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        # A graph keeps the kernels that it was captured with: they should be those for its shapes.
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        cache = config.create_runtime_cache()
        if self._kept is not None and self._kept.exists():
            cache.deserialize(self._kept.read_bytes())  # False where it is of another driver, and begins anew
        config.set_runtime_cache(cache)
        return config, cache

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
        return DeviceContext(made, self._logger.told, self._library.runtime_cache)

    def refit(self, typed: bytes) -> None:
        """Give it the weights of another network of its structure.

        Raises
        ------
        EngineError : the library refused them.
        """
        trt, logger = self._trt, self._logger
        refitter = trt.Refitter(self._engine, logger)
        if not trt.OnnxParserRefitter(refitter, logger).refit_from_bytes(typed) or not refitter.refit_cuda_engine():
            raise EngineError(f"the engine did not take the network's weights: {logger.told()}")

    def keep(self) -> None:
        """Keep the kernels that were compiled meanwhile for the next process."""
        if self._kept is not None and self._cache is not None:
            keep_file(self._kept, bytes(self._cache.serialize()))

    def _context(self) -> Any:
        how = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED if self._config is None else self._config
        made = self._engine.create_execution_context(how)
        if made is None:
            raise EngineError(f"the engine has no context: {self._logger.told()}")
        return made


def load_engine(library: Library, data: bytes, kept: Path | None = None) -> DeviceEngine:
    """An engine on the current GPU; `kept` as for ``DeviceEngine``.

    Raises
    ------
    MissingExtraError : the library is not installed. EngineError : the engine is of another GPU or library, or
        damaged.
    """
    trt = library.load("running engines on NVIDIA GPUs")
    logger = make_logger(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None or logger.errors:
        raise EngineError(f"{library.module} could not load the engine: {logger.told()}")
    return DeviceEngine(trt, library, runtime, engine, logger, kept)
