"""The rows: a network of MLPerf's 3-D U-Net shape, studies through it, single kernels. Peers come where installed.

Everything is on the device before the clock starts, but for whole studies, whose copies belong to them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import onnx_ir as ir

import voxelrt as vx
from bench.gpu import peers
from bench.gpu.contest import SUBJECT, Array, Contestant, Row, Timed, array_of
from bench.gpu.kernel_rows import filter_rows, kernel_rows
from bench.gpu.scale import Scale, Size, noise
from voxelrt.backends.cuda import compiled_for, find_engines
from voxelrt.backends.cupy_driver import CupyDriver
from voxelrt.kernels.common.kernel import compare
from voxelrt.kernels.resample_argmax.taps import Taps
from voxelrt.models.architectures.unet3d import build_unet3d
from voxelrt.models.load import Model, load
from voxelrt.plan.gpu_steps import EngineOptions
from voxelrt.plan.plan import Plan
from voxelrt.quantise import quantised
from voxelrt.runtime.cuda_scheduler import GpuWindows, study_bytes
from voxelrt.runtime.gpu_network import GpuNetwork, load_engines
from voxelrt.runtime.window_job import Decision, Job, Window
from voxelrt.tiling.windows import importance, starts

APART = "voxelrt, norms by our kernels"
CLASSES = 3  # kidney, tumour and neither
LABELS = 0.1  # ‖e‖/‖ref‖: one voxel in a hundred has its neighbour's label; ties are everywhere in noise


@cache
def driver() -> CupyDriver:
    """The GPU. Raises MissingExtraError, DeviceError."""
    return CupyDriver(0, "bench.gpu")


def _graph(edge: int, features: tuple[int, ...]) -> ir.Model:
    return build_unet3d(features, (edge,) * 3, CLASSES)


@cache
def _plan(edge: int, features: tuple[int, ...], precision: str, norms: str = "engine") -> Plan:
    model = _graph(edge, features)
    extra: dict[str, Any] = {"calibration": [{"input": noise((1, 1, edge, edge, edge))}]} if precision == "int8" else {}
    extra |= {"arch": [driver().architecture], "engine": EngineOptions(norms=norms)}
    return vx.compile(model, device="cuda", precision=precision, verify=False, tune="off", **extra)


def _network(plan: Plan, x: Array, name: str = SUBJECT) -> Contestant:
    gpu = driver()
    compiled = compiled_for(plan, gpu, find_engines(gpu.name, gpu.driver_version))
    network = GpuNetwork(gpu, compiled, 1, load_engines(gpu, compiled))
    stream, event = gpu.stream(), gpu.event()
    part = compiled.part
    (given,), (out,) = part.profiles, part.outputs
    pinned = {name: gpu.allocate_host(part.values[name].item_bytes) for name in (given, out)}
    at = {name: gpu.allocate(part.values[name].item_bytes) for name in (given, out)}
    pinned[given][:] = x.reshape(-1).view(np.uint8)
    gpu.upload(stream, at[given], pinned[given])

    def run() -> None:
        network.run(stream, at, 1)
        gpu.record(event, stream)
        gpu.synchronize(event)

    def answer() -> Array:
        gpu.download(stream, pinned[out], at[out])
        gpu.record(event, stream)
        gpu.synchronize(event)
        return array_of(pinned[out].view(np.float32).reshape(part.values[out].dims))

    return Contestant(name, run, answer)


def network_rows(scale: Scale) -> list[Row]:
    """One window, network only."""
    edge, features = scale.edge, scale.features
    x = noise((1, 1, edge, edge, edge))
    rows = []
    measured = partial(_codes_cost, edge, features)
    for precision, tolerance in (("fp16", 5e-3), ("int8", measured)):
        plan = partial(_plan, edge, features, precision)
        made: dict[str, Callable[[], Contestant]] = {SUBJECT: lambda plan=plan: _network(plan(), x)}  # type: ignore[misc]
        if precision == "fp16":  # which of the two is faster is a thing to know, not to claim
            made[APART] = lambda: _network(_plan(edge, features, "fp16", "kernels"), x, APART)
        made |= peers.networks(lambda: _graph(edge, features), lambda: x)
        title = f"3-D U-Net {features}, one window of {edge}³, {precision}; peers in fp16"
        name = f"unet3d-{edge}-{precision}"
        reference = lambda plan=plan: array_of(plan()(x))  # type: ignore[misc]  # noqa: E731
        rows.append(Row(name, title, (1.0, "windows"), tolerance, reference, made, norms_verdict))
    return rows


def _codes_cost(edge: int, features: tuple[int, ...]) -> float:
    """What an answer in int8 may differ by: twice what the CPU's differs by on the same codes."""
    x = noise((1, 1, edge, edge, edge))
    narrow = vx.compile(_graph(edge, features), precision="int8", calibration=[{"input": x}], verify=False, tune="off")
    return 2 * compare(array_of(narrow(x)), array_of(_plan(edge, features, "fp16")(x))).relative


