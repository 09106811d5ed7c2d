"""The native library: which instruction set, which threads, and what it refuses."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from voxelrt.errors import NativeLibraryError, ShapeError, UnsupportedError, UsageError
from voxelrt.kernels.common import capi, native
from voxelrt.kernels.common.kernel import entries

PROBE = """
from voxelrt.errors import VoxelRTError
from voxelrt.kernels.common import capi
try:
    print(capi.isa())
except VoxelRTError as error:
    print(type(error).__name__, error)
"""


def probe(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_instruction_set_is_chosen_once_and_can_be_named() -> None:
    assert capi.isa() in ("avx2", "avx512", "neon")
    assert probe(VOXELRT_CPU_ISA=capi.isa()) == capi.isa()


@pytest.mark.parametrize("name", ["sse9", "AVX2", "avx2 "])
def test_an_unknown_instruction_set_is_an_error(name: str) -> None:
    answer = probe(VOXELRT_CPU_ISA=name)
    assert answer.startswith(NativeLibraryError.__name__)
    assert name.strip() in answer


def test_an_unknown_variable_is_an_error() -> None:
    assert probe(VOXELRT_THREDS="2").startswith("UsageError")


def test_every_kernel_of_the_library_belongs_to_an_op_folder() -> None:
    root = Path(native.__file__).parents[1]
    folders = {name for name in entries() if (root / name / "cpu.cpp").is_file()}
    assert {name.partition(".")[0] for name in native.kernels()} == folders


def test_threads_out_of_range_are_refused() -> None:
    for threads in (0, 1025):
        with pytest.raises(ShapeError, match="1 to 1024"):
            native.Pool(threads)


def test_an_unknown_kernel_and_wrong_parameters_are_refused() -> None:
    error = ctypes.c_void_p()
    status = capi.library().voxelrt_kernel_run(b"nothing", b"", 0, None, 0, None, 0, None, ctypes.byref(error))
    with pytest.raises(UnsupportedError, match="no kernel 'nothing'"):
        capi.check(status, error)
    status = capi.library().voxelrt_kernel_run(b"copy", b"", 0, None, 0, None, 0, None, ctypes.byref(error))
    with pytest.raises(ShapeError, match="4 bytes of parameters"):
        capi.check(status, error)
    with pytest.raises(TypeError, match="no parameter speed"):
        native.run_kernel("copy", [], [], speed=1)


def test_a_dtype_that_is_not_ours_is_named() -> None:
    with pytest.raises(UsageError, match="complex64"):
        native.run_kernel("copy", [np.zeros(1, np.complex64)], [np.zeros(1, np.complex64)], reserved=0)


def test_blocked_arrays_go_there_and_back() -> None:
    x = np.random.default_rng(0).random((2, 19, 3, 1, 4), np.float32)
    np.testing.assert_array_equal(native.from_blocked(native.to_blocked(x), 19), x)
    assert not native.to_blocked(x)[:, 1, ..., 3:].any()


def test_the_checksum_is_crc32c() -> None:
    assert capi.crc32c(b"123456789") == 0xE3069283
    assert capi.crc32c(b"6789", capi.crc32c(b"12345")) == 0xE3069283
    data = np.random.default_rng(0).bytes(3 * 12288 * 30 + 5)  # long data goes by lanes
    parts = 0
    for start in range(0, len(data), 100_000):
        parts = capi.crc32c(data[start : start + 100_000], parts)
    assert capi.crc32c(data) == parts
