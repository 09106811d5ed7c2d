"""Every GPU kernel compiles for every target, in each form that the small cases use."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from tests.emulation.report import UNFIT, triton_usage
from tests.emulation.rows import distinct_launches, kernels, programs, targets
from tests.emulation.test_cuda_shim import entries_of
from voxelrt.errors import DeviceError, MissingExtraError
from voxelrt.kernels.common.gpu.cuda_compiler import compile_cuda
from voxelrt.kernels.common.gpu.program import Launch
from voxelrt.kernels.common.gpu.targets import TARGETS
from voxelrt.kernels.common.gpu.triton_compiler import compile_triton
from voxelrt.kernels.common.kernel import GPU_BACKENDS, Kernel

# (op, backend, target) -> what the compiler said. A refusal that is not written down here fails, and so does one
# that no longer happens.
REFUSED: dict[tuple[str, str, int], str] = {}
FEWEST_CASES = 4


def _named(backend: str) -> list[object]:
    return [pytest.param(kernel, id=kernel.name) for kernel in kernels(backend)]


@pytest.mark.usefixtures("needs_nvcc")
@pytest.mark.parametrize("target", targets("cuda"))
@pytest.mark.parametrize("kernel", _named("cuda"))
def test_cuda_compiles(kernel: Kernel, target: int) -> None:
    _, made = next(programs(kernel, "cuda"))
    _expect_refusal(kernel, "cuda", target)
    compiled = compile_cuda(made.source.with_suffix(".cu"), target)
    found = set(re.findall(r"\.entry\s+(\w+)", compiled.ptx))
    assert found == set(entries_of(kernel)), "ENTRIES in cuda.py are not the entries of cuda.cu"


@pytest.mark.parametrize("target", targets("triton"))
@pytest.mark.parametrize("kernel", _named("triton"))
def test_triton_compiles(kernel: Kernel, target: int) -> None:
    try:
        launches = forms_for(distinct_launches(kernel), target)
    except MissingExtraError as error:
        pytest.skip(str(error))
    _expect_refusal(kernel, "triton", target)
    for launch in launches:
        compiled, metadata = compile_triton(launch, target)
        assert compiled.cubin
        assert metadata["global_scratch_size"] == 0, "programs give Triton no scratch memory"
        if (kernel.name, target) not in UNFIT:
            usage = triton_usage(kernel.name, launch, target)
            assert usage.stack <= (0 if target >= 80 else 32), str(usage)


def forms_for(launches: list[Launch], target: int) -> list[Launch]:
    """Each kernel in at least one of its forms for each target, and each form for at least one target.

    All forms are compiled for the targets whose PTX is interpreted; the seconds of the others add up.
    """
    number, by_name = TARGETS.index(target), defaultdict(list)
    for launch in launches:
        by_name[launch.name].append(launch)
    return [
        launch
        for forms in by_name.values()
        for index, launch in enumerate(forms)
        if index % len(TARGETS) == number or index == number % len(forms)
    ]


def _expect_refusal(kernel: Kernel, backend: str, target: int) -> None:
    if (kernel.name, backend, target) in REFUSED:
        message = REFUSED[kernel.name, backend, target]
        with pytest.raises(DeviceError, match=message):
            for launch in distinct_launches(kernel) if backend == "triton" else []:
                compile_triton(launch, target)
        pytest.xfail(message)


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_backends_take_enough_of_the_cases(backend: str) -> None:
    for kernel in kernels(backend):
        try:
            taken = [case.name for case, _ in programs(kernel, backend)]
        except MissingExtraError as error:
            pytest.skip(str(error))
        assert len(taken) >= FEWEST_CASES, f"{kernel.name} on {backend} is proved by {taken} only"
