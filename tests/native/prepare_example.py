"""Compile the C example and write a plan and an input for it.

``python -m tests.native.prepare_example FOLDER [NETWORK]``; the networks are those of ``NETWORKS``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import voxelrt as vx
from bench.networks import mdlstm, recurrent
from voxelrt.kernels.common import native
from voxelrt.models.architectures.unet3d import build_unet3d

SOURCE = Path(__file__).with_name("example.c")
HEADER = Path(native.__file__).parent


def compile_example(folder: Path, source: Path = SOURCE) -> Path:
    """The program, linked to the library of this installation."""
    program = folder / source.stem
    library = HEADER / "libvoxelrt.so"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{HEADER}", f"-Wl,-rpath,{HEADER}"]
    subprocess.run(["gcc", *flags, str(source), str(library), "-o", str(program)], check=True)
    return program


NETWORKS: dict[str, Callable[[], ir.Model]] = {
    "unet3d": lambda: build_unet3d(features=(8, 16), patch=(16, 16, 16), classes=3, channels=1, seed=1),
    # One sequence and more threads than chains: each step is cut, and its parts meet.
    "lstm": lambda: recurrent("forward", 1)(0, 6)[0],
    "bilstm": lambda: recurrent("bidirectional", 9)(0, 4)[0],
    "mdlstm": lambda: mdlstm(0, 5)[0],
}


def write_plan(folder: Path, *, packed: bool = True, network: str = "unet3d") -> tuple[vx.Plan, NDArray[np.float32]]:
    """net.vxp and in.f32 in the folder; the plan and the input come back."""
    plan = vx.compile(NETWORKS[network](), fallback="error", verify=False)
    plan.save(folder / "net.vxp", packed=packed)
    x = np.random.default_rng(0).random(plan.inputs[0].dims, np.float32)
    x.tofile(folder / "in.f32")
    return plan, x


if __name__ == "__main__":
    compile_example(Path(sys.argv[1]))
    write_plan(Path(sys.argv[1]), network=(sys.argv[2:] or ["unet3d"])[0])
