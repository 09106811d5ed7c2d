"""The work of windows on a GPU: our kernels gather, sum and decide on the device, the plan's steps are the network.

A study's sums are a slab of planes on the device, one deeper than a window; where the device has no room for it they
are in pinned memory of the host, which the same kernels reach. Windows add to them where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from voxelrt.kernels.common.gpu.program import Buffer as Memory
from voxelrt.kernels.common.gpu.program import Program, Tensor
from voxelrt.kernels.copy import cuda as copy_cuda
from voxelrt.kernels.resample_argmax import cuda as argmax_cuda
from voxelrt.kernels.stitch import slab as slab_cuda
from voxelrt.plan.gpu_codes import Code
from voxelrt.runtime.cuda_device import CudaBuffer, CudaDevice, buffer_of, handle_of
from voxelrt.runtime.device import Buffer, Stream
from voxelrt.runtime.gpu_driver import Kernel, pointer
from voxelrt.runtime.window_job import Decision, Job, Sums, Window
from voxelrt.tiling.stitcher import planes_of

Network = Callable[[CudaBuffer, CudaBuffer, Stream], None]
Dims = Sequence[int]


@dataclass(eq=False)
class CudaSums:
    """A study's slab: sums (planes, C, Y, X), counts (planes, Y, X), weights (Z, Y, X), and tables for the labels."""

    sums: CudaBuffer
    counts: CudaBuffer
    weights: CudaBuffer
    tables: dict[str, CudaBuffer]
    planes: int

    @property
    def buffers(self) -> list[CudaBuffer]:
        return [self.sums, self.counts, self.weights, *self.tables.values()]


