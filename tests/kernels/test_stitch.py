"""stitch: by hand, and its rounding to half precision bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from voxelrt.kernels import stitch


def test_by_hand() -> None:
    sums, logits = np.full((1, 1, 1, 2), 3, np.float32), np.array([[[[2, 4]]]], np.float32)
    weights = np.array([[[10, 0.5]]], np.float32)
    assert stitch(sums, logits, weights, share=0.5).tolist() == [[[[13, 4]]]]


@pytest.mark.parametrize("sign", [1, -1])
def test_halves_are_ieee_s(sign: int) -> None:
    """Every float whose low bits lie at, beside or between halves: subnormal, tied, largest, infinite, NaN."""
    halves = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = ((halves[1:-1].astype(np.float64) + halves[:-2]) / 2).astype(np.float32)
    near = [np.nextafter(between, np.float32(way)) for way in (0, np.inf)]
    values = np.concatenate([halves, between, *near, [65519.99, 65520, 1e30, np.nan]]).astype(np.float32) * sign
    zero, ones = np.zeros((1, 1, 1, values.size), np.float32), np.ones((1, 1, values.size), np.float32)
    out = stitch(zero, values[None, None, None], ones, half=True).ravel()
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(out, wanted)
