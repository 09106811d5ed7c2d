"""pool3d against its oracle on windows that hypothesis chooses, and what its checks refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import compare
from voxelrt.kernels.pool3d import KERNEL, pool3d

PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def windows(draw: st.DrawFn, rank: int) -> tuple[tuple[int, ...], dict[str, Any]]:
    """A spatial shape and a window of which every placement touches the volume."""
    rows = []
    for _ in range(rank):
        k, s, d = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        size = draw(st.integers(d * (k - 1) + 1, 9 + d * (k - 1)))
        begin, end = draw(st.integers(0, k // 2)), draw(st.integers(0, k // 2))
        rows.append((size, k, s, d, begin, end))
    size, *window = zip(*rows, strict=True)
    return size, dict(zip(("kernel", "stride", "dilation", "pad_begin", "pad_end"), window, strict=True))


@PROPERTY
@given(st.data())
def test_windows(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    size, options = data.draw(windows(rank))
    mode = data.draw(st.sampled_from(["max", "average", "lp"]))
    options |= {"mode": mode, "ceil_mode": data.draw(st.booleans())}
    if mode != "lp":
        options["layout"] = data.draw(st.sampled_from(["linear", "blocked"]))
    if mode == "average":
        options["count_include_pad"] = data.draw(st.booleans())
    if mode == "max" and options["layout"] == "linear":
        options |= {"indices": data.draw(st.booleans()), "column_major": data.draw(st.booleans())}
    shape = (data.draw(st.integers(1, 2)), data.draw(st.sampled_from([1, 3, 16, 17])), *size)
    x = np.random.default_rng(data.draw(st.integers(0, 99))).normal(0, 3, shape).astype(np.float32)
    if data.draw(st.booleans()):  # with gaps
        x = x.swapaxes(-1, 0).copy().swapaxes(-1, 0)
    answer, expected = KERNEL(x, **options), KERNEL.oracle(x, **options)
    for out, reference in zip(*(v if isinstance(v, tuple) else (v,) for v in (answer, expected)), strict=True):
        assert compare(out, reference).relative <= 1e-6


@pytest.mark.parametrize(("mode", "kernel"), [("max", 3), ("average", 3), ("average", 0), ("lp", 0)])
def test_any_number_of_threads_gives_the_same_bits(mode: str, kernel: int) -> None:
    x = np.random.default_rng(1).normal(size=(1, 2, 9, 40, 50, 16)).astype(np.float32)
    answers = []
    for threads in (1, 2, 5):
        source = native.Operand(x, native.BLOCKED16, 32)
        if kernel:
            out = native.aligned_empty((1, 2, 7, 38, 48, 16), np.float32)
            native.run_kernel(
                f"pool3d.{mode}",
                [source],
                [native.Operand(out, native.BLOCKED16, 32)],
                native.Pool(threads),
                **dict.fromkeys(("kernel",), [kernel] * 3),
                **dict.fromkeys(("stride", "dilation"), [1] * 3),
                **dict.fromkeys(("pad_begin", "pad_end"), [0] * 3),
                **({"column_major": 0} if mode == "max" else {"count_include_pad": 0}),
            )
        else:
            out = native.aligned_empty((1, 32, 1, 1, 1), np.float32)
            code = {"average": 1, "lp": 2}[mode]
            native.run_kernel("pool3d.global", [source], [out], native.Pool(threads), mode=code, p=2)
        answers.append(out.tobytes())
    assert len(set(answers)) == 1


def test_channels_past_the_last_hold_zeros() -> None:
    x = native.to_blocked(np.full((1, 5, 4, 4, 4), -3.0, np.float32))
    pending = (np.ones((1, 5), np.float32), np.full((1, 5), 2.0, np.float32), 0.5)
    for mode, option in (("max", "column_major"), ("average", "count_include_pad")):
        out = native.aligned_empty((1, 1, 3, 3, 3, 16), np.float32)
        window = {"kernel": [2] * 3, "stride": [2] * 3, "dilation": [1] * 3, "pad_begin": [1] * 3, "pad_end": [1] * 3}
        source = native.Operand(x, native.BLOCKED16, 5, pending)
        native.run_kernel(
            f"pool3d.{mode}", [source], [native.Operand(out, native.BLOCKED16, 5)], **window, **{option: 0}
        )
        assert (out[..., 5:] == 0).all()
        assert mode == "average" or (out[..., :5] == -0.5).all()
    out = native.aligned_empty((1, 1, 1, 1, 1, 16), np.float32)
    native.run_kernel(
        "pool3d.global",
        [native.Operand(x, native.BLOCKED16, 5)],
        [native.Operand(out, native.BLOCKED16, 5)],
        mode=0,
        p=1,
    )
    assert (out[..., :5] == -3).all()
    assert (out[..., 5:] == 0).all()


def test_infinities() -> None:
    x = np.full((1, 1, 4), -np.inf, np.float32)
    assert (pool3d(x, kernel=(2,)) == -np.inf).all()
    value, place = pool3d(x, kernel=(2,), indices=True)
    assert (value == -np.inf).all()
    assert place.ravel().tolist() == [0, 1, 2]


def test_what_is_refused() -> None:
    x = np.zeros((1, 2, 4, 4, 4), np.float32)
    with pytest.raises(UsageError, match="median"):
        pool3d(x, mode="median", kernel=(2, 2, 2))
    with pytest.raises(UsageError, match="3 axes"):
        pool3d(x, kernel=(2, 2))
    with pytest.raises(ShapeError, match="floats, int8 or uint8"):
        pool3d(x.astype(np.int32), kernel=(2, 2, 2))
    with pytest.raises(ShapeError, match="takes floats"):
        pool3d(x.astype(np.int8), mode="average", kernel=(2, 2, 2))
    window = {"stride": [1] * 3, "dilation": [1] * 3, "pad_begin": [0] * 3, "pad_end": [0] * 3, "column_major": 0}
    for kernel, shape, message in (
        ([2, 2, 2], (1, 2, 3, 3, 5), "outputs"),
        ([0, 2, 2], (1, 2, 3, 3, 3), "at least one"),
        ([2, 2, 2], (1, 3, 3, 3, 3), "differ in N or C"),
        ([1 << 21, 2, 2], (1, 2, 3, 3, 3), "longer"),
    ):
        with pytest.raises(ShapeError, match=message):
            native.run_kernel("pool3d.max", [x], [np.empty(shape, np.float32)], kernel=kernel, **window)
    pending = native.Operand(x, pending=(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), 1.0))
    with pytest.raises(ShapeError, match="pending"):
        native.run_kernel("pool3d.max", [pending], [np.empty((1, 2, 3, 3, 3), np.float32)], kernel=[2] * 3, **window)
