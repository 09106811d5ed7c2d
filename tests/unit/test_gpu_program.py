"""Programs: GPU work as data. No GPU, compiler or extra is needed to make one."""

from __future__ import annotations

import numpy as np
import pytest

from voxelrt.errors import DeviceError, MissingExtraError, UsageError
from voxelrt.kernels import stitch
from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.common.kernel import entries


def _values(tensor: Tensor) -> np.ndarray:
    assert tensor.buffer.initial is not None
    return tensor.view(tensor.buffer.initial)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a[::-1, 1:, ::2],
        lambda a: np.flip(a, (1, 2)),
        lambda a: a.transpose(2, 0, 1),
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: a[:0],
        lambda a: a[1, 2, 3],
    ],
    ids=["whole", "stepped", "mirrored", "transposed", "broadcast", "empty", "scalar"],
)
def test_inputs_of_any_strides_keep_their_values(view: object) -> None:
    array = view(np.arange(60, dtype=np.float32).reshape(3, 4, 5))  # type: ignore[operator]
    tensor = Program(__file__).input(array)
    np.testing.assert_array_equal(_values(tensor), array)


def test_gaps_of_a_view_are_undefined_and_nothing_lies_around_it() -> None:
    tensor = Program(__file__).input(np.arange(20, dtype=np.int16)[3:12:3])
    assert (tensor.buffer.elements, tensor.offset, tensor.strides) == (7, 0, (3,))
    assert tensor.buffer.defined is not None
    assert tensor.buffer.defined.tolist() == [True, False, False, True, False, False, True]


def test_arguments_have_the_types_that_kernels_expect() -> None:
    made = Program(__file__)
    made.launch("k", (2, 3), made.output((4,), np.float16), 7, 0.5, np.int32(1), np.float64(2))
    assert made.launches[0].types() == ("*fp16", "i64", "fp32", "i32", "fp64")
    assert made.launches[0].threads == 6 * 128


def test_an_empty_grid_is_no_launch() -> None:
    made = Program(__file__)
    made.launch("k", (4, 0))
    assert made.launches == []


@pytest.mark.parametrize(("grid", "block"), [((1, 70000), 32), (1, 2048), (2**31, 32)])
def test_a_launch_past_the_limits_of_gpus_is_refused(grid: object, block: int) -> None:
    with pytest.raises(UsageError, match="split the work"):
        Program(__file__).launch("k", grid, block=block)  # type: ignore[arg-type]


def test_an_argument_that_kernels_do_not_take_is_named() -> None:
    with pytest.raises(UsageError, match="takes no ndarray"):
        Program(__file__).launch("k", 1, np.zeros(3))
    with pytest.raises(UsageError, match="take no complex64"):
        Program(__file__).input(np.zeros(3, np.complex64))


def test_without_a_gpu_the_error_says_what_is_missing() -> None:
    array = np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises((DeviceError, MissingExtraError), match=r"voxelrt\[gpu\]|NVIDIA GPU"):
        stitch(array, array, array[0], backend="cuda")


def test_a_cpu_backend_has_no_program() -> None:
    with pytest.raises(UsageError, match="no GPU backend"):
        entries()["stitch"].program("cpu")
