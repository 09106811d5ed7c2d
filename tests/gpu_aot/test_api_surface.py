"""What we call of CuPy and of both TensorRT libraries, checked against the installed packages' own signatures."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.emulation import simulated_cupy, simulated_tensorrt
from tests.emulation.simulated_driver import SimulatedDriver
from voxelrt.backends.tensorrt_libraries import RTX

BINDINGS = Path(__file__).resolve().parents[2] / "build" / "tensorrt-bindings"
# Members that only a library has that builds for GPUs that are not there, or compiles kernels where they run.
CROSS = (
    *("num_compute_capabilities", "set_compute_capability", "is_stream_capturable", "create_runtime_config"),
    *("set_execution_context_allocation_strategy", "create_runtime_cache", "set_runtime_cache", "EAGER"),
    *("dynamic_shapes_kernel_specialization_strategy", "deserialize", "serialize"),
)
CALLED: dict[str, tuple[str, ...]] = {
    "Builder": ("create_network", "create_builder_config", "create_optimization_profile", "build_serialized_network"),
    "INetworkDefinition": ("num_inputs", "get_input"),
    "OnnxParser": ("parse", "num_errors", "get_error"),
    "ParserError": ("node_name", "node_operator", "desc"),
    "IBuilderConfig": (
        *("num_compute_capabilities", "set_compute_capability"),
        *("set_flag", "clear_flag", "set_memory_pool_limit", "progress_monitor", "add_optimization_profile"),
        *("builder_optimization_level", "create_timing_cache", "set_timing_cache", "get_timing_cache"),
    ),
    "IOptimizationProfile": ("set_shape",),
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": ("create_execution_context", "create_runtime_config"),
    "IRuntimeConfig": (
        *("set_execution_context_allocation_strategy", "dynamic_shapes_kernel_specialization_strategy"),
        *("create_runtime_cache", "set_runtime_cache"),
    ),
    "IRuntimeCache": ("deserialize", "serialize"),
    "DynamicShapesKernelSpecializationStrategy": ("EAGER",),
    "Refitter": ("refit_cuda_engine",),
    "OnnxParserRefitter": ("refit_from_bytes",),
    "IExecutionContext": (
        *("set_input_shape", "set_tensor_address", "execute_async_v3", "set_device_memory"),
        *("update_device_memory_size_for_shapes", "is_stream_capturable"),
    ),
    "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
    "ILogger": ("ERROR", "INTERNAL_ERROR", "log"),
    "IProgressMonitor": ("phase_start", "step_complete", "phase_finish"),
    "BuilderFlag": ("TF32", "REFIT"),
    "MemoryPoolType": ("WORKSPACE",),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
}
# Parameters by name, self not among them, as we give them by position.
SIGNATURES: dict[str, tuple[str, ...]] = {
    "IExecutionContext.set_input_shape": ("name", "shape"),
    "IExecutionContext.set_tensor_address": ("name", "memory"),
    "IExecutionContext.execute_async_v3": ("stream_handle",),
    "IExecutionContext.set_device_memory": ("memory", "size"),
    "IExecutionContext.update_device_memory_size_for_shapes": (),
    "IOptimizationProfile.set_shape": ("input", "min", "opt", "max"),
    "Builder.build_serialized_network": ("network", "config"),
    "IBuilderConfig.set_memory_pool_limit": ("pool", "pool_size"),
    "IBuilderConfig.create_timing_cache": ("serialized_timing_cache",),
    "IBuilderConfig.set_timing_cache": ("cache", "ignore_mismatch"),
    "OnnxParserRefitter.refit_from_bytes": ("model",),
}
# Of a library that compiles kernels where they run.
CACHED = {
    "IRuntimeConfig.set_execution_context_allocation_strategy": ("strategy",),
    "IRuntimeConfig.set_runtime_cache": ("cache",),
    "IRuntimeCache.deserialize": ("blob",),
    "ICudaEngine.create_execution_context": ("runtime_config",),
    "IExecutionContext.is_stream_capturable": ("stream",),
}
CUPY: dict[str, str] = {
    "runtime.malloc": "size",
    "runtime.free": "ptr",
    "runtime.hostAlloc": "size, flags",
    "runtime.freeHost": "ptr",
    "runtime.memGetInfo": "",
    "runtime.memcpyAsync": "dst, src, size, kind, stream",
    "runtime.memsetAsync": "ptr, value, size, stream",
    "runtime.streamCreateWithFlags": "flags",
    "runtime.eventCreateWithFlags": "flags",
    "runtime.eventRecord": "event, stream",
    "runtime.streamWaitEvent": "stream, event, flags",
    "runtime.eventSynchronize": "event",
    "runtime.eventQuery": "event",
    "runtime.streamBeginCapture": "stream, mode",
    "runtime.streamEndCapture": "stream",
    "runtime.graphInstantiate": "graph",
    "runtime.graphLaunch": "graphExec, stream",
    "runtime.setDevice": "device",
    "runtime.getDevice": "",
    "runtime.deviceSynchronize": "",
    "runtime.getDeviceCount": "",
    "runtime.getDeviceProperties": "device",
    "runtime.driverGetVersion": "",
    "driver.moduleLoadData": "image",
    "driver.moduleGetFunction": "module, funcname",
    "driver.funcSetAttribute": "f, attribute, value",
    "driver.launchKernel": "f, grid_dim_x, grid_dim_y, grid_dim_z, block_dim_x, block_dim_y, block_dim_z, "
    "shared_mem_bytes, stream, kernel_params, extra",
}


def parameters(text: str, function: str) -> list[tuple[str, ...]]:
    """The names in each signature such as ``f(self: X, size: int = 3) -> int`` or ``f(size_t size, int kind=1)``."""
    found = []
    for inside in re.findall(rf"\b{function}\(([^\n]*)\)(?: ->[^\n]*)?(?:\n|$)", text):
        parts = re.split(r",\s*(?![^\[]*\])", inside) if inside.strip() else []
        names = [p.partition(":")[0] if ":" in p else p.partition("=")[0].split()[-1] for p in parts]
        found.append(tuple(name.strip() for name in names if name.strip() != "self"))
    return found


def _check(surface: dict[str, dict[str, str]], without: tuple[str, ...], also: dict[str, Any] | None = None) -> None:
    called = [(name, member) for name, members in CALLED.items() for member in members if member not in without]
    missing = [f"{name}.{member}" for name, member in called if member not in surface.get(name, {})]
    assert missing == []
    wrong = {}
    for name, wanted in {**SIGNATURES, **(also or {})}.items():
        owner, member = name.split(".")
        found = parameters(surface[owner][member], member)
        if not any(names[: len(wanted)] == wanted for names in found):
            wrong[name] = found
    assert wrong == {}


def test_tensorrt_rtx_has_all_that_is_called() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX (the extra gpu-aot) is not installed")
    from tests.gpu_aot.bindings import surface

    trt = importlib.import_module(RTX.module)
    _check(surface(trt), (), CACHED)
    assert set(RTX.targets.values()) <= set(dir(trt.ComputeCapability))


@pytest.mark.parametrize("version", ["10", "11"])
def test_tensorrt_has_all_that_is_called(version: str) -> None:
    folder = BINDINGS / version
    if not (folder / "tensorrt_bindings" / "tensorrt.so").exists():
        pytest.skip(f"TensorRT {version}'s bindings are not in {BINDINGS.name}: make .venv/.gpu-aot")
    command = [sys.executable, "-m", "tests.gpu_aot.bindings", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    _check(found, CROSS)
    _same_as_simulated(found)
    assert "FP16" not in found["BuilderFlag"] or version == "10"  # strong typing alone, from 11 on


def _same_as_simulated(surface: dict[str, dict[str, str]]) -> None:
    """The simulated library has only what the real one has, with its parameters."""
    made: Any = simulated_tensorrt
    for name in ("Builder", "IBuilderConfig", "IExecutionContext", "IOptimizationProfile", "OnnxParser", "ParserError"):
        for member, function in vars(getattr(made, name)).items():
            if member.startswith("_") or member in ("built", "shapes"):
                continue
            assert member in surface[name], f"{name}.{member}"
            if inspect.isfunction(function):
                own = tuple(inspect.signature(function).parameters)[1:]
                real = parameters(surface[name][member], member)
                assert not own or any(names[: len(own)] == own for names in real), f"{name}.{member}{own}: {real}"


def test_what_is_simulated_of_cupy_is_cupy_s() -> None:
    pytest.importorskip("cupy", reason="CuPy (the extra gpu) is not installed")
    world = simulated_cupy.World(SimulatedDriver(capacity=1 << 12))
    for part, made in (("runtime", simulated_cupy._runtime(world)), ("driver", simulated_cupy._driver(world))):
        names = {name for name in vars(made) if not name.startswith("_") and inspect.isroutine(getattr(made, name))}
        called = {name.partition(".")[2] for name in CUPY if name.startswith(part)}
        assert names - {"CUDARuntimeError", "CUDADriverError"} == called
        for name in called:
            function = inspect.unwrap(getattr(made, name))
            assert ", ".join(inspect.signature(function).parameters) == CUPY[f"{part}.{name}"], name


def test_cupy_has_all_that_is_called() -> None:
    cupy: Any = pytest.importorskip("cupy", reason="CuPy (the extra gpu) is not installed")
    wrong = {}
    for name, wanted in CUPY.items():
        part, function = name.split(".")
        text = str(getattr(getattr(cupy.cuda, part), function).__doc__)
        if [", ".join(names) for names in parameters(text, function)] != [wanted]:
            wrong[name] = text
    assert wrong == {}
    assert cupy.cuda.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES == 8
    assert cupy.cuda.runtime.CUDARuntimeError(2).status == 2
    assert hasattr(cupy.cuda, "alloc_pinned_memory")
    assert hasattr(cupy.cuda.MemoryPointer, "memset")
    assert callable(cupy.cuda.nvtx.RangePush)


def test_without_a_gpu_the_driver_says_so() -> None:
    pytest.importorskip("cupy", reason="CuPy (the extra gpu) is not installed")
    from voxelrt.backends.cupy_driver import CupyDriver, device_count
    from voxelrt.errors import DeviceError

    if device_count():
        pytest.skip("there is a GPU here: tests/gpu opens it")
    with pytest.raises(DeviceError, match="needs an NVIDIA GPU"):
        CupyDriver(0, "this test")
