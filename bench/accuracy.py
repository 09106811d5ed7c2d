"""How far answers are from the exact one: torch in float64 over the whole window.

``python -m bench accuracy`` (torch is needed): the network of a row with its drawn norm parameters, VoxelRT and peers,
each against the same modules in float64: ‖e‖/‖ref‖, the share of each class, and the Dice of each class.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.demo_checks import dice
from bench.networks import NETWORKS, Prepared
from bench.peers import choose_peers, subject
from bench.runners import RUNNERS
from voxelrt import environment

Array = NDArray[Any]
TOLERANCE, LEAST_SHARE = 5e-5, 0.01
SLAB_BYTES = 512 << 20  # of the columns that torch makes of a convolution's input in float64


def accuracy(asked: argparse.Namespace) -> int:
    """Print the table; the exit code is 1 where VoxelRT is past the tolerance or a class is too rare."""
    threads = asked.threads or environment.threads()
    with tempfile.TemporaryDirectory(prefix="voxelrt-bench-") as folder:
        prepared = NETWORKS[asked.row].prepare(Path(folder), asked.seed, NETWORKS[asked.row].fixed or asked.size)
        x = np.load(prepared.x)
        start = time.perf_counter()
        exact = exact_answer(prepared, x, threads)
        print(f"float64 in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        labels = exact.argmax(1)
        classes = range(exact.shape[1])
        shares = [float((labels == c).mean()) for c in classes]
        spread = ", ".join(f"{share:.1%}" for share in shares)
        print(f"{prepared.title}, against torch in float64; classes: {spread} of voxels\n")
        heads = ["", "‖e‖/‖ref‖", "max", *(f"Dice {c}" for c in classes)]
        print("| " + " | ".join(heads) + " |\n| --- |" + " ---: |" * (len(heads) - 1))
        failed = min(shares) < LEAST_SHARE
        for one in [subject(), *choose_peers(asked.peers.split(","), quick=False)]:
            runner = RUNNERS[one.runner](prepared.model, x, threads, one.options)
            runner.run()
            answer = runner.answer()
            del runner
            error = answer - exact
            relative = float(np.linalg.norm(error.ravel()) / np.linalg.norm(exact.ravel()))
            overlaps = [dice(answer.argmax(1) == c, labels == c) for c in classes]
            cells = [one.title, f"{relative:.1e}", f"{np.abs(error).max():.1e}", *(f"{d:.6f}" for d in overlaps)]
            print("| " + " | ".join(cells) + " |", flush=True)
            failed = failed or (one.runner == "voxelrt" and not relative <= TOLERANCE)
    return 1 if failed else 0


def exact_answer(prepared: Prepared, x: Array, threads: int) -> Array:
    """The network's answer in float64."""
    import torch

    from voxelrt.measure.torch_twin import build_twin

    torch.set_num_threads(threads)
    module: Any = build_twin(prepared.model).double().eval()
    for name, inner in list(module.named_children()):
        if isinstance(inner, torch.nn.Conv3d):
            inner.forward = _in_slabs(inner)  # im2col of a whole volume would take tens of GB
        del name
    with torch.inference_mode():
        result: Array = module(torch.from_numpy(x).double()).numpy()
    return result


def _in_slabs(conv: Any) -> Any:
    """The forward of a 3-D convolution, some planes of output at a time."""
    import torch

    taps, step, around = conv.kernel_size[0], conv.stride[0], conv.padding[0]

    def forward(x: Any) -> Any:
        depth = x.shape[2]
        planes = (depth + 2 * around - taps) // step + 1
        column = x.shape[1] * int(np.prod(conv.kernel_size)) * int(np.prod(x.shape[3:])) * 8
        thick = max(1, SLAB_BYTES // column)
        parts = []
        for first in range(0, planes, thick):
            last = min(planes, first + thick)
            begin, end = first * step - around, (last - 1) * step - around + taps
            slab = x[:, :, max(0, begin) : min(depth, end)]
            slab = torch.nn.functional.pad(slab, (0, 0, 0, 0, max(0, -begin), max(0, end - depth)))
            parts.append(torch.nn.functional.conv3d(slab, conv.weight, conv.bias, conv.stride, (0, *conv.padding[1:])))
        return torch.cat(parts, 2)

    return forward
