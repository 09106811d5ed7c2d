"""What the interpreter finds."""

from __future__ import annotations


class PtxError(AssertionError):
    """The kernel is wrong, or does what the interpreter does not know; the message says where."""


class UnknownInstructionError(PtxError):
    """An instruction that the interpreter does not know."""


class OutOfBoundsError(PtxError):
    """An access outside every buffer, or one that is not aligned."""


class UninitialisedError(PtxError):
    """A read of memory that nobody wrote, or of a copy that was not waited for."""


class RaceError(PtxError):
    """Two accesses of different warps or blocks, one a write, with nothing between them that orders them."""


class BarrierError(PtxError):
    """A barrier or a warp's exchange that not all threads reach, or threads that never end."""
