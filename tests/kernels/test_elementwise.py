"""elementwise in plans: blocked tensors, what is pending on them, in-place steps, refusals, and the codes' order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.blocked import answer, blocked, output
from voxelrt import kernels
from voxelrt.errors import ShapeError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.common.native import Operand
from voxelrt.kernels.elementwise import elementwise
from voxelrt.kernels.elementwise.codes import BINARY, UNARY

FOLDER = Path(kernels.__file__).parent / "elementwise"


def _binary(op: str, x: Operand, y: Array | Operand, out: Operand) -> Array:
    native.run_kernel("elementwise.binary", [x, y], [out], op=BINARY.index(op), post=0, alpha=0, beta=0)
    return answer(out)


@pytest.mark.parametrize(("header", "names"), [("unary.h", UNARY), ("binary.h", BINARY)])
def test_codes_are_the_places_in_the_headers_list(header: str, names: tuple[str, ...]) -> None:
    found = re.findall(r"^ +X\((\w+), ", (FOLDER / header).read_text(), re.M)
    assert tuple(name for name in found if name != "name") == names


@pytest.mark.parametrize("shape", [(2, 16, 3, 4, 5), (2, 19, 3, 4, 5), (1, 3, 1, 1, 1), (1, 32, 9, 21, 33)])
def test_blocked_unary(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for op in ("Sigmoid", "Relu", "Exp"):
        out = output(shape)
        native.run_kernel("elementwise.unary", [blocked(x)], [out], op=UNARY.index(op), alpha=0, beta=0)
        np.testing.assert_allclose(answer(out), elementwise(op, x), rtol=1e-6)


@pytest.mark.parametrize("channels", [16, 19, 5])
def test_blocked_binary_with_every_kind_of_second_operand(channels: int) -> None:
    rng = np.random.default_rng(1)
    shape = (2, channels, 3, 4, 7)
    x = rng.normal(size=shape).astype(np.float32)
    for other in (shape, (1, 1, 1, 1, 1), (), (1, channels, 1, 1, 1), (2, channels, 1, 1, 1), (2, 1, 3, 4, 7), (4, 7)):
        y = rng.normal(size=other).astype(np.float32)
        np.testing.assert_array_equal(_binary("Add", blocked(x), y, output(shape)), x + y)
        if len(other) == 5:
            np.testing.assert_array_equal(_binary("Sub", blocked(x), blocked(y), output(shape)), x - y)


@pytest.mark.parametrize("channels", [16, 19])
def test_what_is_pending_is_applied(channels: int) -> None:
    rng = np.random.default_rng(2)
    shape = (2, channels, 5, 6, 11)
    x, y = rng.normal(size=(2, *shape)).astype(np.float32)
    scale, shift = rng.normal(size=(2, 2, channels)).astype(np.float32)
    wide = (slice(None), slice(None), None, None, None)
    applied = x * scale[wide] + shift[wide]
    applied = np.where(applied >= 0, applied, applied * np.float32(0.1))
    out = output(shape)
    native.run_kernel(
        "elementwise.binary",
        [blocked(x, (scale, shift, 0.1)), blocked(y, (shift, scale, 1.0))],
        [out],
        op=BINARY.index("Add"),
        post=UNARY.index("Relu"),
        alpha=0,
        beta=0,
    )
    expected = np.maximum(applied + (y * shift[wide] + scale[wide]), 0)
    np.testing.assert_allclose(answer(out), expected, rtol=1e-5, atol=1e-6)


def test_in_place() -> None:
    x = np.linspace(-3, 3, 10_001, dtype=np.float32)
    expected = elementwise("Mul", x, elementwise("Tanh", x))
    y = x.copy()
    native.run_kernel("elementwise.unary", [y], [y], op=UNARY.index("Tanh"), alpha=0, beta=0)
    native.run_kernel("elementwise.binary", [x, y], [y], op=BINARY.index("Mul"), post=0, alpha=0, beta=0)
    np.testing.assert_array_equal(y, expected)


def test_gaps_in_theoutput() -> None:
    whole = np.full((3, 8, 50), -1.0, np.float32)
    x = np.arange(3 * 4 * 50, dtype=np.float32).reshape(3, 4, 50)
    native.run_kernel("elementwise.unary", [x], [whole[:, 2:6]], op=UNARY.index("Neg"), alpha=0, beta=0)
    np.testing.assert_array_equal(whole[:, 2:6], -x)
    assert (whole[:, :2] == -1).all()
    assert (whole[:, 6:] == -1).all()


def test_integer_division_never_traps() -> None:
    for dtype in (np.int8, np.int64, np.uint64):
        x = np.array([np.iinfo(dtype).min, 7, 0], dtype)
        assert elementwise("Div", x, np.zeros(3, dtype)).tolist() == [0, 0, 0]
        assert elementwise("Mod", x, np.zeros(3, dtype)).tolist() == [0, 0, 0]
    least = np.array([np.iinfo(np.int64).min])
    assert elementwise("Div", least, np.array([-1])).tolist() == least.tolist()
    assert elementwise("Fmod", least, np.array([-1])).tolist() == [0]


def test_powers_of_mixed_dtypes() -> None:
    x = np.array([1, 2, 3, -4], np.int32)
    assert elementwise("Pow", x, np.array([2.0, 0.5, 3.0, 3.0], np.float32)).tolist() == [1, 1, 27, -64]
    assert elementwise("Pow", x, np.array([-1, -1, 2, 3])).tolist() == [1, 0, 9, -64]
    real = elementwise("Pow", x.astype(np.float32), np.array([3, 2, -1, 2]))
    np.testing.assert_allclose(real, [1, 4, 1 / 3, 16], rtol=1e-6)


@pytest.mark.parametrize(
    ("op", "arrays"),
    [
        ("Sqrt", (np.ones(3, np.int32),)),
        ("Add", (np.ones(3, np.float32), np.ones(3, np.float64))),
        ("And", (np.ones(3, np.float32), np.ones(3, np.float32))),
        ("Where", (np.ones(3, np.int8), np.ones(3, np.float32), np.ones(3, np.float32))),
    ],
)
def test_refusals(op: str, arrays: tuple[Array, ...]) -> None:
    with pytest.raises(ShapeError):
        elementwise(op, *arrays)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="5 elements where the output has 4"):
        native.run_kernel(
            "elementwise.unary", [np.ones(5, np.float32)], [np.ones(4, np.float32)], op=1, alpha=0, beta=0
        )


def test_results_do_not_depend_on_the_threads() -> None:
    x = np.random.default_rng(3).normal(size=300_001).astype(np.float32)
    answers = []
    for threads in (1, 2, 3):
        out = native.aligned_empty(x.shape, np.float32)
        native.run_kernel(
            "elementwise.unary", [x], [out], native.Pool(threads), op=UNARY.index("Gelu"), alpha=0, beta=0
        )
        answers.append(out.tobytes())
    assert len(set(answers)) == 1
