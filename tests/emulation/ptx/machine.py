"""Blocks and warps: who runs when. Warps take turns at random; lanes that part meet again where the PTX lets them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.emulation.ptx.errors import BarrierError, OutOfBoundsError, PtxError
from tests.emulation.ptx.instructions import BARRIER, BRANCH, EXIT, Compiled, Kernel
from tests.emulation.ptx.memory import GlobalMemory, SharedMemory
from tests.emulation.ptx.registers import LANES

Vector = Any
_LOCAL_BASE = 0x2_0000_0000
_LONGEST_TURN = 40
_MOST_STEPS = 30_000_000


class Warp:
    """32 lanes. ``groups`` are the lanes by where they are: [place, mask], the lowest place goes first."""

    def __init__(self, block: Block, number: int, threads: int, kernel: Kernel) -> None:
        self.block, self.number = block, number
        self.registers = kernel.operands.fresh()
        linear = number * LANES + np.arange(LANES)
        self.live = linear < threads
        self.special = _special(block, linear)
        self.groups: list[tuple[int, Vector]] = [(0, self.live.copy())]
        self.waiting = False
        self.copies: list[list[tuple[Vector, Vector, Vector]]] = [[]]
        self.local = np.zeros((LANES, max(kernel.local_bytes, 1)), np.uint8)
        self.random = block.random

    def read(self, space: str, addresses: Vector, dtype: Any, mask: Vector | None) -> Vector:
        space, addresses = _resolve(space, addresses)
        if space in ("global", "const"):
            return self.block.memory.load(addresses, dtype, self.block.number)
        if space == "shared":
            return self.block.shared.load(addresses, dtype, self.number)
        lanes, places = self._local(addresses, dtype, mask)
        bytes_ = places[:, None] + np.arange(dtype.itemsize)
        return np.ascontiguousarray(self.local[lanes[:, None], bytes_]).view(dtype).ravel()

    def write(self, space: str, addresses: Vector, values: Vector, mask: Vector | None) -> None:
        space, addresses = _resolve(space, addresses)
        if space == "global":
            self.block.memory.store(addresses, values, self.block.number)
        elif space == "shared":
            self.block.shared.store(addresses, values, self.number)
        else:
            lanes, places = self._local(addresses, values.dtype, mask)
            bytes_ = places[:, None] + np.arange(values.dtype.itemsize)
            self.local[lanes[:, None], bytes_] = values.view(np.uint8).reshape(len(values), -1)

    def _local(self, addresses: Vector, dtype: Any, mask: Vector | None) -> tuple[Vector, Vector]:
        lanes = np.arange(LANES) if mask is None else np.flatnonzero(mask)
        if (addresses + np.uint64(dtype.itemsize) > self.local.shape[1]).any():
            raise OutOfBoundsError(f"local memory at byte {int(addresses.max())} of {self.local.shape[1]}")
        return lanes, addresses.astype(np.int64)

    def atomic(self, space: str, address: Any, dtype: Any) -> tuple[Any, int]:
        space, address = _resolve(space, np.asarray([address], np.uint64))
        memory = self.block.shared if space == "shared" else self.block.memory
        return memory.atomic(address[0], dtype)

    def begin_copy(self, targets: Vector, sources: Vector, taken: Vector, size: int) -> None:
        """4, 8 or 16 bytes a lane from global to shared memory, ``taken`` of them real, the others zero."""
        words = np.arange(0, size, 4, dtype=np.uint64)
        to, of = targets[:, None] + words, sources[:, None] + words
        _, index = self.block.shared.claim(to.ravel(), np.dtype(np.uint32), self.number)
        self.block.shared.pending[index] = 1
        self.copies[-1].append((to, of, words < taken[:, None]))

    def finish_copies(self, left: int, everything: bool) -> None:
        """Wait until at most ``left`` committed groups are on their way (all, and what is not committed)."""
        committed = len(self.copies) - 1
        count = len(self.copies) if everything else max(0, committed - left)
        for group in self.copies[:count]:
            for to, of, real in group:
                data = np.zeros(to.shape, np.uint32)
                data[real] = self.block.memory.load(of[real], data.dtype, self.block.number)
                offsets = (to.reshape(-1, 1).astype(np.int64) + np.arange(4)).ravel()
                self.block.shared.pending[offsets] = 0
                self.block.shared.store(to.ravel(), data.ravel(), self.number)
        self.copies = self.copies[count:] or [[]]


def _resolve(space: str, addresses: Vector) -> tuple[str, Vector]:
    """A generic address says itself which space it is of."""
    if space != "generic":
        return space, addresses
    first = int(addresses[0]) if len(addresses) else 0
    if first >= GlobalMemory.BASE:
        return "global", addresses
    if first >= _LOCAL_BASE:
        return "local", addresses - np.uint64(_LOCAL_BASE)
    return "shared", addresses - np.uint64(SharedMemory.BASE)


def _special(block: Block, linear: Vector) -> dict[str, Vector]:
    bx, by, _ = block.size
    values = {
        "%tid.x": linear % bx,
        "%tid.y": linear // bx % by,
        "%tid.z": linear // (bx * by),
        "%laneid": np.arange(LANES),
        "%warpid": linear // LANES,
    }
    for axis, letter in enumerate("xyz"):
        values[f"%ntid.{letter}"] = np.full(LANES, block.size[axis])
        values[f"%ctaid.{letter}"] = np.full(LANES, block.index[axis])
        values[f"%nctaid.{letter}"] = np.full(LANES, block.grid[axis])
    one = np.uint64(1) << np.arange(LANES, dtype=np.uint64)
    values |= {"%lanemask_eq": one, "%lanemask_lt": one - 1, "%lanemask_le": 2 * one - 1}
    values |= {"%lanemask_gt": 2**32 - 2 * one, "%lanemask_ge": 2**32 - one}
    return {name: value.astype(np.uint32) for name, value in values.items()}


class Block:
    """One block, run to its end."""

    def __init__(self, machine: Machine, index: tuple[int, int, int], number: int) -> None:
        self.memory, self.random = machine.memory, machine.random
        self.index, self.number = index, number
        self.grid, self.size = machine.grid, machine.block
        self.kernel = machine.kernel
        self.parameters, self.parameter_bytes = machine.parameters, machine.parameter_bytes
        self.shared = SharedMemory(machine.kernel.shared_bytes + machine.dynamic)
        threads = int(np.prod(self.size))
        self.warps = [Warp(self, w, threads, self.kernel) for w in range(-(-threads // LANES))]

    def run(self) -> None:
        steps = 0
        while running := [w for w in self.warps if w.live.any()]:
            ready = [w for w in running if not w.waiting]
            if not ready:
                if len(running) != len(self.warps):
                    raise BarrierError(f"{len(running)} of {len(self.warps)} warps reach a barrier; others have ended")
                self.shared.barrier()
                for warp in running:
                    warp.waiting = False
                continue
            warp = ready[int(self.random.integers(len(ready)))]
            steps += self.turn(warp, int(self.random.integers(1, _LONGEST_TURN)))
            if steps > _MOST_STEPS:
                raise BarrierError(f"{self.kernel.name} does not end")

    def turn(self, warp: Warp, steps: int) -> int:
        """Let a warp go on for some instructions, or until it waits or ends."""
        code = self.kernel.code
        for done in range(steps):
            if warp.waiting or not warp.groups:
                return done + 1
            place, mask = warp.groups[0]
            if place >= len(code):
                raise PtxError(f"{self.kernel.name} runs past its end")
            step = code[place]
            try:
                self.execute(warp, step, place, mask)
            except PtxError as error:
                if not error.args or "\n" in str(error):
                    raise
                lanes = f"block {self.index}, warp {warp.number}"
                raise type(error)(f"{error}\n{self.kernel.name}, {lanes}, {step.instruction}") from None
        return steps

    def execute(self, warp: Warp, step: Compiled, place: int, mask: Vector) -> None:
        active = mask
        if step.predicate is not None:
            active = mask & step.predicate(warp)
        if step.what == BRANCH:
            self.branch(warp, place, mask, active, step.target)
        elif step.what == EXIT:
            warp.live = warp.live & ~active
            self.move(warp, place + 1, mask & ~active)
        elif step.what == BARRIER:
            if len(warp.groups) > 1 or not np.array_equal(active, warp.live):
                raise BarrierError("a barrier is reached by a part of a warp")
            warp.waiting = True
            self.move(warp, place + 1, mask)
        else:
            full = active.all()
            if full or active.any():
                step.run(warp, None if full else active)
            self.move(warp, place + 1, mask)

    @staticmethod
    def move(warp: Warp, place: int, mask: Vector) -> None:
        """The first group goes to ``place``; it joins whoever is there, and the lowest goes first again."""
        if len(warp.groups) == 1:
            warp.groups = [(place, mask)] if mask.any() else []
            return
        Block.regroup(warp, [(place, mask), *warp.groups[1:]])

    @staticmethod
    def regroup(warp: Warp, groups: list[tuple[int, Vector]]) -> None:
        joined: dict[int, Vector] = {}
        for place, mask in groups:
            if mask.any():
                joined[place] = joined[place] | mask if place in joined else mask
        warp.groups = sorted(joined.items(), key=lambda item: item[0])

    def branch(self, warp: Warp, place: int, mask: Vector, taken: Vector, target: int) -> None:
        self.regroup(warp, [(target, taken), (place + 1, mask & ~taken), *warp.groups[1:]])


class Machine:
    """Launches one kernel: all blocks, in random order."""

    def __init__(self, kernel: Kernel, memory: GlobalMemory, seed: int) -> None:
        self.kernel, self.memory = kernel, memory
        self.random = np.random.default_rng(seed)

    def launch(self, grid: Any, block: Any, dynamic: int, arguments: list[bytes], only: int | None = None) -> None:
        """Run a grid, or one block of it; ``arguments`` are the bytes of each parameter in order.

        Raises
        ------
        PtxError : see ``errors``.
        """
        parameters = self.kernel.function.parameters
        if len(arguments) != len(parameters):
            raise PtxError(f"{self.kernel.name} takes {len(parameters)} arguments and was given {len(arguments)}")
        self.grid, self.block, self.dynamic = tuple(grid), tuple(block), dynamic
        self.parameters = {name: offset for name, (_, offset) in parameters.items()}
        raw = np.zeros(max(self.parameters.values(), default=0) + 16, np.uint8)
        for (_, offset), value in zip(parameters.values(), arguments, strict=True):
            raw[offset : offset + len(value)] = np.frombuffer(value, np.uint8)
        self.parameter_bytes = raw
        self.memory.begin_launch()
        with np.errstate(all="ignore"):
            for number in [only] if only is not None else self.random.permutation(int(np.prod(self.grid))):
                x, y, z = number % grid[0], number // grid[0] % grid[1], number // (grid[0] * grid[1])
                block_ = Block(self, (int(x), int(y), int(z)), int(number))
                block_.run()
