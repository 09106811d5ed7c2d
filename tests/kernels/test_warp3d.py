"""warp3d: answers worked out by hand, ONNX's reference, odd operands, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels import grid_sample, warp3d
from voxelrt.kernels.common import native
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.warp3d import oracle


def _line(values: list[float], dtype: Any = np.float32) -> Array:
    """A volume of one row."""
    return np.array(values, dtype).reshape(1, 1, 1, 1, -1)


def _along_x(values: list[float]) -> Array:
    field = np.zeros((1, 3, 1, 1, len(values)), np.float32)
    field[0, 2, 0, 0] = values
    return field


@pytest.mark.parametrize("function", [warp3d, oracle])
def test_by_hand(function: Any) -> None:
    row = _line([10, 20, 40])
    moved = _along_x([0.5, -0.25, 0.75])  # looked up at 0.5, 0.75, 2.75
    words = {"zeros": [15, 17.5, 10], "border": [15, 17.5, 40], "reflect": [15, 17.5, 25], "zeros_edges": [15, 17.5, 0]}
    for padding, expected in words.items():
        np.testing.assert_array_equal(function(row, moved, padding=padding).ravel(), expected)
    # Voxel x of the output is voxel 1 + x/2 of the volume: 1, 1.5, 2.
    affine = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 1]])
    np.testing.assert_array_equal(function(row, affine=affine).ravel(), [20, 30, 40])


def test_the_faces_of_itk() -> None:
    """Half a voxel goes on beyond the outer centres; the upper face is outside, and halves go to the upper voxel."""
    row, labels = _line([10, 20, 40]), _line([1, 7, 3], np.uint8)
    for moved, values, nearest in (
        ([-0.5, -0.5, 0.25], [10, 15, 40], [1, 7, 3]),
        ([-0.75, 1.25, 0.5], [0, 40, 0], [0, 3, 0]),
    ):
        field = _along_x(moved)
        np.testing.assert_array_equal(warp3d(row, field, padding="zeros_edges").ravel(), values)
        np.testing.assert_array_equal(warp3d(labels, field, order=0, padding="zeros_edges").ravel(), nearest)
    elected = warp3d(labels, _along_x([-0.5, -0.25, 0.5]), labels=True, padding="zeros_edges")
    np.testing.assert_array_equal(elected.ravel(), [1, 7, 0])


def test_orders_and_labels_by_hand() -> None:
    row = _line([1, 7, 7, 1], np.uint8)
    moved = _along_x([0.5, 0.25, -0.5, -0.75])  # at 0.5, 1.25, 1.5, 2.25
    np.testing.assert_array_equal(warp3d(row, moved, order=0).ravel(), [1, 7, 7, 7])  # 0.5 and 1.5 to the even voxel
    np.testing.assert_array_equal(warp3d(row, moved, labels=True).ravel(), [1, 7, 7, 7])  # equal weights: the smaller
    np.testing.assert_array_equal(warp3d(row, moved).ravel(), [4, 7, 7, 6])  # 5.5 to even: 6


def test_cubic_reproduces_a_cubic() -> None:
    """The B-spline of coefficients that sample a straight line is that line."""
    line = _line(list(np.arange(12.0)))
    moved = _along_x([0.3] * 12)
    answer = native.aligned_empty(line.shape, np.float32)
    native.run_kernel("warp3d", [line, moved], [answer], mode=2, padding=1, matrix=np.eye(3).ravel())
    np.testing.assert_allclose(answer.ravel()[1:9], np.arange(1, 9) + 0.3, rtol=1e-6)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape", [(2, 2, 4, 5), (1, 2, 3, 4, 5)])
def test_onnx_reference(shape: tuple[int, ...], align_corners: bool, mode: str, padding: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape).astype(np.float32)
    axes = len(shape) - 2
    grid = rng.uniform(-1.6, 1.6, (shape[0], *[3] * axes, axes)).astype(np.float32)
    node = onnx.helper.make_node(
        "GridSample", ["x", "grid"], ["y"], mode=mode, padding_mode=padding, align_corners=int(align_corners)
    )
    graph = onnx.helper.make_graph(
        [node],
        "sample",
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, a.shape) for n, a in (("x", x), ("grid", grid))],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    expected = ReferenceEvaluator(model).run(None, {"x": x, "grid": grid})[0]
    ours = "keys" if mode == "cubic" else mode
    answer = grid_sample(x, grid, mode=ours, padding=padding, align_corners=align_corners)
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=2e-6)


def test_operands_as_they_lie() -> None:
    rng = np.random.default_rng(2)
    wide = rng.normal(size=(2, 3, 6, 7, 40)).astype(np.float32)
    volume = wide[:, ::2, 1:, ::2, 5:30]
    field = np.moveaxis(rng.normal(0, 2, (2, 5, 4, 25, 3)).astype(np.float32), -1, 1)
    expected = warp3d(np.ascontiguousarray(volume), np.ascontiguousarray(field))
    np.testing.assert_array_equal(warp3d(volume, field), expected)
    np.testing.assert_array_equal(warp3d(volume[..., ::-1], field), warp3d(volume[..., ::-1].copy(), field))
    room = np.full((2, 2, 5, 4, 64), np.nan, np.float32)
    assert warp3d(volume, field, out=room[..., 3:28]) is not None
    np.testing.assert_array_equal(room[..., 3:28], expected)
    assert np.isnan(room[..., :3]).all()
    assert np.isnan(room[..., 28:]).all()
    np.testing.assert_array_equal(warp3d(volume, field[:1]), warp3d(volume, np.concatenate([field[:1]] * 2)))


def test_any_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    volume, field = rng.normal(size=(1, 1, 20, 21, 50)), rng.normal(0, 3, (1, 3, 20, 21, 50))
    answers = []
    for threads in (1, 2, 5):
        out = native.aligned_empty(volume.shape, np.float32)
        operands = [volume.astype(np.float32), field.astype(np.float32)]
        native.run_kernel("warp3d", operands, [out], native.Pool(threads), mode=1, padding=0, matrix=np.eye(3).ravel())
        answers.append(out)
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_numbers_that_are_none() -> None:
    row = _line(list(range(1, 41)))
    moved = _along_x([0.0] * 40)
    moved[0, 2, 0, 0, 3], moved[0, 1, 0, 0, 5], moved[0, 2, 0, 0, 20] = np.nan, np.inf, -np.inf
    zeros, border = warp3d(row, moved).ravel(), warp3d(row, moved, padding="border").ravel()
    assert np.isnan(zeros[3])
    assert np.isnan(border[3])
    assert (zeros[5], zeros[20], border[5], border[20]) == (0, 0, 6, 1)
    assert warp3d(row.astype(np.int16), moved).ravel()[3] == 0
    np.testing.assert_array_equal(np.delete(zeros, [3, 5, 20]), np.delete(row.ravel(), [3, 5, 20]))
    huge = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1e30, -1e30]])
    np.testing.assert_array_equal(warp3d(row, affine=huge), np.zeros_like(row))
    assert np.isnan(warp3d(row, affine=huge * np.nan)).all()


def test_refusals() -> None:
    volume, field = np.ones((1, 1, 3, 4, 5), np.float32), np.zeros((1, 3, 3, 4, 5), np.float32)
    for bad in (field[:, :2], np.zeros((2, 3, 3, 4, 5), np.float32), field[0]):
        with pytest.raises(ShapeError):
            warp3d(volume, bad)
    with pytest.raises(ShapeError, match="empty"):
        warp3d(volume[:, :, :0], field)
    with pytest.raises(ShapeError, match="affine"):
        warp3d(volume, field, affine=np.eye(4))
    with pytest.raises(ShapeError, match="float32"):
        warp3d(volume.astype(np.float64), field)
    with pytest.raises(ShapeError, match="vote"):
        warp3d(volume, field, labels=True)
    for options in ({"order": 7}, {"padding": "wrap"}, {"order": 0, "labels": True}, {"backend": "abacus"}):
        with pytest.raises(UsageError):
            warp3d(volume, field, **options)  # type: ignore[arg-type]
    assert warp3d(volume, field[:, :, :0]).shape == (1, 1, 0, 4, 5)
