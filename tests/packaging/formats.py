"""Every format as a new user runs it: ``voxelrt info`` and ``voxelrt run --fallback error``, against a stored answer.

``python -m tests.packaging.formats BIN [core|torch|all]``: BIN is the folder of programs of an environment in which
voxelrt is installed; the formats of ``torch`` need the extra of that name there.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from tests.models.tensorflow_cases import cases
from tests.models.test_safetensors import PEER
from tests.models.test_torch import WEIGHTS, stored

TOLERANCE = 5e-5
NNUNET = Path(__file__).parents[1] / "pipeline" / "data" / "nnunet_meaning.tar.xz"


@dataclass(frozen=True)
class Example:
    """A model on disk, what is given to it, and its source's answer: arrays, or of a study labels."""

    model: Path
    answer: NDArray[Any]
    inputs: Mapping[str, NDArray[Any]]
    study: Path | None = None


def _perceptron() -> tuple[Mapping[str, NDArray[Any]], NDArray[Any]]:
    """What weights.pth was given when it was written, and PyTorch's answer."""
    from voxelrt.models.formats.torch_checkpoint import Checkpoint

    with Checkpoint(WEIGHTS) as checkpoint:
        x, y = (checkpoint.tensor(checkpoint.content[name], name) for name in ("input", "output"))
    return {"features": x}, y


def _onnx(folder: Path) -> Example:
    from voxelrt.models.load import load

    ir.save(load(WEIGHTS).graph, folder / "net.onnx")
    inputs, answer = _perceptron()
    return Example(folder / "net.onnx", answer, inputs)


def _state_dict(folder: Path) -> Example:
    del folder
    inputs, answer = _perceptron()
    return Example(WEIGHTS, answer, inputs)


def _safetensors(folder: Path) -> Example:
    from voxelrt.models.load import load

    del folder
    inputs = {"features": np.random.default_rng(0).standard_normal((2, 5), np.float32)}
    (answer,) = ReferenceEvaluator(ir.to_proto(load(PEER).graph)).run(None, dict(inputs))
    return Example(PEER, answer, inputs)


def _tensorflow(folder: Path) -> Example:
    case = cases()["deconv3d_SAME_s2_k3_n7"]
    (folder / "net.pb").write_bytes(case["graph"].tobytes())
    return Example(folder / "net.pb", case["out|y"], {"x": case["in|x"]})


def _nnunet(folder: Path) -> Example:
    with tarfile.open(NNUNET) as archive:
        wanted = [member for member in archive.getmembers() if member.name.startswith("two-classes-oblique/")]
        archive.extractall(folder, wanted, filter="data")
    case = folder / "two-classes-oblique"
    with np.load(case / "labels.npz") as answers:
        return Example(next(case.glob("nnUNetTrainer__*")), answers["float32"], {}, case / "case_0000.nii.gz")


def _torch(kind: str, name: str) -> Callable[[Path], Example]:
    def make(folder: Path) -> Example:
        (folder / name).write_bytes(stored(kind).tobytes())
        return Example(folder / name, stored("output"), {"image": stored("input")})

    return make


CORE: dict[str, Callable[[Path], Example]] = {
    "nnU-Net folder": _nnunet,
    "ONNX": _onnx,
    "TensorFlow .pb": _tensorflow,
    "safetensors": _safetensors,
    "torch state dict": _state_dict,
}
TORCH: dict[str, Callable[[Path], Example]] = {
    "torch .pt2": _torch("pt2", "net.pt2"),
    "TorchScript": _torch("torchscript", "net.pt"),
}


def command(programs: Path, folder: Path, *arguments: str | Path) -> float:
    """Run voxelrt outside the source folder, with a cache of its own. Returns seconds; leaves with what it said."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("VOXELRT_", "PYTHON"))}
    clean["VOXELRT_CACHE"] = str(folder / "cache")
    start = time.perf_counter()
    words = [str(programs / "voxelrt"), *map(str, arguments)]
    done = subprocess.run(words, cwd=folder, env=clean, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def try_format(programs: Path, folder: Path, make: Callable[[Path], Example]) -> str:
    """Ask about a model and run it. Returns what was measured; leaves where the answer is not the source's."""
    example = make(folder)
    shapes: list[str] = []
    given: list[str | Path] = []
    for name, array in example.inputs.items():
        np.save(folder / f"{name}.npy", array)
        shapes += ["--shape", f"{name}={','.join(map(str, array.shape))}"]
        given += ["--input", f"{name}={folder / f'{name}.npy'}"]
    asked = command(programs, folder, "info", example.model, *shapes)
    out = folder / ("labels.nii.gz" if example.study else "answer.npy")
    ran = command(
        programs, folder, "run", example.model, *given, *filter(None, [example.study]), "--fallback", "error", "-o", out
    )
    if example.study:
        found = np.asarray(nib.load(out).dataobj)
        differing = int((found != example.answer).sum())
        figure, good = f"{differing} of {found.size} labels differ", differing == 0
    else:
        found = np.load(io.BytesIO(out.read_bytes())).astype(np.float64)
        error = float(np.linalg.norm(found - example.answer) / np.linalg.norm(example.answer))
        figure, good = f"‖e‖/‖ref‖ {error:.1e}", error <= TOLERANCE
    if not good:
        sys.exit(f"{example.model.name}: {figure}")
    return f"{figure}, info {asked:.1f} s, run {ran:.1f} s"


def check(programs: Path, formats: Mapping[str, Callable[[Path], Example]]) -> None:
    """Try formats with the ``voxelrt`` of a folder of programs, a line each."""
    for name, make in formats.items():
        with tempfile.TemporaryDirectory() as folder:
            print(f"  {name:18s} {try_format(programs, Path(folder), make)}", flush=True)


def main() -> None:
    """See the module's text."""
    wanted = sys.argv[2] if len(sys.argv) > 2 else "all"
    check(Path(sys.argv[1]).absolute(), {"core": CORE, "torch": TORCH, "all": CORE | TORCH}[wanted])


if __name__ == "__main__":
    main()
