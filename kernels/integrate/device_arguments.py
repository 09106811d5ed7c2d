"""Which calls the GPU backends of integrate take."""

from __future__ import annotations

from voxelrt.errors import ShapeError, UnsupportedError, UsageError
from voxelrt.kernels.common.kernel import Array
from voxelrt.kernels.integrate.codes import PADDINGS
from voxelrt.kernels.warp3d.device_arguments import FLOATS, LONGEST


def check(velocity: Array, padding: str, out: Array | None, backend: str) -> None:
    """Refuse by name what they do not do.

    Raises
    ------
    UnsupportedError : a dtype or size that they do not have, or a buffer for the answer.
    UsageError : an unknown padding.
    ShapeError : it is no field.
    """
    advice = "use backend='cpu'"
    if padding not in PADDINGS:
        raise UsageError(f"padding is {padding!r}; it is one of {', '.join(PADDINGS)}")
    if velocity.ndim not in (4, 5) or velocity.shape[1] != velocity.ndim - 2:
        raise ShapeError(f"a velocity field is (N, 3, Z, Y, X) or (N, 2, Y, X), not {velocity.shape}")
    if out is not None:
        raise UnsupportedError(f"integrate on {backend} does not write to a given array: leave out away or {advice}")
    if velocity.dtype not in FLOATS:
        raise UnsupportedError(f"integrate on {backend} takes no {velocity.dtype}, only floats to 32 bits: {advice}")
    if max(velocity.shape[2:]) > LONGEST:
        raise UnsupportedError(f"integrate on {backend} takes axes of up to {LONGEST} voxels, not {velocity.shape}")
