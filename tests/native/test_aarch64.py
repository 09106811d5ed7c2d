"""The same sources for aarch64: cross-compiled, and a whole plan run under qemu with the answer of this machine.

Needs Debian's g++-aarch64-linux-gnu and qemu-user, and is skipped by name without them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.native.prepare_example import HEADER, SOURCE, write_plan
from voxelrt.kernels.common.kernel import compare
from voxelrt.plan.file import Section, assemble, disassemble, map_file

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("aarch64-linux-gnu-g++", "aarch64-linux-gnu-gcc", "qemu-aarch64")


@pytest.fixture(scope="module")
def library() -> Path:
    """The cross-compiled library, in build/aarch64."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: nothing for aarch64 can be built or run here")
    tools, build = Path(sys.executable).parent, ROOT / "build" / "aarch64"
    options = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={TOOLS[0]}"]
    configure = [str(tools / "cmake"), "-S", str(ROOT), "-B", str(build), "-G", "Ninja", *options]
    subprocess.run([*configure, f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([str(tools / "cmake"), "--build", str(build), "--target", "voxelrt"], check=True)
    return build / "libvoxelrt.so"


def test_a_plan_gives_the_same_answer_on_neon(library: Path, tmp_path: Path) -> None:
    plan, x = write_plan(tmp_path, packed=False)  # its weights are packed on opening, by the other library
    sections = disassemble(map_file(tmp_path / "net.vxp"))
    assemble([Section(s.kind, s.data, "aarch64-neon" if s.target else "") for s in sections]).tofile(
        tmp_path / "arm.vxp"
    )
    program = tmp_path / "example"
    link = [f"-I{HEADER}", str(SOURCE), str(library), f"-Wl,-rpath,{library.parent}", "-o", str(program)]
    subprocess.run([TOOLS[1], "-std=c11", *link], check=True)
    files = [str(tmp_path / name) for name in ("arm.vxp", "in.f32", "out.f32")]
    environment = {k: v for k, v in os.environ.items() if k != "VOXELRT_CPU_ISA"}
    done = subprocess.run(
        [TOOLS[2], "-L", "/usr/aarch64-linux-gnu", str(program), *files],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "ran on neon" in done.stdout
    out = np.fromfile(tmp_path / "out.f32", np.float32).reshape(plan.outputs[0].dims)
    assert compare(out, plan(x)).relative <= 1e-6
