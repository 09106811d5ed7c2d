"""matmul against numpy's matmul in float64 on shapes that hypothesis chooses, its guarantees, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxelrt.errors import ShapeError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.activation import ACTIVATIONS
from voxelrt.kernels.common.kernel import Array, compare
from voxelrt.kernels.matmul import KERNEL, matmul
from voxelrt.kernels.matmul.oracle import matmul as oracle

PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PARAMS = {
    "packed": 0,
    "transposed": 0,
    "alpha": 1.0,
    "beta": 1.0,
    "activation": 0,
    "activation_alpha": 0.0,
    "activation_beta": 0.0,
}


def _random(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@PROPERTY
@given(st.data())
def test_shapes(data: st.DataObject) -> None:
    m, k, n = (data.draw(st.sampled_from([0, 1, 2, 3, 13, 15, 16, 31, 33, 64, 130, 300])) for _ in range(3))
    batch = tuple(data.draw(st.lists(st.integers(1, 3), max_size=2)))
    one = tuple(1 if data.draw(st.booleans()) else size for size in batch)
    two = tuple(1 if data.draw(st.booleans()) else size for size in batch)[data.draw(st.integers(0, len(batch))) :]
    dtype = data.draw(st.sampled_from(["float32", "float32", "float64", "int32", "uint64"]))
    transpose_a, transpose_b = data.draw(st.booleans()), data.draw(st.booleans())
    a = _random((*one, *((k, m) if transpose_a else (m, k))), dtype)
    b = _random((*two, *((n, k) if transpose_b else (k, n))), dtype, 1)
    if data.draw(st.booleans()) and a.size:  # with gaps
        a = np.repeat(a, 2, axis=-1)[..., ::2]
    options: dict[str, Any] = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    c = None
    if data.draw(st.booleans()):
        c = _random(data.draw(st.sampled_from([(), (n,), (m, 1), (m, n)])), dtype, 2)
    if dtype == "float32":
        options["packed"] = not two and m * n * k > 0 and data.draw(st.booleans())
        options["activation"] = (data.draw(st.sampled_from(list(ACTIVATIONS))), -0.3, 0.8)
        options |= {"alpha": data.draw(st.sampled_from([1.0, 0.5])), "beta": data.draw(st.sampled_from([1.0, -2.0]))}
    out = KERNEL(a, b, c, **options)
    tolerance = {"float32": 2e-6, "float64": 1e-13}.get(dtype, 0.0)
    found = compare(out, oracle(a, b, c, **options))
    # In the tail of a GELU the answer is next to nothing, and no float32 argument says it to six digits.
    assert found.relative <= tolerance or found.maximum <= tolerance


@PROPERTY
@given(st.data())
def test_bytes(data: st.DataObject) -> None:
    m, k, n = (data.draw(st.integers(1, 70)) for _ in range(3))
    types = [data.draw(st.sampled_from(["int8", "uint8"])) for _ in "ab"]
    a, b = _random((m, k), types[0]), _random((k, n), types[1], 1)
    zeros: dict[str, Array] = {}
    if data.draw(st.booleans()):
        zeros["zero_a"] = _random(data.draw(st.sampled_from([(), (m,)])), types[0], 2)
    if data.draw(st.booleans()):
        zeros["zero_b"] = _random(data.draw(st.sampled_from([(), (n,)])), types[1], 3)
    out = KERNEL(a, b, **zeros)
    assert out.dtype == np.int32
    assert np.array_equal(out, oracle(a, b, **zeros))


def test_a_literal() -> None:
    out = matmul(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0], [7.0, 8.0]]))
    assert out.tolist() == [[19.0, 22.0], [43.0, 50.0]]


@pytest.mark.parametrize("packed", [False, True])
def test_a_row_does_not_depend_on_the_rows_beside_it_or_on_threads(packed: bool) -> None:
    a, b = _random((3, 61, 600)), _random((600, 333), seed=1)
    weight = native.pack_weight("matmul", b, **PARAMS) if packed else b
    answers = []
    for threads, rows in ((1, a), (3, a), (1, a[1:2, 17:40]), (1, a[1:2, 17:18]), (2, a[:2, 17:22])):
        out = native.aligned_empty((*rows.shape[:2], 333), np.float32)
        right = weight if packed else np.broadcast_to(b, (*rows.shape[:1], *b.shape))
        native.run_kernel("matmul", [rows, right], [out], native.Pool(threads), **PARAMS | {"packed": packed})
        place = {3: (1, 17), 2: (1, 0), 1: (0, 0)}[rows.shape[0]]
        answers.append(out[place].tobytes())
    assert len(set(answers)) == 1


def test_b_larger_than_what_is_packed_at_once() -> None:
    a = _random((2, 3, 4096))
    b = np.random.default_rng(1).random((2, 4096, 1200), np.float32) - np.float32(0.5)  # 38 MiB, two of 19
    expected = np.matmul(a.astype(np.float64), b.astype(np.float64))
    assert compare(matmul(a, b), expected).relative <= 2e-6
    wide = np.concatenate([b[0], b[1]], axis=1)
    assert compare(matmul(a[0], wide)[:, :1200], expected[0]).relative <= 2e-6


def test_a_nan_stays_in_its_row() -> None:
    a, b = _random((5, 7)), _random((7, 9))
    a[2, 3] = np.nan
    assert np.isnan(matmul(a, b)).sum(axis=1).tolist() == [0, 0, 9, 0, 0]


def test_what_is_refused() -> None:
    a, b = _random((4, 5)), _random((5, 6))
    with pytest.raises(ShapeError, match="do not multiply"):
        matmul(a, a)
    with pytest.raises(ShapeError, match="go together"):
        matmul(np.zeros((2, 4, 5), np.float32), np.zeros((3, 5, 6), np.float32))
    with pytest.raises(ShapeError, match="one dtype"):
        matmul(a, b.astype(np.float64))
    with pytest.raises(ShapeError, match="one dtype"):
        matmul(a.astype(np.int16), b.astype(np.int16))
    with pytest.raises(ShapeError, match="not one of this dtype"):
        matmul(a.astype(np.int64), b.astype(np.int64), activation="relu")
    with pytest.raises(ShapeError, match="alpha and beta"):
        matmul(a.astype(np.int32), b.astype(np.int32), alpha=2.0)
    out = native.aligned_empty((4, 6), np.float32)
    packed = native.pack_weight("matmul", b, **PARAMS)
    for inputs, change, message in (
        ([a, packed[:-1]], {"packed": 1}, "packed B"),
        ([a, packed], {}, "do not make the result"),
        ([a, b], {"packed": 2}, "packed is 0 or 1"),
        ([a, b], {"activation": 99}, "activation 99"),
        ([a, b, np.zeros(6, np.float32)], {}, "shape of the result"),
        ([a], {}, "takes A, B"),
    ):
        with pytest.raises(ShapeError, match=message):
            native.run_kernel("matmul", inputs, [out], **PARAMS | change)
    with pytest.raises(ShapeError, match="cannot pack"):
        native.pack_weight("matmul", b.astype(np.float64), **PARAMS)
