"""The graph in the ONNX reference evaluator, with our float64 oracles for the operators that would take hours there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from voxelrt.plan.oracle_grids import grids
from voxelrt.plan.oracle_warps import warps

Array = NDArray[Any]


def reference_evaluator(proto: onnx.ModelProto) -> Callable[[dict[str, Array]], list[Array]]:
    """A function from inputs by name to the outputs in order."""
    evaluator = ReferenceEvaluator(proto, new_ops=[_conv(), _conv_transpose(), *warps(), *grids()])

    def run(inputs: dict[str, Array]) -> list[Array]:
        results: Sequence[Any] = evaluator.run(None, inputs)
        return [np.asarray(r) for r in results]

    return run


def _volume(array: Array) -> Array:
    return array.reshape(*array.shape[:2], *(1,) * (5 - array.ndim), *array.shape[2:])


def _three(values: Sequence[int] | None, rank: int, default: int) -> tuple[int, ...]:
    given = list(values) if values else [default] * rank
    return (*(default,) * (3 - rank), *(int(v) for v in given))


def pads_of(
    auto_pad: str,
    pads: Sequence[int] | None,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The padding at both ends of each axis, ``auto_pad`` resolved as ONNX says."""
    rank = len(size)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = [], []
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
            total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            low = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            begin.append(low)
            end.append(total - low)
        return tuple(begin), tuple(end)
    given = list(pads) if pads and auto_pad in ("NOTSET", "") else [0] * (2 * rank)
    return tuple(given[:rank]), tuple(given[rank:])


def _conv() -> type[OpRun]:
    from voxelrt.kernels.conv3d.oracle import conv3d

    class Conv(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, w: Array, b: Array | None = None, **a: Any) -> tuple[Array]:
            rank = x.ndim - 2
            stride, dilation = _three(a.get("strides"), rank, 1), _three(a.get("dilations"), rank, 1)
            size, kernel = (*(1,) * (3 - rank), *x.shape[2:]), (*(1,) * (3 - rank), *w.shape[2:])
            pads = a.get("pads")
            full = None if not pads else (*(0,) * (3 - rank), *pads[:rank], *(0,) * (3 - rank), *pads[rank:])
            begin, end = pads_of(a.get("auto_pad") or "NOTSET", full, size, kernel, stride, dilation)
            out = conv3d(
                _volume(x),
                _volume(w),
                b,
                stride=stride,
                padding=tuple(zip(begin, end, strict=True)),
                dilation=dilation,
                groups=a.get("group") or 1,
            )
            return (out.reshape(*out.shape[:2], *out.shape[5 - rank :]).astype(x.dtype),)

    return Conv


def _conv_transpose() -> type[OpRun]:
    from voxelrt.kernels.conv_transpose3d.oracle import conv_transpose3d

    class ConvTranspose(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, w: Array, b: Array | None = None, **a: Any) -> tuple[Array]:
            rank = x.ndim - 2
            if a.get("auto_pad") not in (None, "NOTSET") or a.get("output_shape"):
                raise NotImplementedError("auto_pad and output_shape of ConvTranspose are resolved by the importer")
            pads = list(a.get("pads") or [0] * (2 * rank))
            begin, end = _three(pads[:rank], rank, 0), _three(pads[rank:], rank, 0)
            out = conv_transpose3d(
                _volume(x),
                _volume(w),
                b,
                stride=_three(a.get("strides"), rank, 1),
                padding=tuple(zip(begin, end, strict=True)),
                output_padding=_three(a.get("output_padding"), rank, 0),
                dilation=_three(a.get("dilations"), rank, 1),
                groups=a.get("group") or 1,
            )
            return (out.reshape(*out.shape[:2], *out.shape[5 - rank :]).astype(x.dtype),)

    return ConvTranspose
