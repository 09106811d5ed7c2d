"""Every case of every op on each GPU backend, on a real GPU, against the float64 oracle."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from voxelrt.errors import UnsupportedError
from voxelrt.kernels.common.kernel import GPU_BACKENDS, Kernel, compare, entries

ROWS = [
    pytest.param(kernel, backend, id=f"{kernel.name}-{backend}")
    for kernel in entries().values()
    for backend in kernel.backends
    if backend in GPU_BACKENDS
]


@pytest.mark.gpu
@pytest.mark.parametrize(("kernel", "backend"), ROWS)
def test_cases(kernel: Kernel, backend: str) -> None:
    function = kernel.backend(backend)
    wrong, taken = [], 0
    for case in (*kernel.cases, *kernel.gpu_cases):
        given, options = case.make(np.random.default_rng(zlib.crc32(case.name.encode())))
        try:
            answer = function(*given, **options)
        except UnsupportedError:
            continue
        taken += 1
        expected = kernel.oracle(*given, **options)
        pairs = zip(*(a if isinstance(a, tuple) else (a,) for a in (answer, expected)), strict=True)
        wrong += [f"{case.name}: {d}" for d in (compare(o, r) for o, r in pairs) if not d.relative <= case.tolerance]
    assert taken > 0
    assert not wrong, "\n".join(wrong)
