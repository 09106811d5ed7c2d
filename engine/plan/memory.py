"""The arena: which buffers may share memory because they never live at the same time.

Buffers are placed largest first, each in the lowest gap between those already placed whose lives overlap its own
(Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020: greedy by size).
"""

from __future__ import annotations

from collections.abc import Sequence

from voxelrt.plan.schedule import Kind, Variant

ALIGNMENT = 64


def lifetimes(variant: Variant) -> list[tuple[int, int]]:
    """The first and last step that touches each buffer; (0, -1) for one that nothing touches."""
    lives: list[tuple[int, int]] = [(len(variant.steps), -1)] * len(variant.buffers)
    for index, step in enumerate(variant.steps):
        for operand in step.operands:
            if operand.kind == Kind.ARENA:
                first, last = lives[operand.slot]
                lives[operand.slot] = (min(first, index), max(last, index))
    return [(0, -1) if last < 0 else (first, last) for first, last in lives]


def plan_arena(variant: Variant, *, share: bool = True) -> None:
    """Set ``variant.offsets`` and ``variant.arena_bytes``; with ``share=False`` no two buffers overlap."""
    lives = lifetimes(variant)
    sizes = [-(-size // ALIGNMENT) * ALIGNMENT for size in variant.buffers]
    variant.offsets, variant.arena_bytes = place_buffers(sizes, lives, share=share)


def place_buffers(
    sizes: Sequence[int], lives: Sequence[tuple[int, int]], *, share: bool = True
) -> tuple[list[int], int]:
    """Where buffers lie, and the bytes of all; lives are (first, last) step: what ends before it begins has none."""
    offsets = [0] * len(sizes)
    placed: list[int] = []
    end = 0
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        first, last = lives[index]
        if last < first:
            continue
        others = sorted(
            (offsets[k], offsets[k] + sizes[k])
            for k in placed
            if not share or (lives[k][0] <= last and first <= lives[k][1])
        )
        offset = 0
        for start, stop in others:
            if start - offset >= sizes[index]:
                break
            offset = max(offset, stop)
        offsets[index] = offset
        placed.append(index)
        end = max(end, offset + sizes[index])
    return offsets, end


def live_bytes(variant: Variant) -> int:
    """The most bytes that live at once: no arena can be smaller."""
    lives = lifetimes(variant)
    sizes = [-(-size // ALIGNMENT) * ALIGNMENT for size in variant.buffers]
    return max(
        (
            sum(size for size, (first, last) in zip(sizes, lives, strict=True) if first <= step <= last)
            for step in range(len(variant.steps))
        ),
        default=0,
    )
