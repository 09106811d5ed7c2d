"""The GPU part of a plan, opened for one GPU: engines of this very GPU from the plan, or built here once and kept.

``runtime/gpu_network.py`` runs it on any driver; ``CudaPlan`` is the whole of it for arrays of the host.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from voxelrt.backends.tensorrt import EngineRequest, Progress, build_engine, version
from voxelrt.backends.tensorrt_libraries import RTX, TENSORRT, Library, builder_for
from voxelrt.errors import MissingExtraError, PlanError, ShapeError, UsageError
from voxelrt.plan.file import SectionKind
from voxelrt.plan.gpu import TYPED_TARGET
from voxelrt.plan.gpu_codes import CONSTANTS_TARGET, Code, choose, read_codes
from voxelrt.plan.gpu_steps import DTYPES, EngineStep, GpuPart, engine_profiles, parts_of
from voxelrt.plan.plan import Plan
from voxelrt.runtime.engine_cache import EngineKey, cached_engine, timings_place
from voxelrt.runtime.gpu_driver import Driver
from voxelrt.runtime.gpu_network import Compiled, GpuNetwork, load_engines

Array = NDArray[Any]
Engines = Callable[[Plan, GpuPart, str], list[tuple[str, bytes]]]
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)


def gpu_part_of(plan: Plan) -> GpuPart:
    """What a plan says of its GPU part.

    Raises
    ------
    PlanError : it has none.
    """
    raw = plan.info.settings.get("gpu")
    if raw is None:
        raise PlanError(f"{plan.info.name} was not compiled for GPUs: voxelrt compile --device cuda --arch sm_..")
    return GpuPart.from_json(raw)


def compiled_for(plan: Plan, driver: Driver, engines: Engines) -> Compiled:
    """What a plan holds for a GPU.

    Parameters
    ----------
    engines : (plan, part, architecture) -> (library, engine) of each TensorRT step.

    Raises
    ------
    PlanError : the plan has no GPU part, or none that the GPU runs, or is damaged.
    """
    part = gpu_part_of(plan)
    codes, use_ptx, constants = list[Code](), False, list[bytes]()
    if part.codes:
        name, exact = choose([name for name in plan.kernel_targets if name != CONSTANTS_TARGET], driver.architecture)
        codes = read_codes(bytes(plan.section(SectionKind.KERNELS, name)))
        use_ptx = not exact
        constants = parts_of(bytes(plan.section(SectionKind.KERNELS, CONSTANTS_TARGET)))
        if len(codes) != len(part.codes):
            raise PlanError("the plan is damaged: number of its kernels")
    typed = parts_of(bytes(plan.section(SectionKind.TYPED, TYPED_TARGET)))
    found = engines(plan, part, driver.architecture)
    numbers = [step.part for step in part.steps if isinstance(step, EngineStep)]
    if numbers != list(range(len(typed))) or len(found) != len(typed):
        raise PlanError("the plan is damaged: number of its engines")
    return Compiled(part, found, typed, codes, use_ptx, constants)


def find_engines(gpu: str, driver_version: str, progress: Progress | None = None) -> Engines:
    """Each TensorRT step's engine: the plan's own, or built here and kept (``runtime/engine_cache.py``).

    Parameters
    ----------
    gpu, driver_version : part of what an engine that is built here is kept under.
    progress : called with (phase, step, steps) while an engine is built, which takes minutes where kernels are timed.

    Returns
    -------
    A function for ``compiled_for``. It raises MissingExtraError where nothing here builds engines for the GPU, and
    EngineError where one could not be built.
    """

    def found(plan: Plan, part: GpuPart, architecture: str) -> list[tuple[str, bytes]]:
        if part.architectures.get(architecture) == "engine" and RTX.is_here and part.library == _name(RTX):
            return [(RTX.module, data) for data in parts_of(bytes(plan.section(SectionKind.ENGINES, architecture)))]
        library = builder_for(architecture, refit=part.build.refit)
        if library is None:
            raise MissingExtraError(TENSORRT.module, TENSORRT.extra, f"building engines for {architecture} on it")
        target = architecture if library.can_cross_target else None
        name, options = _name(library), part.build
        timings = timings_place(gpu, driver_version, name)
        steps = [step for step in part.steps if isinstance(step, EngineStep)]
        typed = parts_of(bytes(plan.section(SectionKind.TYPED, TYPED_TARGET)))
        made = []
        for step, model in zip(steps, typed, strict=True):
            request = EngineRequest(model, engine_profiles(step.profiles), part.precision == "tf32", options)
            shapes = repr((step.part, sorted(step.profiles.items())))
            graph = structure_of(model) if options.refit else part.graph
            key = EngineKey(graph, shapes, part.precision, gpu, architecture, driver_version, name, repr(options))
            build = partial(build_engine, request, target, library=library, progress=progress, timings=timings)
            made.append((library.module, cached_engine(key, build)))
        return made

    return found


def structure_of(typed: bytes) -> str:
    """A digest of a network without the numbers of its weights."""
    model = onnx.load_from_string(typed)
    for tensor in model.graph.initializer:
        if tensor.data_type in _FLOATS:
            for field in ("raw_data", "float_data", "int32_data", "double_data"):
                tensor.ClearField(field)
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _name(library: Library) -> str:
    return f"{library.module} {version(library)}"


class CudaPlan:
    """A plan's GPU part for arrays: inputs go up, the network runs, outputs come down. One run at a time.

    Parameters
    ----------
    plan : compiled with ``device="cuda"``.
    driver : of the GPU.
    engines : where engines come from, see ``find_engines``.
    batch : items in one run at most; default the plan's most.

    Raises
    ------
    PlanError : the plan has no GPU part. EngineError, DeviceError : it could not be loaded.
    DeviceMemoryError : the GPU has too little memory.
    """

    def __init__(self, plan: Plan, driver: Driver, engines: Engines, batch: int | None = None) -> None:
        self.driver = driver
        compiled = compiled_for(plan, driver, engines)
        self.part = compiled.part
        self._network = GpuNetwork(driver, compiled, batch or self.part.batches[1], load_engines(driver, compiled))
        self._stream, self._done = driver.stream(), driver.event()
        names = (*self.part.profiles, *self.part.outputs)
        sizes = {name: self.part.values[name].bytes_at(self._network.batch) for name in names}
        self._device = {name: driver.allocate(max(size, 1)) for name, size in sizes.items()}
        self._pinned = {name: driver.allocate_host(max(size, 1)) for name, size in sizes.items()}

    def close(self) -> None:
        """Give the device's memory back."""
        for address in self._device.values():
            self.driver.free(address)
        self._device = {}
        self._network.close()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Run the network: name -> array of the host.

        Parameters
        ----------
        inputs : name -> array of the plan's dtype and a shape in its range.

        Raises
        ------
        UsageError : unknown or missing names. ShapeError : shapes or dtypes that the plan does not take.
        DeviceError, EngineError : the GPU failed.
        """
        arrays, batch = self._checked(inputs)
        driver, stream, values = self.driver, self._stream, self.part.values
        for name, array in arrays.items():
            staged = self._pinned[name][: array.nbytes]
            staged[:] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
            driver.upload(stream, self._device[name], staged)
        self._network.run(stream, self._device, batch)
        for name in self.part.outputs:
            driver.download(stream, self._pinned[name][: values[name].bytes_at(batch)], self._device[name])
        driver.record(self._done, stream)
        driver.synchronize(self._done)
        made = {}
        for name in self.part.outputs:
            raw = self._pinned[name][: values[name].bytes_at(batch)]
            made[name] = raw.view(DTYPES[values[name].dtype]).reshape(values[name].dims_at(batch)).copy()
        return made

    def _checked(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Array], int]:
        """The inputs as arrays, and the batch they make."""
        part, wanted = self.part, ", ".join(self.part.profiles)
        missing = [name for name in part.profiles if name not in inputs]
        unknown = sorted(set(inputs) - set(part.profiles))
        if missing or unknown:
            wrong = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(unknown)}"] * bool(
                unknown
            )
            raise UsageError(f"the plan takes the inputs {wanted}: {'; '.join(wrong)}")
        arrays = {name: np.asarray(inputs[name]) for name in part.profiles}
        batches = set()
        for name, (least, _, most) in part.profiles.items():
            array, value = arrays[name], part.values[name]
            inside = array.ndim == len(least) and all(
                a <= d <= b for a, d, b in zip(least, array.shape, most, strict=True)
            )
            if not inside or array.dtype != DTYPES[value.dtype]:
                span = f"{least}" if least == most else f"{least} to {most}"
                raise ShapeError(
                    f"the input {name} is {array.dtype} {array.shape}; the plan takes {value.dtype} {span}"
                )
            if value.batched:
                batches.add(array.shape[0] // value.dims[0])
        if len(batches) > 1:
            raise ShapeError(f"the inputs have different batches: {sorted(batches)}")
        return arrays, batches.pop() if batches else 1
