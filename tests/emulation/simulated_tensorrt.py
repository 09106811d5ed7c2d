"""TensorRT, as far as we call it, over the simulated driver; see ``simulated_cupy.py``."""

from __future__ import annotations

import json
from enum import IntEnum
from types import ModuleType
from typing import Any

import numpy as np
import onnx

from tests.emulation.simulated_driver import MisuseError, SimulatedEngine

MAGIC = b"SIMULATED"


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(IntEnum):
    TF32 = 7
    REFIT = 2


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class ExecutionContextAllocationStrategy(IntEnum):
    STATIC = 0
    USER_MANAGED = 2


class INetworkDefinition:
    def __init__(self) -> None:
        self.model: onnx.ModelProto | None = None

    @property
    def num_inputs(self) -> int:
        assert self.model is not None
        return len(self.model.graph.input)

    def get_input(self, index: int) -> Any:
        assert self.model is not None
        return self.model.graph.input[index]


class ParserError:
    def __init__(self, name: str, operator: str) -> None:
        self._name, self._operator = name, operator

    def node_name(self) -> str:
        return self._name

    def node_operator(self) -> str:
        return self._operator

    def desc(self) -> str:
        return "is not taken"


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse(self, model: bytes) -> bool:
        made = onnx.load_from_string(model)
        self._errors = [ParserError(n.name, n.op_type) for n in made.graph.node if n.domain not in ("", "ai.onnx")]
        self._network.model = made
        return not self._errors


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Any, Any, Any]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = (min, opt, max)

    def __bool__(self) -> bool:
        return all((np.diff(np.array(three), axis=0) >= 0).all() for three in self.shapes.values())


class ITimingCache:
    def __init__(self, blob: bytes) -> None:
        self.blob = bytes(blob)

    def serialize(self) -> bytes:
        return self.blob


class IBuilderConfig:
    builder_optimization_level = 3
    progress_monitor: IProgressMonitor | None = None

    def __init__(self) -> None:
        self.flags, self.pools = set[BuilderFlag](), dict[Any, int]()
        self.profiles: list[IOptimizationProfile] = []
        self._timing: ITimingCache | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.pools[pool] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._timing = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timing


class Builder:
    built: list[IBuilderConfig] = []  # noqa: RUF012 - of all builders, for tests to look at

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int) -> INetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        assert network.model is not None
        moving = {v.name for v in network.model.graph.input if any(d.dim_param for d in v.type.tensor_type.shape.dim)}
        if moving - {name for profile in config.profiles for name in profile.shapes}:
            self._logger.log(ILogger.ERROR, "a moving dimension has no profile")
            return None
        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Building Engine", "", 2)
            for step in range(2):
                if not config.progress_monitor.step_complete("Building Engine", step):
                    return None
            config.progress_monitor.phase_finish("Building Engine")
        timing = config.get_timing_cache()
        if timing is not None:
            timing.blob += b"timed "
        Builder.built.append(config)
        ranges = [
            {name: [list(map(int, s)) for s in three] for name, three in p.shapes.items()} for p in config.profiles
        ]
        head = json.dumps({"ranges": ranges, "refit": BuilderFlag.REFIT in config.flags}).encode()
        return MAGIC + len(head).to_bytes(4, "little") + head + network.model.SerializeToString()


class IExecutionContext:
    def __init__(self, world: Any, engine: ICudaEngine) -> None:
        self._world, self._engine = world, engine
        self._dims: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._context: Any = None

    def set_input_shape(self, name: str, shape: Any) -> bool:
        shape = tuple(int(n) for n in shape)
        for profile in self._engine.ranges:
            if name in profile:
                least, _, most = profile[name]
                if not all(a <= d <= b for a, d, b in zip(least, shape, most, strict=True)):
                    return False
        self._dims[name] = shape
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert type(memory) is int
        self._addresses[name] = memory
        return memory % 256 == 0

    def update_device_memory_size_for_shapes(self) -> int:
        return self._engine.simulated.scratch_bytes(self._dims)

    def set_device_memory(self, memory: int, size: int) -> None:
        self._context = self._engine.simulated.context(memory, size)

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self._context is None:
            raise MisuseError("a context of the user's own memory runs without any")
        given = {io.name for io in self._engine.simulated.session.get_inputs()}
        if given != set(self._dims) or len(self._addresses) < len(given) + 1:
            return False
        self._context.enqueue(self._world[stream_handle], self._addresses, self._dims)
        return True


class ICudaEngine:
    def __init__(self, world: Any, ranges: list[dict[str, Any]], model: bytes, refittable: bool) -> None:
        self._world, self.ranges, self.refittable = world, ranges, refittable
        self.simulated = SimulatedEngine(world.driver, model)

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> IExecutionContext:
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        return IExecutionContext(self._world, self)


class Refitter:
    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
        self.engine, self.model = engine, b""

    def refit_cuda_engine(self) -> bool:
        if not self.engine.refittable or not self.model:
            return False
        self.engine.simulated = SimulatedEngine(self.engine._world.driver, self.model)
        return True


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter, logger: ILogger) -> None:
        self._refitter = refitter

    def refit_from_bytes(self, model: bytes) -> bool:
        self._refitter.model = model
        return True


def module(world: Any) -> ModuleType:
    """The module, whose runtime loads engines on a simulated GPU."""

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            if serialized_engine[: len(MAGIC)] != MAGIC:
                self._logger.log(ILogger.ERROR, "the engine is damaged")
                return None
            rest = serialized_engine[len(MAGIC) :]
            size = int.from_bytes(rest[:4], "little")
            head = json.loads(rest[4 : 4 + size])
            return ICudaEngine(world, head["ranges"], rest[4 + size :], head["refit"])

    made: Any = ModuleType("tensorrt")
    for one in (
        *(ILogger, IProgressMonitor, NetworkDefinitionCreationFlag, BuilderFlag, MemoryPoolType, Builder, OnnxParser),
        *(ExecutionContextAllocationStrategy, Runtime, Refitter, OnnxParserRefitter),
    ):
        setattr(made, one.__name__, one)
    made.__version__ = "11.4.0"
    whole: ModuleType = made
    return whole
