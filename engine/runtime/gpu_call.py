"""A network on a GPU for arrays, of the host or of the GPU itself: in, through, out. One run at a time.

Arrays of the host go up and come down through pinned memory, and a run ends when they have come. Arrays that lie on
the GPU are copied there, once the streams that write them are through (``plan/dlpack.py``); then outputs stay there as
well, and a run ends when all of it has been launched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import DeviceError, ShapeError, UsageError
from voxelrt.plan.arrays import check_names, host_array, library_of
from voxelrt.plan.dlpack import ANY_GPU, Borrowed, borrow, gpu_of
from voxelrt.plan.gpu_steps import DTYPES
from voxelrt.runtime.gpu_driver import Driver, Handle
from voxelrt.runtime.gpu_network import Compiled, GpuNetwork, load_engines
from voxelrt.runtime.gpu_outputs import GpuOutputs

Array = NDArray[Any]
Given = Array | Borrowed


class GpuCall:
    """See the module.

    Parameters
    ----------
    driver : of the GPU.
    compiled : what a plan holds for it.
    batch : items in one run at most; default the plan's most.

    Raises
    ------
    EngineError, DeviceError : it could not be loaded. DeviceMemoryError : the GPU has too little memory.
    """

    def __init__(self, driver: Driver, compiled: Compiled, batch: int | None = None) -> None:
        self.driver, self.part = driver, compiled.part
        self._network = GpuNetwork(driver, compiled, batch or self.part.batches[1], load_engines(driver, compiled))
        self._stream, self._done, self._raised = driver.stream(), driver.event(), driver.event()
        names = (*self.part.profiles, *self.part.outputs)
        sizes = {name: self.part.values[name].bytes_at(self._network.batch) for name in names}
        self._device = {name: driver.allocate(max(size, 1)) for name, size in sizes.items()}
        self._pinned = {name: driver.allocate_host(max(size, 1)) for name, size in sizes.items()}
        self._outputs = GpuOutputs(driver, self._stream)
        self._held: list[tuple[Handle, list[Borrowed]]] = []  # arrays that a copy may still read, and its event
        self._spare: list[Handle] = []

    def close(self) -> None:
        """Give the device's memory back, when what was launched is through; outputs stay for who has them."""
        self._settle()
        for address in self._device.values():
            self.driver.free(address)
        self._device = {}
        self._outputs.close()
        self._network.close()

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run the network: name -> array, of the library of the inputs.

        Parameters
        ----------
        inputs : name -> array of the plan's dtype and a shape in its range, of the host (NumPy, or DLPack) or of the
            GPU (DLPack or the CUDA array interface).
        out : name -> array to write into, of the host or of the GPU; written when this returns.

        Returns
        -------
        Where an input lies on the GPU, outputs do: as arrays of its library, or ``DeviceArray``.

        Raises
        ------
        UsageError : unknown or missing names, an array of another GPU or one that its library does not give.
        ShapeError : shapes, dtypes or strides that the plan does not take.
        DeviceError, EngineError : the GPU failed.
        """
        self._collect()
        library = next((found for found in map(_library, inputs.values()) if found is not None), None)
        given: dict[str, Given] = {}
        into: dict[str, Given] = {}
        try:
            check_names(inputs, list(self.part.profiles))
            for name, array in inputs.items():
                given[name] = self._taken(f"the input {name}", array)
            batch = self._batch_of(given)
            for name, array in (out or {}).items():
                into[name] = self._checked_out(name, array, batch)
            return self._run(given, batch, library) if out is None else self._fill(given, into, batch, out)
        except BaseException:
            self._settle()
            _release([*given.values(), *into.values()])
            raise

    # ---- what is given ----

    def _taken(self, what: str, array: Any) -> Given:
        gpu = gpu_of(array)
        if gpu is None:
            return host_array(array)[0]
        if gpu not in (ANY_GPU, self.driver.index):
            raise UsageError(f"{what} lies on GPU {gpu}, and the plan runs on GPU {self.driver.index}")
        try:
            taken = borrow(array, self.driver.number(self._stream), self.driver.index)
        except UsageError as error:
            raise UsageError(f"{what}: {error}") from error
        if not taken.contiguous:
            taken.release()
            raise ShapeError(
                f"{what} has the strides {taken.strides} for {taken.shape}; on a GPU the plan takes arrays in C order "
                "without gaps: make it contiguous first"
            )
        return taken

    def _batch_of(self, given: Mapping[str, Given]) -> int:
        """The batch that the inputs make; their shapes and dtypes are checked."""
        part, batches = self.part, set()
        for name, (least, _, most) in part.profiles.items():
            array, value = given[name], part.values[name]
            inside = len(array.shape) == len(least) and all(
                a <= d <= b for a, d, b in zip(least, array.shape, most, strict=True)
            )
            if not inside or array.dtype != DTYPES[value.dtype]:
                span = f"{least}" if least == most else f"{least} to {most}"
                raise ShapeError(
                    f"the input {name} is {array.dtype} {array.shape}; the plan takes {value.dtype} {span}"
                )
            if value.batched:
                batches.add(array.shape[0] // value.dims[0])
        if len(batches) > 1:
            raise ShapeError(f"the inputs have different batches: {sorted(batches)}")
        return batches.pop() if batches else 1

    def _checked_out(self, name: str, array: Any, batch: int) -> Given:
        into = self._taken(f"out {name}", array)
        value = self.part.values.get(name) if name in self.part.outputs else None
        if value is None or into.shape != value.dims_at(batch) or into.dtype != DTYPES[value.dtype]:
            _release([into])
            raise ShapeError(f"out {name!r} is {into.dtype} {into.shape}; no output of the plan fits it")
        if into.read_only if isinstance(into, Borrowed) else not into.flags.writeable:
            _release([into])
            raise UsageError(f"the array for {name} in out is read-only")
        return into

    # ---- runs ----

    def _put(self, given: Mapping[str, Given], batch: int) -> None:
        """Put the inputs' copies and the network in the stream."""
        driver, stream = self.driver, self._stream
        for array in given.values():
            self._await(array)
        hosts = {name: array for name, array in given.items() if not isinstance(array, Borrowed) and array.nbytes}
        if hosts:
            driver.synchronize(self._raised)  # or the last run's copies would read this one's inputs
        for name, array in hosts.items():
            staged = self._pinned[name][: array.nbytes]
            staged[:] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
            driver.upload(stream, self._device[name], staged)
        if hosts:
            driver.record(self._raised, stream)
        for name, array in given.items():
            if isinstance(array, Borrowed) and array.nbytes:
                driver.copy(stream, self._device[name], array.address, array.nbytes)
        self._hold(array for array in given.values() if isinstance(array, Borrowed))
        self._network.run(stream, self._device, batch)

    def _await(self, array: Given) -> None:
        """Wait on the device for a stream that an array says is still writing it."""
        if isinstance(array, Borrowed) and array.awaits is not None:
            event = self._spare.pop() if self._spare else self.driver.event()
            self.driver.record(event, self.driver.foreign(array.awaits))
            self.driver.wait(self._stream, event)
            self._spare.append(event)

    def _hold(self, arrays: Iterable[Borrowed]) -> None:
        """Keep arrays until what the stream was given so far is through."""
        if held := list(arrays):
            event = self._spare.pop() if self._spare else self.driver.event()
            self.driver.record(event, self._stream)
            self._held.append((event, held))

    def _run(self, given: Mapping[str, Given], batch: int, library: Any) -> dict[str, Any]:
        self._put(given, batch)
        values = {name: self.part.values[name] for name in self.part.outputs}
        if any(isinstance(array, Borrowed) for array in given.values()):
            kept = {name: self._outputs.give(self._device[name], value, batch) for name, value in values.items()}
            return kept if library is None else {name: library.from_dlpack(array) for name, array in kept.items()}
        arrays = {name: np.empty(value.dims_at(batch), DTYPES[value.dtype]) for name, value in values.items()}
        self._down(arrays)
        return arrays if library is None else {name: library.from_dlpack(array) for name, array in arrays.items()}

    def _fill(
        self, given: Mapping[str, Given], into: Mapping[str, Given], batch: int, out: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Run, and write into given arrays; the host waits, for nobody says who will read them."""
        self._put(given, batch)
        for name, array in into.items():
            self._await(array)
            if isinstance(array, Borrowed) and array.nbytes:
                self.driver.copy(self._stream, array.address, self._device[name], array.nbytes)
        self._down({name: array for name, array in into.items() if not isinstance(array, Borrowed)})
        _release(into.values())
        return dict(out)

    def _down(self, arrays: Mapping[str, Array]) -> None:
        """Bring outputs into arrays of the host, and wait for all."""
        driver = self.driver
        for name, array in arrays.items():
            if array.nbytes:
                driver.download(self._stream, self._pinned[name][: array.nbytes], self._device[name])
        driver.record(self._done, self._stream)
        driver.synchronize(self._done)
        for name, array in arrays.items():
            array[...] = self._pinned[name][: array.nbytes].view(array.dtype).reshape(array.shape)
        self._collect()

    def _collect(self) -> None:
        """Let go of arrays whose copies are through."""
        left = []
        for event, held in self._held:
            if self.driver.finished(event):
                _release(held)
                self._spare.append(event)
            else:
                left.append((event, held))
        self._held = left

    def _settle(self) -> None:
        """Wait for what the stream was given, and let go of all arrays."""
        with suppress(DeviceError):  # a lost GPU does nothing more
            self.driver.record(self._done, self._stream)
            self.driver.synchronize(self._done)
        for _, held in self._held:
            _release(held)
        self._held = []


def _library(given: Any) -> Any:
    """The library that outputs should be made for; None for NumPy and what takes no DLPack."""
    return None if isinstance(given, np.ndarray) or not hasattr(given, "__dlpack__") else library_of(given)


def _release(arrays: Iterable[Given]) -> None:
    for array in arrays:
        if isinstance(array, Borrowed):
            array.release()