class CudaWindows:
    """See ``WindowKernels``.

    Parameters
    ----------
    device : the GPU.
    codes : by the op's name, see ``plan/gpu_codes.window_codes``.
    use_ptx : whether the driver compiles their PTX.
    network : puts a run on rows in a stream.
    host_slab : keep sums in the host's memory.
    """

    def __init__(
        self, device: CudaDevice, codes: dict[str, Code], use_ptx: bool, network: Network, *, host_slab: bool = False
    ) -> None:
        self._device, self._driver = device, device.driver
        self._empty = device.empty_mapped if host_slab else device.empty
        self._codes, self._use_ptx, self._network = codes, use_ptx, network
        self._kernels: dict[str, Kernel] = {}
        self._setup = device.stream("set-up of sums")

    # ---- WindowKernels ----

    def sums(self, job: Job) -> CudaSums:
        device, setup = self._device, self._setup
        depth, size = job.weights.shape[0], job.data.shape[1:]
        planes = planes_of(depth, size[0])
        how = job.decision
        made: list[CudaBuffer] = []
        try:
            for shape in ((planes, job.channels, *size[1:]), (planes, *size[1:])):
                made.append(self._empty(shape, np.float32))
                self._driver.clear(handle_of(setup), made[-1].address, made[-1].nbytes)
            arrays = {
                "weights": np.ascontiguousarray(job.weights, np.float32),
                "rows_at": np.ascontiguousarray(how.rows.at, np.int32),
                "row_weights": np.ascontiguousarray(how.rows.weights, np.float32),
                "columns_at": np.ascontiguousarray(how.columns.at, np.int32),
                "column_weights": np.ascontiguousarray(how.columns.weights, np.float32),
                "values": np.ascontiguousarray(how.values, np.int32),
            }
            for array in arrays.values():
                made.append(device.upload(setup, array))
        except MemoryError:
            self._finish_setup()
            for buffer in made:
                device.release(buffer)
            raise
        self._finish_setup()
        sums, counts, weights, *tables = made
        return CudaSums(sums, counts, weights, dict(zip(list(arrays)[1:], tables, strict=True)), planes)

    def _finish_setup(self) -> None:
        """The host waits: sums are made once a study, and no stream of the scheduler's need wait for them then."""
        ready = self._device.event()
        self._device.record(self._setup, ready)
        self._device.synchronize(ready)

    def gather(self, data: Buffer, window: Window, into: Buffer, stream: Stream) -> None:
        source, target = buffer_of(data), buffer_of(into)
        space = target.shape[2:] if len(target.shape) == 5 else (1, *target.shape[2:])
        channels, strides = source.shape[0], _strides(source.shape)
        shape = (channels, *space)
        whole = _Tensors(copy_cuda.__file__)
        offset, steps = _mirrored(window.start, space, strides[1:], window.mirrored)
        # Bits are copied, not numbers.
        given = whole.tensor(source, shape, (strides[0], *steps), offset, np.uint32)
        copy_cuda.launch(whole.program, whole.tensor(target, shape, _strides(shape), 0, np.uint32), given)
        self._launch(whole, "copy", stream)

    def network(self, inputs: Buffer, outputs: Buffer, stream: Stream) -> None:
        self._network(buffer_of(inputs), buffer_of(outputs), stream)

    def accumulate(self, logits: Buffer, window: Window, sums: Sums, stream: Stream) -> None:
        slab, row = _sums(sums), buffer_of(logits)
        channels = row.shape[1]
        space = row.shape[2:] if len(row.shape) == 5 else (1, *row.shape[2:])
        strides, places = _strides((channels, *space)), _strides(slab.sums.shape)
        flat, weights = _strides(slab.counts.shape), _strides(slab.weights.shape)
        z, y, x = window.start
        first = 0
        while first < space[0]:  # once, or twice where the slab's end lies in the window
            slot = (z + first) % slab.planes
            count = min(space[0] - first, slab.planes - slot)
            size = (count, *space[1:])
            whole = _Tensors(slab_cuda.__file__)
            ahead, steps = _mirrored((0, 0, 0), space, strides[1:], window.mirrored)
            given = whole.tensor(row, (channels, *size), (strides[0], *steps), ahead + first * steps[0])
            shares = whole.tensor(slab.weights, size, weights, first * weights[0])
            there = whole.tensor(
                slab.sums, (count, channels, *size[1:]), places, slot * places[0] + y * places[2] + x * places[3]
            )
            counts = whole.tensor(slab.counts, size, flat, slot * flat[0] + y * flat[1] + x)
            slab_cuda.launch(whole.program, there, counts, given, shares, window.share)
            self._launch(whole, "stitch", stream)
            first += count

    def keep(self, logits: Buffer, into: Buffer, stream: Stream) -> None:
        source, target = buffer_of(logits), buffer_of(into)
        self._driver.copy(handle_of(stream), target.address, source.address, source.nbytes)

    def decide(self, sums: Sums, job: Job, z: int, into: Buffer, stream: Stream) -> None:
        slab, how, target = _sums(sums), job.decision, buffer_of(into)
        low, high, weight = how.reads(z)
        whole = _Tensors(argmax_cuda.__file__)
        planes = [self._plane(whole, slab, how, plane) for plane in (low, high)]
        kinds = {"rows_at": np.int32, "columns_at": np.int32, "values": np.int32}
        tables = argmax_cuda.Tables(
            **{
                name: whole.tensor(buffer, buffer.shape, _strides(buffer.shape), 0, kinds.get(name, np.float32))
                for name, buffer in slab.tables.items()
            }
        )
        out = whole.tensor(target, target.shape[1:], _strides(target.shape[1:]), 0, target.dtype)
        argmax_cuda.launch(whole.program, out, planes[0], planes[1], weight, tables, regions=how.regions)
        self._launch(whole, "resample_argmax", stream)

    def clear(self, sums: Sums, plane: int, stream: Stream) -> None:
        slab = _sums(sums)
        for buffer in (slab.sums, slab.counts):
            row = buffer.rows(plane % slab.planes, 1)
            self._driver.clear(handle_of(stream), row.address, row.nbytes)

    def drop(self, sums: Sums) -> None:
        for buffer in _sums(sums).buffers:
            self._device.release(buffer)

    # ---- launches ----

    @staticmethod
    def _plane(whole: _Tensors, slab: CudaSums, how: Decision, plane: int) -> tuple[Tensor, Tensor]:
        """The part of a plane's sums and counts that the labels are read from."""
        slot, (_, rows, columns) = plane % slab.planes, how.inside
        places, flat = _strides(slab.sums.shape), _strides(slab.counts.shape)
        size = (rows.stop - rows.start, columns.stop - columns.start)
        ahead = rows.start * places[2] + columns.start
        return (
            whole.tensor(slab.sums, (slab.sums.shape[1], *size), places[1:], slot * places[0] + ahead),
            whole.tensor(slab.counts, size, flat[1:], slot * flat[0] + ahead),
        )

    def _launch(self, whole: _Tensors, op: str, stream: Stream) -> None:
        for launch in whole.program.launches:
            kernel = self._kernels.get(launch.name)
            if kernel is None:
                kernel = self._driver.load(self._codes[op], self._use_ptx, launch.name)
                self._kernels[launch.name] = kernel
            arguments = [
                pointer(whole.address(a) + a.offset * a.dtype.itemsize) if isinstance(a, Tensor) else a.tobytes()
                for a in launch.arguments
            ]
            self._driver.launch(handle_of(stream), kernel, launch.grid, launch.block, launch.shared, arguments)


class _Tensors:
    """A program on memory of the device: tensors whose buffers are known by their address."""

    def __init__(self, source: str) -> None:
        self.program = Program(source)
        self._addresses: dict[int, int] = {}

    def tensor(self, buffer: CudaBuffer, shape: Dims, strides: Dims, offset: int, dtype: object = np.float32) -> Tensor:
        kind = np.dtype(dtype)  # type: ignore[call-overload]
        memory = Memory(kind, buffer.nbytes // kind.itemsize)
        self.program.buffers.append(memory)  # so that its identity lasts
        self._addresses[id(memory)] = buffer.address
        return Tensor(memory, offset, tuple(shape), tuple(strides))

    def address(self, tensor: Tensor) -> int:
        return self._addresses[id(tensor.buffer)]


def _strides(shape: Dims) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape)))


def _mirrored(start: Dims, size: Dims, strides: Dims, axes: Dims) -> tuple[int, tuple[int, ...]]:
    """Where a box begins and its strides, read backwards along some axes."""
    offset, steps = 0, []
    for axis, (at, count, stride) in enumerate(zip(start, size, strides, strict=True)):
        back = axis in axes
        offset += (at + (count - 1 if back else 0)) * stride
        steps.append(-stride if back else stride)
    return offset, tuple(steps)


def _sums(sums: Sums) -> CudaSums:
    if not isinstance(sums, CudaSums):
        raise TypeError(f"a {type(sums).__name__} is no sums of a GPU")
    return sums
