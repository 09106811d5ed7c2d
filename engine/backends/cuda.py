"""The GPU part of a plan, opened for one GPU: engines of this very GPU from the plan, or built here once and kept.

``runtime/gpu_network.py`` runs it on any driver; ``CudaPlan`` is the whole of it for arrays (``runtime/gpu_call.py``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

import onnx

from voxelrt.backends.tensorrt import EngineRequest, Progress, build_engine, version
from voxelrt.backends.tensorrt_libraries import RTX, TENSORRT, Library, builder_for
from voxelrt.errors import MissingExtraError, PlanError
from voxelrt.plan.file import SectionKind
from voxelrt.plan.gpu import TYPED_TARGET
from voxelrt.plan.gpu_codes import CONSTANTS_TARGET, Code, choose, read_codes
from voxelrt.plan.gpu_steps import EngineStep, GpuPart, engine_profiles, parts_of
from voxelrt.plan.plan import Plan
from voxelrt.runtime.engine_cache import EngineKey, cached_engine, timings_place
from voxelrt.runtime.gpu_call import GpuCall
from voxelrt.runtime.gpu_driver import Driver
from voxelrt.runtime.gpu_network import Compiled

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


class CudaPlan(GpuCall):
    """A plan's GPU part for arrays, see ``GpuCall``.

    Parameters
    ----------
    plan : compiled with ``device="cuda"``.
    driver : of the GPU.
    engines : where engines come from, see ``find_engines``.
    batch : items in one run at most; default the plan's most.

    Raises
    ------
    PlanError : the plan has no GPU part. Otherwise as ``GpuCall``.
    """

    def __init__(self, plan: Plan, driver: Driver, engines: Engines, batch: int | None = None) -> None:
        super().__init__(driver, compiled_for(plan, driver, engines), batch)
