"""Every GPU kernel of ours, broken in its PTX: the proofs notice a bound, an address, an operand and a barrier.

What is broken is the code that the compilers made of some small cases; a mutation that it has no place for does not
apply to it. Noticed means an error of the interpreter or a wrong answer, in one of the cases.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from tests.emulation import ptx_runner
from tests.emulation.ptx.errors import PtxError
from tests.emulation.ptx_runner import code_of
from tests.emulation.rows import check, kernels, programs
from voxelrt.errors import MissingExtraError
from voxelrt.kernels.common.gpu.program import Program
from voxelrt.kernels.common.kernel import Case, Kernel


def _bounds(text: str) -> str:
    """Every bound is one off."""
    other = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt"}
    return re.sub(r"setp\.(lt|le|gt|ge)\.(s32|s64|u32|u64)", lambda m: f"setp.{other[m[1]]}.{m[2]}", text)


def _width(text: str) -> str:
    """Indices that become addresses are taken for those of elements twice as wide."""
    text = re.sub(r"(mul\.wide\.\w+\s+%rd\d+, %\w+, )([248])\b", lambda m: f"{m[1]}{2 * int(m[2])}", text)
    return re.sub(r"(shl\.b64\s+%rd\d+, %\w+, )([123])\b", lambda m: f"{m[1]}{int(m[2]) + 1}", text)


def _swapped(text: str) -> str:
    """The addends of fused products, and a factor."""
    return re.sub(r"(fma\.rn\.f32\s+%\w+, %\w+, )(\w+|%\w+), (%\w+);", r"\1\3, \2;", text)


MUTATIONS: dict[str, Callable[[str], str]] = {
    "bounds": _bounds,
    "width": _width,
    "swapped operands": _swapped,
    "barriers removed": lambda text: text.replace("bar.sync", "// bar.sync"),
}


def _some(kernel: Kernel, backend: str) -> list[tuple[Case, Program]]:
    """Small cases in which launches have an edge to miss: not of size one, nor empty; with all kinds of launches."""
    try:
        found = [(case, made) for case, made in programs(kernel, backend) if len(made.launches) < 40]
    except MissingExtraError as error:
        pytest.skip(str(error))
    fit = [(case, made) for case, made in found if max(tensor.size for tensor in made.answers) > 11]
    assert fit, f"{kernel.name} has no small case on {backend}"
    fit.sort(key=lambda pair: (-min(len(pair[1].launches), 3), pair[1].launches[0].threads))
    return [*fit[:2], fit[-1]]  # each is run where those before it have not noticed


def _notices(kernel: Kernel, case: Case, made: Program, mutate: Callable[[str], str]) -> bool:
    for seed in range(2):
        try:
            with np.errstate(all="ignore"):
                check(kernel, case, ptx_runner.run(made, 80, seed, mutate))
        except (PtxError, AssertionError, KeyError):
            return True
    return False


@pytest.mark.usefixtures("needs_nvcc")
@pytest.mark.parametrize(
    ("kernel", "backend"),
    [pytest.param(k, backend, id=f"{k.name}-{backend}") for backend in ("cuda", "triton") for k in kernels(backend)],
)
def test_broken_kernels_are_noticed(kernel: Kernel, backend: str) -> None:
    cases = _some(kernel, backend)
    codes = [code_of(made, launch, 80)[0] for _, made in cases for launch in made.launches[:4]]
    tried = 0
    for name, mutate in MUTATIONS.items():
        if all(mutate(text) == text for text in codes):
            continue
        tried += 1
        noticed = any(_notices(kernel, case, made, mutate) for case, made in cases)
        assert noticed, f"{name} goes unnoticed"
    assert tried >= 2