def norms_verdict(timed: list[Timed]) -> str:
    """Where norms are faster, of a row that has both; a ratio whose interval holds 1 says nothing."""
    ratio = next((entry.ratio for entry in timed if entry.name == APART), None)
    if ratio is None:
        return ""
    if ratio.low <= 1 <= ratio.high:
        return "Norms: no difference between the engine's and our kernels was seen here."
    faster, times = ("engine", ratio.median) if ratio.median > 1 else ("kernels", 1 / ratio.median)
    return f"Norms: `--gpu-norms {faster}` is faster here, by {times:.2f}×."


def _job(edge: int, size: Size, channels: int) -> Job:
    """A study of KiTS-like size: windows of an edge, half of them overlapping, weighted by a Gaussian."""
    data = noise((1, *size))
    places = [starts(n, edge, 0.5) for n in size]
    windows = [Window((z, y, x)) for z in places[0] for y in places[1] for x in places[2]]
    same = [Taps(np.stack([np.arange(n)] * 2).astype(np.int32), np.zeros(n, np.float32)) for n in size]
    inside = (slice(0, size[0]), slice(0, size[1]), slice(0, size[2]))
    decision = Decision(*same, inside, np.arange(channels, dtype=np.int32), False)
    weights = importance((edge,) * 3, 0.125).reshape((edge,) * 3)
    return Job(data, windows, channels, weights, decision, np.zeros(size, np.uint8))


def _study(edge: int, features: tuple[int, ...], size: Size, precision: str) -> Contestant:
    gpu, plan = driver(), _windows_plan(edge, features, precision)
    compiled = compiled_for(plan, gpu, find_engines(gpu.name, gpu.driver_version))
    channels = plan.outputs[0].dims[1]
    job = _job(edge, size, channels)
    sizes = study_bytes(job.data.shape, channels, edge, job.labels[0].nbytes)
    windows = GpuWindows(gpu, compiled, *sizes)
    return Contestant(SUBJECT, lambda: windows.run(job), lambda: array_of(job.labels))


@cache
def _windows_plan(edge: int, features: tuple[int, ...], precision: str) -> Plan:
    from voxelrt.gpu_compile import with_gpu

    model = load(_graph(edge, features))
    plan = vx.compile(model, verify=False, tune="off")
    return with_gpu(
        plan,
        _in_int8(model, edge).graph if precision == "int8" else model.graph,
        [{}],
        {},
        precision=precision,
        arch=[driver().architecture],
        windows=True,
    )


def _in_int8(model: Model, edge: int) -> Model:
    given = {"input": noise((1, 1, edge, edge, edge))}
    return quantised(model, partial(vx.compile, verify=False, tune="off"), {}, {}, [given], "percentile")


def study_rows(scale: Scale) -> list[Row]:
    """A whole study, its copies to and from the device among it."""
    edge, features, size = scale.edge, scale.features, scale.study
    rows = []
    for precision in ("fp16", "int8"):
        made: dict[str, Callable[[], Contestant]] = {
            SUBJECT: lambda precision=precision: _study(edge, features, size, precision)  # type: ignore[misc]
        }
        made |= peers.studies(lambda: _graph(edge, features), lambda: _job(edge, size, CLASSES))
        title = f"a study of {size}, windows of {edge}³, overlap 0.5, Gaussian, labels out, {precision}; peers in fp16"
        tolerance = LABELS if precision == "fp16" else partial(_codes_cost_labels, edge, features, size)
        reference = partial(_labels_of_cpu, edge, features, size)
        rows.append(Row(f"study-{precision}", title, (1.0, "studies"), tolerance, reference, made))
    return rows


def _codes_cost_labels(edge: int, features: tuple[int, ...], size: Size) -> float:
    """As ``_codes_cost``, of a study's labels."""
    narrow, exact = (_labels_of_cpu(edge, features, size, precision) for precision in ("int8", "fp32"))
    return max(LABELS, 2 * compare(narrow, exact).relative)


@cache
def _labels_of_cpu(edge: int, features: tuple[int, ...], size: Size, precision: str = "fp32") -> Array:
    from voxelrt.runtime.cpu_device import CpuDevice
    from voxelrt.runtime.cpu_windows import CpuWindows
    from voxelrt.runtime.cuda_scheduler import OneJob
    from voxelrt.runtime.scheduler import Scheduler

    model = load(_graph(edge, features))
    plan = vx.compile(_in_int8(model, edge) if precision == "int8" else model, verify=False, tune="off")
    (given,), (answer,) = plan.inputs, plan.outputs
    job = _job(edge, size, answer.dims[1])

    def network(inputs: Array, outputs: Array) -> None:
        plan.run({given.name: inputs}, {answer.name: outputs})

    scheduler = Scheduler(CpuDevice(), CpuWindows(network), given.dims[1:], answer.dims[1:])
    list(scheduler.run(OneJob(job)))
    return array_of(job.labels)


def all_rows(scale: Scale) -> list[Row]:
    """Every row."""
    return [*network_rows(scale), *study_rows(scale), *kernel_rows(scale), *filter_rows(scale)]
