"""Warps and velocity integration against other libraries, turn by turn, answers compared first.

    python -m bench.warps --edge 256 --rounds 7

Needs torch, SciPy and SimpleITK (``make .venv-bench/.installed``; pip install SimpleITK scipy). Inputs and fields are
in memory in each library's own form; SimpleITK's images are made before. torch keeps large blocks (the allocator's
settings below are set before it is loaded).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers import keep_large_blocks
from voxelrt import environment, kernels
from voxelrt.kernels.common.kernel import compare
from voxelrt.kernels.integrate import smooth_field

Array = NDArray[Any]
Call = Callable[[], Array]
MARGIN = 16  # voxels at the faces, where libraries differ in what lies outside


@dataclass(frozen=True)
class Row:
    """One piece of work; answers agree within `tolerance` of the norm, `MARGIN` voxels at the faces left out."""

    name: str
    ours: Call
    peers: dict[str, Call]
    tolerance: float


def rows(edge: int, threads: int, seed: int) -> Iterator[Row]:
    """Trilinear and cubic warps at `edge`³, integration at half of it."""
    import SimpleITK
    import torch
    from scipy import ndimage

    torch.set_num_threads(threads)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    rng = np.random.default_rng(seed)
    size = (edge,) * 3
    volume = ndimage.gaussian_filter(rng.normal(size=size), 1.5).astype(np.float32)
    field = np.stack([ndimage.gaussian_filter(rng.normal(size=size), 6, mode="wrap") for _ in range(3)])
    field = (field * (4.0 / field.std())).astype(np.float32)  # 4 voxels, correlated over 6: rough
    out = np.empty((1, 1, *size), np.float32)
    image = SimpleITK.GetImageFromArray(volume)
    vectors = SimpleITK.GetImageFromArray(np.ascontiguousarray(np.moveaxis(field[::-1], 0, -1)), isVector=True)
    places = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in size], indexing="ij")) + field
    grid = torch.from_numpy(np.ascontiguousarray(np.moveaxis(places[::-1] * (2 / (edge - 1)) - 1, 0, -1))[None])
    tensor, moved = torch.from_numpy(volume[None, None]), torch.from_numpy(field[None])
    base = torch.from_numpy(places - field)[None]

    def sampled() -> Array:
        with torch.inference_mode():
            found = torch.nn.functional.grid_sample(tensor, grid, align_corners=True)
        return np.asarray(found.numpy())[0, 0]

    def from_field() -> Array:
        with torch.inference_mode():
            own = ((base + moved) * (2 / (edge - 1)) - 1).flip(1).permute(0, 2, 3, 4, 1)
            return np.asarray(torch.nn.functional.grid_sample(tensor, own, align_corners=True).numpy())[0, 0]

    def itk(kind: int) -> Call:
        warper = SimpleITK.WarpImageFilter()
        warper.SetOutputParameteresFromImage(image)
        warper.SetInterpolator(kind)
        held: dict[str, Any] = {}  # a view does not keep its image alive, and a copy would be counted against the peer

        def run() -> Array:
            held["image"] = warper.Execute(image, vectors)
            return np.asarray(SimpleITK.GetArrayViewFromImage(held["image"]))

        return run

    def scipy(order: int) -> Call:
        return lambda: np.asarray(ndimage.map_coordinates(volume, places, order=order, mode="mirror"))

    def ours(order: int) -> Call:
        return lambda: np.asarray(kernels.warp3d(volume[None, None], field[None], order=order, out=out))[0, 0]

    peers = {
        "SimpleITK": itk(SimpleITK.sitkLinear),
        "torch grid_sample": sampled,
        "torch from the field": from_field,
        "SciPy": scipy(1),
    }
    yield Row(f"trilinear warp, {edge}³, dense field", ours(1), peers, 2e-5)
    cubic = {"SciPy": scipy(3), "SimpleITK": itk(SimpleITK.sitkBSpline)}
    yield Row(f"cubic warp, {edge}³, prefilter included", ours(3), cubic, 2e-5)
    half = edge // 2
    velocity = smooth_field(rng, 1, (half,) * 3, 6.0).astype(np.float32)
    squared = _integration(velocity, torch)
    compiled = torch.compile(squared)
    start, result = torch.from_numpy(velocity), np.empty_like(velocity)

    def squaring(function: Callable[[Any], Any]) -> Call:
        def run() -> Array:
            with torch.inference_mode():
                return np.asarray(function(start).numpy())[0]

        return run

    yield Row(
        f"scaling and squaring, {half}³ × 3, 7 steps",
        lambda: np.asarray(kernels.integrate(velocity, padding="border", out=result))[0],
        {"torch": squaring(squared), "torch.compile": squaring(compiled)},
        2e-5,
    )


def _integration(velocity: Array, torch: Any) -> Callable[[Any], Any]:
    """As networks for registration spell it in torch: seven grid_samples of the field by itself."""
    size = velocity.shape[2:]
    axes = [torch.arange(n, dtype=torch.float32) for n in size]
    base = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]
    scale = torch.tensor([2 / (n - 1) for n in size]).reshape(1, 3, 1, 1, 1)

    def integrate(field: Any) -> Any:
        field = field / 2**7
        for _ in range(7):
            grid = ((base + field) * scale - 1).flip(1).permute(0, 2, 3, 4, 1)
            sampled = torch.nn.functional.grid_sample(field, grid, align_corners=True, padding_mode="border")
            field = field + sampled
        return field

    return integrate


def check(row: Row) -> float:
    """The largest relative difference to a peer. Raises AssertionError past the tolerance: nothing is timed then."""
    ours, worst = row.ours().copy(), 0.0
    inside = (..., *(slice(MARGIN, -MARGIN),) * 3)
    for name, peer in row.peers.items():
        difference = compare(ours[inside], peer()[inside]).relative
        if not difference <= row.tolerance:
            raise AssertionError(f"{row.name}: {name} differs by {difference:.3g}; allowed is {row.tolerance:g}")
        worst = max(worst, difference)
    return worst


def measure(row: Row, rounds: int) -> tuple[dict[str, float], list[float]]:
    """Median seconds of each contestant, and the ratios to the fastest peer within each round, sorted."""
    calls = {"VoxelRT": row.ours, **row.peers}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        names = list(calls)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            took = []
            for _ in range(3 if name == "VoxelRT" else 1):
                begin = time.perf_counter()
                calls[name]()
                took.append(time.perf_counter() - begin)
            times[name].append(statistics.median(took))
    medians = {name: statistics.median(values) for name, values in times.items()}
    fastest = min(row.peers, key=lambda name: medians[name])
    return medians, sorted(b / a for a, b in zip(times["VoxelRT"], times[fastest], strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a Markdown table; 1 where an answer is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.warps", description="Warps against other libraries.")
    parser.add_argument("--edge", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", default="", help="only rows whose name holds this")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    keep_large_blocks("bench.warps")
    threads, failed = environment.threads(), 0
    print(f"{threads} threads, {asked.rounds} rounds\n")
    print("| work | ‖e‖/‖ref‖ | VoxelRT | peers | faster than the fastest: median (least) |")
    print("| --- | ---: | ---: | --- | ---: |")
    for row in rows(asked.edge, threads, asked.seed):
        if asked.rows not in row.name:
            continue
        try:
            difference = check(row)
        except AssertionError as error:
            failed = 1
            print(f"| {error} | | | | |", flush=True)
            continue
        medians, ratios = measure(row, asked.rounds)
        peers = ", ".join(f"{name} {medians[name] * 1e3:.4g} ms" for name in row.peers)
        middle = statistics.median(ratios)
        ours = f"{medians['VoxelRT'] * 1e3:.4g} ms"
        print(f"| {row.name} | {difference:.1e} | {ours} | {peers} | {middle:.1f}× ({ratios[0]:.1f}) |", flush=True)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
