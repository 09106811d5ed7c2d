"""Every case of every op, on every CPU backend, against the float64 oracle. Outputs start as NaN (see conftest).

GPU backends: ``tests/emulation`` without a GPU, ``tests/gpu`` on one.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from voxelrt.errors import MissingExtraError
from voxelrt.kernels.common.kernel import GPU_BACKENDS, Case, Kernel, compare, entries

ROWS = [
    pytest.param(kernel, backend, case, id=f"{kernel.name}-{backend}-{case.name}")
    for kernel in entries().values()
    for backend in kernel.backends
    if backend not in GPU_BACKENDS
    for case in kernel.cases
]


@pytest.mark.parametrize(("kernel", "backend", "case"), ROWS)
def test_case(kernel: Kernel, backend: str, case: Case) -> None:
    try:
        function = kernel.backend(backend)
    except MissingExtraError as error:
        pytest.skip(str(error))
    arguments, options = case.make(np.random.default_rng(zlib.crc32(case.name.encode())))
    expected = kernel.oracle(*arguments, **options)
    answer = function(*arguments, **options)
    pairs = zip(
        answer if isinstance(answer, tuple) else (answer,),
        expected if isinstance(expected, tuple) else (expected,),
        strict=True,
    )
    for out, reference in pairs:
        difference = compare(out, reference)
        assert difference.relative <= case.tolerance, str(difference)
