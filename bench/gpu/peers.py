"""What else runs on a GPU, where it is installed: torch, torch.compile, ONNX Runtime, MONAI, CuPy, cuCIM.

Each is a maker that raises where its package or its GPU is missing; the row tells that in its place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir

from bench.gpu.contest import Array, Contestant, array_of
from voxelrt.runtime.window_job import Job

Maker = Callable[[], Contestant]
Graph = Callable[[], ir.Model]


def _torch() -> Any:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU")
    torch.backends.cudnn.benchmark = True
    return torch


def _twin(graph: Graph) -> Any:
    """The network in torch, fp16 and channels last: what a torch user would run."""
    from voxelrt.measure.torch_twin import build_twin

    torch = _torch()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(graph(), path)
        return build_twin(path).eval().cuda().half().to(memory_format=torch.channels_last_3d)


def _torch_network(graph: Graph, x: Array, compiled: bool) -> Contestant:
    torch, network = _torch(), _twin(graph)
    given = torch.from_numpy(x).cuda().half().contiguous(memory_format=torch.channels_last_3d)
    run_one = torch.compile(network, mode="max-autotune") if compiled else network
    held: dict[str, Any] = {}

    def run() -> None:
        with torch.inference_mode():
            held["out"] = run_one(given)
        torch.cuda.synchronize()

    name = "torch.compile fp16" if compiled else "torch eager fp16"
    return Contestant(name, run, lambda: array_of(held["out"].float().cpu().numpy()))


def _onnxruntime_network(graph: Graph, x: Array, provider: str) -> Contestant:
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this ONNX Runtime has no {provider}")
    from voxelrt.graph.passes import lower_precision
    from voxelrt.graph.specialise import specialise

    typed = lower_precision.run(specialise(graph(), {}, {}), "fp16")
    session = onnxruntime.InferenceSession(ir.serde.serialize_model(typed).SerializeToString(), providers=[provider])
    if provider not in session.get_providers():
        raise RuntimeError(f"{provider} did not start")
    binding = session.io_binding()
    binding.bind_ortvalue_input(session.get_inputs()[0].name, onnxruntime.OrtValue.ortvalue_from_numpy(x, "cuda", 0))
    binding.bind_output(session.get_outputs()[0].name, "cuda", 0)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return Contestant(f"ONNX Runtime {provider}", run, lambda: array_of(binding.copy_outputs_to_cpu()[0]))


def networks(graph: Graph, x: Callable[[], Array]) -> dict[str, Maker]:
    """A network's peers."""
    return {
        "torch eager fp16": lambda: _torch_network(graph, x(), False),
        "torch.compile fp16": lambda: _torch_network(graph, x(), True),
        "ONNX Runtime CUDA": lambda: _onnxruntime_network(graph, x(), "CUDAExecutionProvider"),
        "ONNX Runtime TensorRT": lambda: _onnxruntime_network(graph, x(), "TensorrtExecutionProvider"),
    }


def _monai_study(graph: Graph, job: Job) -> Contestant:
    from monai.inferers import sliding_window_inference

    torch, network = _torch(), _twin(graph)
    window, held = job.weights.shape, dict[str, Any]()

    def run() -> None:
        with torch.inference_mode():
            whole = torch.from_numpy(job.data[None]).cuda().half()
            logits = sliding_window_inference(whole, window, 4, network, overlap=0.5, mode="gaussian")
            held["labels"] = logits.argmax(1).to(torch.uint8).cpu().numpy()[0]

    return Contestant("MONAI sliding_window_inference", run, lambda: array_of(held["labels"]))


def studies(graph: Graph, job: Callable[[], Job]) -> dict[str, Maker]:
    """A study's peers."""
    return {"MONAI sliding_window_inference": lambda: _monai_study(graph, job())}


def _torch_warp(volume: Array, field: Array) -> Contestant:
    torch = _torch()
    source, moved = torch.from_numpy(volume).cuda(), torch.from_numpy(field).cuda()
    size = volume.shape[2:]
    axes = [torch.arange(n, device="cuda", dtype=torch.float32) for n in size]
    own = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    scale = torch.tensor([2.0 / (n - 1) for n in size], device="cuda").view(1, 3, 1, 1, 1)
    held: dict[str, Any] = {}

    def run() -> None:
        with torch.inference_mode():
            grid = ((own + moved) * scale - 1).permute(0, 2, 3, 4, 1).flip(-1)
            options = {"mode": "bilinear", "padding_mode": "border", "align_corners": True}
            held["out"] = torch.nn.functional.grid_sample(source, grid, **options)
        torch.cuda.synchronize()

    return Contestant("torch grid_sample", run, lambda: array_of(held["out"].cpu().numpy()))


def _cupy_warp(volume: Array, field: Array) -> Contestant:
    import cupy
    from cupyx.scipy.ndimage import map_coordinates

    source, moved = cupy.asarray(volume[0, 0]), cupy.asarray(field[0])
    own = cupy.stack(cupy.meshgrid(*[cupy.arange(n, dtype="f4") for n in source.shape], indexing="ij"))
    held: dict[str, Any] = {}

    def run() -> None:
        held["out"] = map_coordinates(source, own + moved, order=1, mode="nearest")
        cupy.cuda.get_current_stream().synchronize()

    return Contestant("CuPy map_coordinates", run, lambda: array_of(held["out"].get()[None, None]))


