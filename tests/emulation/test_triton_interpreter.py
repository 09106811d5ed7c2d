"""Triton kernels in Triton's interpreter: small volumes only, it is slow. Started with TRITON_INTERPRET=1."""

from __future__ import annotations

import os

import pytest

from tests.emulation import triton_interpreter
from tests.emulation.rows import check, program, rows
from voxelrt.kernels.common.kernel import Case, Kernel

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="Triton's interpreter needs TRITON_INTERPRET=1 from the start"
)
# Volumes of about 10³; and blocks in all launches, each of which takes the interpreter milliseconds.
MOST_ELEMENTS = 4_000
MOST_BLOCKS = 300
# Of ops with many cases that differ in how they go beyond the faces: past these, only in the long run.
QUICK = {"warp3d": 1300, "integrate": 1200, "median": 60}
# It cuts a float32 to bfloat16 where GPUs round to the nearest, which by itself doubles the error of a plain answer.
CUT = 2.0


@pytest.mark.parametrize(("kernel", "case"), rows("triton", MOST_ELEMENTS, QUICK))
def test_case(kernel: Kernel, case: Case) -> None:
    made = program(kernel, "triton", case)
    if any("bfloat16" in str(v) or "bf16" in str(v) for launch in made.launches for v in launch.constants.values()):
        pytest.skip("Triton's interpreter multiplies matrices of bfloat16 as whole numbers; the PTX is interpreted")
    blocks = sum(launch.threads // launch.block[0] for launch in made.launches)
    if blocks > MOST_BLOCKS:
        pytest.skip(f"{blocks} blocks are too many for Triton's interpreter; its PTX is interpreted instead")
    answer = triton_interpreter.run(made)
    first = answer[0] if isinstance(answer, tuple) else answer
    check(kernel, case, answer, times=2.0 * CUT if first.dtype.name == "bfloat16" else 2.0)
