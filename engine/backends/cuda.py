"""The GPU part of a plan, run: TensorRT engines on one stream, between buffers of the device's memory.

CuPy allocates and copies; everything else takes pointers and stream handles. An engine for this very GPU comes from the
plan, else it is built from the plan's typed ONNX once and kept (``runtime/engine_cache.py``).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.backends.tensorrt import EngineRequest, build_engine, load_engine, version
from voxelrt.backends.tensorrt_libraries import RTX, TENSORRT, Library
from voxelrt.errors import DeviceError, PlanError, ShapeError, UsageError
from voxelrt.kernels.common.gpu.device import open_device
from voxelrt.plan.file import SectionKind
from voxelrt.plan.gpu import TYPED_TARGET, GpuPart, engine_profiles, parts_of
from voxelrt.plan.plan import Plan
from voxelrt.runtime.engine_cache import EngineKey, cached_engine

Array = NDArray[Any]


class CudaPlan:
    """A plan's GPU part, loaded on the current GPU.

    Parameters
    ----------
    plan : compiled with ``device="cuda"``.

    Raises
    ------
    PlanError : the plan has no GPU part.
    MissingExtraError : CuPy or TensorRT is not installed.
    DeviceError : there is no GPU, or an unknown one for which nothing here builds engines.
    EngineError : an engine could not be built or loaded.
    """

    def __init__(self, plan: Plan) -> None:
        raw = plan.info.settings.get("gpu")
        if raw is None:
            raise PlanError(f"{plan.info.name} was not compiled for GPUs: voxelrt compile --device cuda --arch sm_..")
        self.part = GpuPart.from_json(raw)
        purpose = "running a plan on a GPU"
        self._device = open_device(purpose)
        import cupy

        self._cupy = cupy
        self.architecture = f"sm_{self._device.target}"
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._engines = [load_engine(library, data) for library, data in self._find_engines(plan)]
        self._inputs = {io.name: np.dtype(np.float32) for io in plan.inputs}

    def _find_engines(self, plan: Plan) -> list[tuple[Library, bytes]]:
        """Each TensorRT step's engine: the plan's own, or built here."""
        if self.part.architectures.get(self.architecture) == "engine" and self.part.library == _name(RTX):
            section = bytes(plan.section(SectionKind.ENGINES, self.architecture))
            return [(RTX, data) for data in parts_of(section)]
        library = _builder_for(self.architecture)
        typed = parts_of(bytes(plan.section(SectionKind.TYPED, TYPED_TARGET)))
        found = []
        for model in typed:
            request = EngineRequest(model, engine_profiles(self.part.profiles), tf32=self.part.precision == "tf32")
            target = self.architecture if library.can_cross_target else None
            build = partial(build_engine, request, target, library=library)
            found.append((library, cached_engine(self._key(library), build)))
        return found

    def _key(self, library: Library) -> EngineKey:
        runtime = self._cupy.cuda.runtime
        properties = runtime.getDeviceProperties(runtime.getDevice())
        return EngineKey(
            self.part.graph,
            repr(sorted(self.part.profiles.items())),
            self.part.precision,
            properties["name"].decode(),
            self.architecture,
            str(runtime.driverGetVersion()),
            _name(library),
        )

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Run the network: name -> array on the host.

        Parameters
        ----------
        inputs : name -> float32 array on the host, or on this GPU (anything with DLPack).

        Raises
        ------
        UsageError : unknown or missing names. ShapeError : shapes outside the plan's range.
        DeviceError : the GPU failed.
        """
        values = {name: self._upload(name, inputs) for name in self.part.profiles}
        unknown = sorted(set(inputs) - set(values))
        if unknown:
            raise UsageError(f"the plan has no input {', '.join(unknown)}; it takes {', '.join(values)}")
        with self._stream:
            for step, engine in zip(self.part.steps, self._engines, strict=True):
                made = engine.execute({name: values[name] for name in step.inputs}, self._stream.ptr, self._empty)
                values.update(made)
        self._stream.synchronize()
        return {name: values[name].get() for name in self.part.steps[-1].outputs}

    def _empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._cupy.empty(shape, dtype)

    def _upload(self, name: str, inputs: Mapping[str, Any]) -> Any:
        if name not in inputs:
            raise UsageError(f"the plan takes the inputs {', '.join(self.part.profiles)}: missing {name}")
        least, _, most = self.part.profiles[name]
        given = inputs[name]
        array = self._cupy.from_dlpack(given) if hasattr(given, "__cuda_array_interface__") else np.asarray(given)
        fits = len(array.shape) == len(least) and all(
            a <= d <= b for a, d, b in zip(least, array.shape, most, strict=True)
        )
        if not fits or array.dtype != self._inputs.get(name, array.dtype):
            raise ShapeError(f"the input {name} is {array.dtype} {array.shape}; the plan takes {least} to {most}")
        with self._stream:
            return self._cupy.ascontiguousarray(self._cupy.asarray(array))


def _name(library: Library) -> str:
    return f"{library.module} {version(library)}"


def _builder_for(architecture: str) -> Library:
    """The library that builds for this GPU, on it."""
    if architecture in RTX.targets and importlib.util.find_spec(RTX.module) is not None:
        return RTX
    if importlib.util.find_spec(TENSORRT.module) is not None:
        return TENSORRT
    raise DeviceError(f"no library here builds engines for {architecture}: install tensorrt, then open the plan again")
