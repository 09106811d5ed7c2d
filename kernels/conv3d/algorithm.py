"""How a convolution is best computed: the algorithms that can, the cheapest first, by a model of their cost.

The model counts core cycles: two vector multiplications a cycle, and what the caches and the memory deliver. It knows
the shape alone, so that a plan does not depend on the machine that compiled it; tuning times the first few instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from voxelrt.kernels.common.native import BLOCK

Size = tuple[int, int, int]
DIRECT, PRIVATE, SHARED = 0, 1, 2  # ConvParams.algorithm

# Of an axis: (taps, stride, outputs of a tile) -> points, and inputs of a tile.
_AXES = {(1, 1, 1): (1, 1), (3, 1, 2): (4, 4), (3, 1, 4): (6, 6), (3, 2, 2): (5, 5), (3, 2, 4): (9, 9)}
_TILES = {
    ((3, 3, 3), (1, 1, 1)): ((4, 4, 4), (2, 4, 4), (2, 2, 2)),
    ((1, 3, 3), (1, 1, 1)): ((1, 4, 4), (1, 2, 2)),
    ((3, 1, 1), (1, 1, 1)): ((4, 1, 1), (2, 1, 1)),
    ((3, 3, 3), (2, 2, 2)): ((2, 4, 4), (2, 2, 2)),
    ((3, 3, 3), (1, 2, 2)): ((4, 4, 4), (2, 2, 2)),
    ((1, 3, 3), (1, 2, 2)): ((1, 4, 4), (1, 2, 2)),
}
_CACHE_BYTES = 1 << 20  # of a core's second cache, for a block of tiles
_SHARED_BYTES = (12 << 20, 24 << 20, 48 << 20)  # for a block that all threads share; the last may leave the caches
_NEAR, _FAR = 8.0, 5.0  # bytes a cycle from the shared cache and from memory
_ROW = 200.0  # cycles until a row of the source that a block starts to read flows
_FEWEST_TILES, _MOST_TILES = 6, 32
_THREADS = 2  # that private blocks should occupy at least


@dataclass(frozen=True)
class Problem:
    """A convolution of blocked volumes: ``channels`` counts packed input channels, ``size`` output positions."""

    batch: int
    channels: int
    outputs: int
    size: Size
    kernel: Size
    stride: Size
    dilation: Size = (1, 1, 1)
    groups: int = 1
    stored: str = "fp32"  # or bf16: how volumes are; direct sums are then of products of bfloat16


@dataclass(frozen=True)
class Algorithm:
    """A way to compute a convolution.

    Parameters
    ----------
    kernel : ``conv3d.direct``, ``conv3d.winograd`` or ``conv3d.bf16``.
    params : the kernel's parameters that say how: ``algorithm``, and for Winograd ``tile`` and ``block``.
    cycles : of one core, estimated.
    weight_bytes : of the packed weights.
    """

    kernel: str
    params: dict[str, Any]
    cycles: float
    weight_bytes: int

    @property
    def packing(self) -> dict[str, Any]:
        """The parameters that packed weights depend on; blocks of tiles share theirs."""
        return {**self.params, "algorithm": PRIVATE, "block": (1, 1, 1)} if "tile" in self.params else self.params

    def __str__(self) -> str:
        if "tile" not in self.params:
            return "direct bf16" if self.kernel == "conv3d.bf16" else "direct"
        tile = ",".join(map(str, self.params["tile"]))
        shared = " shared" if self.params["algorithm"] == SHARED else ""
        return f"Winograd F({tile}){shared}"


def algorithms(p: Problem) -> list[Algorithm]:
    """All algorithms for a problem, the cheapest first; a direct one is among them."""
    found = [_dots(p) if p.stored == "bf16" and p.groups == 1 else _direct(p)]
    if p.groups == 1 and p.dilation == (1, 1, 1) and min(p.channels, p.outputs, *p.size) > 0:
        for tile in _TILES.get((p.kernel, p.stride), ()):
            found += [*_private(p, tile), *_shared(p, tile)]
    return sorted(found, key=lambda a: a.cycles)


def neighbours(a: Algorithm, p: Problem) -> list[Algorithm]:
    """The same with other blocks of tiles, which the model finds no better."""
    if a.params["algorithm"] != PRIVATE:
        return []
    t, (z, y, x) = _tiles(p, a.params["tile"]), a.params["block"]
    others = {
        (1, y, x),
        (1, y, max(1, x // 2)),
        (1, min(2 * y, t.grid[1]), x),
        (1, 1, x),
        (z, y, min(2 * x, t.grid[2])),
    }
    return [_algorithm(PRIVATE, a.params["tile"], box, a.cycles, t) for box in sorted(others - {(z, y, x)})]


def _direct(p: Problem) -> Algorithm:
    taps = math.prod(p.kernel) * p.channels // p.groups
    products = p.batch * math.prod(p.size) * taps * _blocks(p.outputs)
    efficiency = 0.72 if p.stride == (1, 1, 1) else 0.62
    return Algorithm("conv3d.direct", {"algorithm": DIRECT}, products / 2 / efficiency, taps * p.outputs * 4)


def _dots(p: Problem) -> Algorithm:
    """bfloat16: two products a lane."""
    direct = _direct(p)
    return Algorithm("conv3d.bf16", {"algorithm": DIRECT, "precision": 1}, direct.cycles / 2, direct.weight_bytes // 2)


def _blocks(channels: int) -> int:
    return -(-channels // BLOCK)


@dataclass(frozen=True)
class _Tiles:
    """What does not depend on how tiles are blocked."""

    grid: Size
    count: int  # of all items
    points: int
    inputs: int
    weight_bytes: int
    products: float  # cycles of the matrix products
    transforms: float  # cycles of the transforms, data in the nearest cache


def _tiles(p: Problem, tile: Size) -> _Tiles:
    axes = [_AXES[k, s, m] for k, s, m in zip(p.kernel, p.stride, tile, strict=True)]
    grid = tuple(-(-n // m) for n, m in zip(p.size, tile, strict=True))
    points, inputs = math.prod(a[0] for a in axes), math.prod(a[1] for a in axes)
    count = p.batch * math.prod(grid)
    blocks_in, blocks_out = _blocks(p.channels), _blocks(p.outputs)
    return _Tiles(
        (grid[0], grid[1], grid[2]),
        count,
        points,
        inputs,
        points * p.channels * blocks_out * BLOCK * 4,
        count * points * p.channels * blocks_out / 2 / 0.8,
        count * points * (8 * blocks_in + 4 * blocks_out) * (1.4 if any(a[0] == 9 for a in axes) else 1.0),
    )


def _source_cycles(p: Problem, tile: Size, box: Size) -> float:
    """Reading the source with the borders that neighbouring blocks share, and writing the result."""
    out = [b * m for b, m in zip(box, tile, strict=True)]
    read = [m * s + k - s for m, s, k in zip(out, p.stride, p.kernel, strict=True)]
    positions = p.batch * math.prod(p.size) * BLOCK * 4
    once = math.prod(p.stride)  # the rest of what is read lies in a cache since a neighbour has read it
    far = positions * (once * _blocks(p.channels) + _blocks(p.outputs)) / _FAR
    again = positions * (math.prod(read) / math.prod(out) - once) * _blocks(p.channels) / _NEAR
    rows = p.batch * math.prod(p.size) / math.prod(out) * read[0] * read[1] * _blocks(p.channels)
    return far + again + rows * _ROW


def _boxes(grid: Size, most: int) -> Iterator[Size]:
    for z, y in itertools.product((1, 2, 4), (1, 2, 3, 4)):
        for x in range(1, 17):
            if z * y * x <= most and z <= grid[0] and y <= grid[1] and x <= grid[2]:
                yield z, y, x


def _algorithm(kind: int, tile: Size, box: Size, cycles: float, tiles: _Tiles) -> Algorithm:
    params = {"algorithm": kind, "tile": tile, "block": box}
    return Algorithm("conv3d.winograd", params, cycles, tiles.weight_bytes)


def _private(p: Problem, tile: Size) -> list[Algorithm]:
    """A block of tiles to a thread; every block reads all weights. Larger blocks read them less often, smaller ones
    stay in the second cache: the best of each.
    """
    t = _tiles(p, tile)
    slot = max(_blocks(p.channels), _blocks(p.outputs)) * BLOCK * 4
    stay = t.weight_bytes < 0.7 * _CACHE_BYTES  # in the cache beside the tiles; others pass through it
    room = _CACHE_BYTES - (t.weight_bytes if stay else 0.3 * _CACHE_BYTES)
    near = int(max(_FEWEST_TILES, min(_MOST_TILES, room // ((t.points + 1) * slot))))

    def cycles(box: Size) -> float:
        size = math.prod(box)
        runs = -(-size // 14) * 14 / size  # rows of the register tile that hold nothing
        rate = 40.0 if stay and size <= near else _NEAR if t.weight_bytes < _SHARED_BYTES[0] else _FAR
        weights = t.count / size * t.weight_bytes / rate
        products = t.products * (0.95 + 0.05 * runs)
        blocks = p.batch * math.prod(-(-g // b) for g, b in zip(t.grid, box, strict=True))
        idle = -(-blocks // _THREADS) * _THREADS / blocks
        worked = max(products, weights) + 0.5 * min(products, weights) + t.transforms
        return idle * (worked + _source_cycles(p, tile, box))

    boxes = list(_boxes(t.grid, _MOST_TILES))
    kinds = [b for b in boxes if math.prod(b) <= near], [b for b in boxes if math.prod(b) > near]
    best = [min(kind, key=cycles) for kind in kinds if kind]
    return [_algorithm(PRIVATE, tile, box, cycles(box), t) for box in best]


def _shared(p: Problem, tile: Size) -> list[Algorithm]:
    """Large blocks that all threads take through each phase: weights are read once a block, tiles lie far away."""
    t = _tiles(p, tile)
    each = t.points * (_blocks(p.channels) + _blocks(p.outputs)) * BLOCK * 4
    found: dict[Size, Algorithm] = {}
    for limit in _SHARED_BYTES:
        box = _shared_box(t.grid, max(8, limit // each))
        blocks = math.prod(-(-g // b) for g, b in zip(t.grid, box, strict=True)) * p.batch
        # What one phase leaves the next reads, as a rule, from memory: others use the last cache too.
        moved = (2 * t.count * each + blocks * t.weight_bytes) / _FAR
        cycles = t.products + moved + t.transforms + _source_cycles(p, tile, box)
        found.setdefault(box, _algorithm(SHARED, tile, box, cycles, t))
    return list(found.values())


def _shared_box(grid: Size, most: int) -> Size:
    """The largest box of so many tiles, halved along its longest axes."""
    box = list(grid)
    while math.prod(box) > most:
        axis = max(range(3), key=lambda a: (box[a], -a))
        box[axis] = -(-box[axis] // 2)
    return box[0], box[1], box[2]
