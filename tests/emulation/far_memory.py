"""Memory of volumes past 2³¹ elements, of which only the end is there: for one block of a launch on such a volume.

A buffer of the small volume stands for one of a large volume: each of its parts (components, channels; whatever lies
one behind the other) lacks its first elements, or its last. The large buffer's addresses lie apart from all others,
so an index that wraps at 32 bits, or leaves the part's end, falls outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.emulation.ptx.machine import Machine
from tests.emulation.ptx.memory import GlobalMemory, Vector
from tests.emulation.ptx_runner import _bytes, _defined, _kernel, code_of
from tests.emulation.shim_runner import start_bytes
from voxelrt.kernels.common.gpu.program import Buffer, Launch, Program, Tensor

TARGET = 80
_FAR, _ROOM = 1 << 48, 1 << 42  # above the small volumes, so that generic addresses are global


@dataclass(frozen=True)
class Far:
    """How a buffer of the large volume lies: so many parts, of each so many elements missing, the first or the last."""

    parts: int
    missing: int
    first: bool = True


class FarMemory(GlobalMemory):
    """A program's buffers, some of them at the ends of large ones."""

    def __init__(self, buffers: list[Buffer], far: Mapping[int, Far]) -> None:
        super().__init__([(start_bytes(b), _defined(b)) for b in buffers])
        self._windows: list[tuple[int, int, int]] = []  # far, near, bytes
        self._base: dict[int, int] = {}
        for index, lies in far.items():
            item, base = np.dtype(buffers[index].dtype).itemsize, _FAR + index * _ROOM
            size, gap = self.sizes[index] // lies.parts, lies.missing * item
            self._base[index] = base if lies.first else base + gap
            for part in range(lies.parts):
                self._windows.append((base + gap + part * (size + gap), super().address(index) + part * size, size))

    def far_address(self, buffer: int) -> int:
        """Where the large buffer begins; the small one's address where there is none."""
        return self._base.get(buffer, self.address(buffer))

    def _places(self, addresses: Vector, dtype: Any, what: str) -> Vector:
        moved = addresses.copy()
        for far, near, size in self._windows:
            inside = (addresses >= np.uint64(far)) & (addresses < np.uint64(far + size))
            moved[inside] = addresses[inside] - np.uint64(far) + np.uint64(near)
        return super()._places(moved, dtype, what)


def same_at_the_end(
    made: Program,
    index: int,
    far: Mapping[int, Far],
    numbers: Mapping[int, int],
    grid: int,
    mutate: Any = lambda text: text,
) -> int:
    """Run a launch's last block on the small volume and on the large one: what both write is the same.

    Parameters
    ----------
    made, index : the program on the small volume, and which of its launches; those before it are run whole.
    far : id of a buffer -> how it lies.
    numbers : the launch's whole numbers -> those for the large volume.
    grid : the large volume's blocks along x.

    Returns
    -------
    How many elements were written there.
    """
    place = {id(buffer): number for number, buffer in enumerate(made.buffers)}
    memory = FarMemory(made.buffers, {place[buffer]: lies for buffer, lies in far.items()})
    for launch in made.launches[:index]:
        _launch(memory, made, launch, [_bytes(memory, place, value) for value in launch.arguments], None)
    launch, kept = made.launches[index], (memory.bytes.copy(), memory.state.copy())
    near = [_bytes(memory, place, value) for value in launch.arguments]
    for block in range(launch.grid[0])[-2:]:  # the large volume's last block may begin in between
        _launch(memory, made, launch, near, block)
    wanted = memory.bytes.copy()
    memory.bytes[:], memory.state[:] = kept

    def large(value: Any) -> bytes:
        if isinstance(value, Tensor):
            address = memory.far_address(place[id(value.buffer)]) + value.offset * value.dtype.itemsize
            return np.uint64(address).tobytes()
        whole = value.dtype.kind in "iu"
        return bytes(type(value)(numbers.get(int(value), int(value)) if whole else value).tobytes())

    whole = replace(launch, grid=(grid, *launch.grid[1:]))
    _launch(memory, made, whole, list(map(large, launch.arguments)), grid - 1, launch, mutate)
    changed = memory.bytes != kept[0]
    assert changed.any()
    np.testing.assert_array_equal(memory.bytes[changed], wanted[changed])
    return int((memory.writer >= 0).sum())


def _launch(
    memory: FarMemory,
    made: Program,
    launch: Launch,
    arguments: list[bytes],
    only: int | None,
    compiled: Launch | None = None,
    mutate: Any = lambda text: text,
) -> None:
    """``compiled`` : the launch whose code is taken; that of a small volume assumes no more of the numbers."""
    ptx, name, dynamic = code_of(made, compiled or launch, TARGET)
    extra = [bytes(8)] * (0 if isinstance(launch.kernel, str) else 2)
    kernel = _kernel(mutate(ptx), name)
    Machine(kernel, memory, 1).launch(launch.grid, launch.block, dynamic, arguments + extra, only)
