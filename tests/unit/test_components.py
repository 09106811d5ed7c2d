"""largest_component against a flood fill."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from voxelrt.postprocess.components import largest_component


def flood(mask: NDArray[np.bool_]) -> list[set[tuple[int, ...]]]:
    """All components, in the order of their first voxel."""
    left = {tuple(map(int, v)) for v in np.argwhere(mask)}
    found = []
    while left:
        open_, component = [min(left)], {min(left)}
        left -= component
        while open_:
            voxel = open_.pop()
            for axis in range(3):
                for step in (-1, 1):
                    near = tuple(v + step * (a == axis) for a, v in enumerate(voxel))
                    if near in left:
                        left.remove(near)
                        component.add(near)
                        open_.append(near)
        found.append(component)
    return found


@settings(max_examples=150, deadline=None)
@given(arrays(bool, st.tuples(*[st.integers(1, 7)] * 3)))
def test_against_a_flood_fill(mask: NDArray[np.bool_]) -> None:
    got = {tuple(map(int, v)) for v in np.argwhere(largest_component(mask))}
    components = flood(mask)
    largest = max(map(len, components), default=0)
    expected = next((c for c in components if len(c) == largest), set())
    assert got == expected


def test_a_spiral_is_one_and_a_corner_does_not_join() -> None:
    mask = np.zeros((1, 5, 5), bool)
    mask[0, 0, :] = mask[0, :, 4] = mask[0, 4, :] = mask[0, 2:, 0] = mask[0, 2, :3] = True
    np.testing.assert_array_equal(largest_component(mask), mask)
    diagonal = np.eye(3, dtype=bool)[None]
    assert largest_component(diagonal).sum() == 1


def test_ends_of_neighbouring_rows_do_not_touch() -> None:
    mask = np.zeros((2, 2, 4), bool)
    mask[0, 0, 3] = mask[0, 1, 0] = mask[1, 0, 1] = True
    assert largest_component(mask).sum() == 1