def _monai_warp(volume: Array, field: Array) -> Contestant:
    from monai.networks.blocks import Warp

    torch = _torch()
    source, moved = torch.from_numpy(volume).cuda(), torch.from_numpy(field).cuda()
    block, held = Warp(mode="bilinear", padding_mode="border").cuda(), dict[str, Any]()

    def run() -> None:
        with torch.inference_mode():
            held["out"] = block(source, moved)
        torch.cuda.synchronize()

    return Contestant("MONAI Warp", run, lambda: array_of(held["out"].cpu().numpy()))


def warps(given: Callable[[], tuple[Array, Array]]) -> dict[str, Maker]:
    """A warp's peers."""
    return {
        "torch grid_sample": lambda: _torch_warp(*given()),
        "CuPy map_coordinates": lambda: _cupy_warp(*given()),
        "MONAI Warp": lambda: _monai_warp(*given()),
    }


def _torch_integration(velocity: Array, steps: int) -> Contestant:
    torch = _torch()
    given = torch.from_numpy(velocity).cuda()
    size = velocity.shape[2:]
    own = torch.stack(torch.meshgrid(*[torch.arange(n, device="cuda") for n in size], indexing="ij")).float()
    scale = torch.tensor([2.0 / n for n in size], device="cuda").view(1, 3, 1, 1, 1)
    shift = torch.tensor([1.0 / n - 1 for n in size], device="cuda").view(1, 3, 1, 1, 1)
    held: dict[str, Any] = {}

    def run() -> None:
        with torch.inference_mode():
            u = given * 0.5**steps
            for _ in range(steps):
                grid = ((own + u) * scale + shift).permute(0, 2, 3, 4, 1).flip(-1)
                options = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": False}
                u = u + torch.nn.functional.grid_sample(u, grid, **options)
            held["out"] = u
        torch.cuda.synchronize()

    return Contestant("torch grid_sample", run, lambda: array_of(held["out"].cpu().numpy()))


def integrations(velocity: Callable[[], Array], steps: int) -> dict[str, Maker]:
    """An integration's peers."""
    return {"torch grid_sample": lambda: _torch_integration(velocity(), steps)}


def _cupy_filter(call: Callable[[Any], Any], name: str, volume: Array) -> Contestant:
    """A filter on an array of CuPy's, which returns one."""
    import cupy

    given = cupy.asarray(volume)
    held: dict[str, Any] = {}

    def run() -> None:
        held["out"] = call(given)
        cupy.cuda.get_current_stream().synchronize()

    return Contestant(name, run, lambda: array_of(held["out"].get()))


def _cupy_gaussian(volume: Array) -> Contestant:
    from cupyx.scipy.ndimage import gaussian_filter

    return _cupy_filter(lambda v: gaussian_filter(v, 1.0, mode="nearest"), "CuPy gaussian_filter", volume)


def _cupy_median(volume: Array) -> Contestant:
    from cupyx.scipy.ndimage import median_filter

    return _cupy_filter(lambda v: median_filter(v, 3, mode="nearest"), "CuPy median_filter", volume)


def _cucim_gaussian(volume: Array) -> Contestant:
    from cucim.skimage.filters import gaussian

    options = {"mode": "nearest", "preserve_range": True}
    return _cupy_filter(lambda v: gaussian(v, sigma=1.0, **options), "cuCIM gaussian", volume)


def _cucim_median(volume: Array) -> Contestant:
    import cupy
    from cucim.skimage.filters import median

    window = cupy.ones((3, 3, 3), bool)
    return _cupy_filter(lambda v: median(v, window, mode="nearest"), "cuCIM median", volume)


def _cucim_total_variation(volume: Array) -> Contestant:
    from cucim.skimage.restoration import denoise_tv_chambolle

    options = {"weight": 0.5, "eps": 0.0, "max_num_iter": 10}
    return _cupy_filter(lambda v: denoise_tv_chambolle(v, **options), "cuCIM denoise_tv_chambolle", volume)


def _torch_filter(call: Callable[[Any], Any], name: str, volume: Array) -> Contestant:
    """A filter on a tensor (1, 1, Z, Y, X), which returns one."""
    torch = _torch()
    given = torch.from_numpy(volume).cuda()[None, None]
    held: dict[str, Any] = {}

    def run() -> None:
        with torch.inference_mode():
            held["out"] = call(given)
        torch.cuda.synchronize()

    return Contestant(name, run, lambda: array_of(held["out"][0, 0].cpu().numpy()))


def monai_gaussian(given: Any) -> Any:
    """MONAI's filter of width 1; beyond a face its last voxel goes on."""
    from monai.networks.layers import gaussian_1d, separable_filtering

    kernel = gaussian_1d(given.new_tensor(1.0), truncated=4.0, approx="sampled", normalize=True)
    return separable_filtering(given, [kernel] * 3, mode="replicate")


def monai_median(given: Any) -> Any:
    """MONAI's median of 3³."""
    from monai.networks.layers import median_filter

    return median_filter(given, (3, 3, 3))


_FILTERS: dict[str, dict[str, Callable[[Array], Contestant]]] = {
    "gaussian": {
        "CuPy gaussian_filter": _cupy_gaussian,
        "cuCIM gaussian": _cucim_gaussian,
        "MONAI separable_filtering": lambda v: _torch_filter(monai_gaussian, "MONAI separable_filtering", v),
    },
    "median": {
        "CuPy median_filter": _cupy_median,
        "cuCIM median": _cucim_median,
        "MONAI median_filter": lambda v: _torch_filter(monai_median, "MONAI median_filter", v),
    },
    "total_variation": {"cuCIM denoise_tv_chambolle": _cucim_total_variation},
}


def filters(op: str, volume: Callable[[], Array]) -> dict[str, Maker]:
    """A filter's peers."""
    return {name: lambda make=make: make(volume()) for name, make in _FILTERS[op].items()}  # type: ignore[misc]
