"""The filters against other libraries' on one volume, turn by turn, answers compared first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt import kernels
from voxelrt.kernels.common.kernel import compare
from voxelrt.kernels.non_local_means.oracle import non_local_means as non_local_means_oracle

Array = NDArray[Any]
Call = Callable[[], Array]
SIGMA = 10.0
ITERATIONS = 5


@dataclass(frozen=True)
class Row:
    """One filter: ours, and who else does the same work; `border` voxels at the faces follow another rule there."""

    name: str
    ours: Call
    peers: dict[str, Call]
    tolerance: float = 1e-5
    border: int = 0
    same: bool = True  # False: the peer's answer is defined otherwise; ours is compared with its oracle instead


def rows(volume: Array, threads: int) -> Iterator[Row]:
    """Peers that are not installed are left out by ``available``."""
    v, doubles = volume, volume.astype(np.float64)
    sitk = _simpleitk(threads)
    image = sitk.GetImageFromArray(v)
    array = sitk.GetArrayFromImage
    from dipy.denoise.nlmeans import nlmeans
    from scipy import ndimage
    from skimage.restoration import denoise_tv_chambolle

    yield Row(
        "non_local_means, window 11³, patches 3³",
        lambda: kernels.non_local_means(v, SIGMA),
        {
            "DIPY block-wise": lambda: nlmeans(
                doubles, SIGMA, patch_radius=5, block_radius=1, rician=False, num_threads=threads
            )
        },
        same=False,
    )
    yield Row(
        "non_local_means_blocks, window 11³, patches 3³",
        lambda: kernels.non_local_means_blocks(v, SIGMA, noise="rician", own=False),
        {
            "DIPY block-wise": lambda: nlmeans(
                doubles, SIGMA, patch_radius=5, block_radius=1, rician=True, num_threads=threads
            )
        },
        border=8,
        tolerance=1e-4,  # one voxel in a thousand has a partner on a threshold, chosen in float64 and not here
    )
    yield Row(
        "median 3³",
        lambda: kernels.median(v),
        {
            "SimpleITK": lambda: array(sitk.Median(image, [1, 1, 1])),
            "SciPy": lambda: ndimage.median_filter(v, 3, mode="nearest"),
        },
        tolerance=0.0,
    )
    yield Row(
        "gaussian, width 1",
        lambda: kernels.gaussian(v, 1.0),
        {"SciPy": lambda: ndimage.gaussian_filter(v, 1.0, mode="nearest")},
    )
    yield Row(
        "bilateral, width 1, spread 20",
        lambda: kernels.bilateral(v, 1.0, 20.0),
        {"SimpleITK": lambda: array(sitk.Bilateral(image, 1.0, 20.0))},
        tolerance=1e-3,
        border=3,
    )
    yield Row(
        f"anisotropic_diffusion, {ITERATIONS} steps",
        lambda: kernels.anisotropic_diffusion(v, iterations=ITERATIONS),
        {"SimpleITK": lambda: array(sitk.GradientAnisotropicDiffusion(image, 0.0625, 1.0, 1, ITERATIONS))},
    )
    yield Row(
        f"curvature_flow, {ITERATIONS} steps",
        lambda: kernels.curvature_flow(v, iterations=ITERATIONS),
        {"SimpleITK": lambda: array(sitk.CurvatureFlow(image, 0.0625, ITERATIONS))},
    )
    yield Row(
        "total_variation, 10 steps",
        lambda: kernels.total_variation(v, 10.0, tolerance=0.0, iterations=10),
        {"scikit-image": lambda: denoise_tv_chambolle(v, weight=10.0, eps=0.0, max_num_iter=10)},
    )


def check(row: Row, volume: Array) -> float:
    """How far ours is from the peers' answers, or from its oracle on a piece of the volume.

    Raises
    ------
    AssertionError : past the row's tolerance; nothing may be timed then.
    """
    ours = row.ours()
    worst = 0.0
    if not row.same:
        piece = tuple(slice(0, min(20, n)) for n in volume.shape)
        inside = tuple(slice(0, max(1, s.stop - 6)) for s in piece)
        worst = compare(ours[inside], non_local_means_oracle(volume[piece], SIGMA)[inside]).relative
    else:
        inside = (slice(row.border, -row.border or None),) * 3
        for peer in row.peers.values():
            worst = max(worst, compare(ours[inside], peer()[inside]).relative)
    if not worst <= row.tolerance:
        raise AssertionError(f"{row.name}: relative difference {worst:.3g}; allowed is {row.tolerance:g}")
    return worst


def measure(row: Row, rounds: int) -> tuple[dict[str, float], float, float]:
    """Median seconds of each contestant; and of the ratios to the fastest peer within a round: least and median."""
    calls = {"VoxelRT": row.ours, **row.peers}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        names = list(calls)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            # The quick ones are run several times in their turn; a single call of milliseconds is mostly luck.
            repeats, best = (5 if name == "VoxelRT" else 1), []
            for _ in range(repeats):
                started = time.perf_counter()
                calls[name]()
                best.append(time.perf_counter() - started)
            times[name].append(statistics.median(best))
    medians = {name: statistics.median(values) for name, values in times.items()}
    fastest = min(row.peers, key=lambda name: medians[name])
    ratios = [theirs / ours for theirs, ours in zip(times[fastest], times["VoxelRT"], strict=True)]
    return medians, min(ratios), statistics.median(ratios)


def _simpleitk(threads: int) -> Any:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    return SimpleITK
