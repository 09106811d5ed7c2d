"""A scheduler for the windows of a plan on a GPU, within a budget of its memory.

The batch is the largest whose network, rows and study fit: it is halved until they do, and where even single windows
leave no room for a study's sums these go to the host's memory. What was decided is told. A GPU that has less than it
said is met once with the next smaller batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from voxelrt.errors import PlanError, UsageError
from voxelrt.memory_size import in_words
from voxelrt.plan.gpu_codes import window_codes
from voxelrt.runtime.cuda_device import CudaBuffer, CudaDevice, handle_of
from voxelrt.runtime.cuda_windows import CudaWindows
from voxelrt.runtime.device import Stream
from voxelrt.runtime.gpu_driver import Driver, LoadedEngine, LostDeviceError
from voxelrt.runtime.gpu_network import Compiled, GpuNetwork, load_engines, network_memory
from voxelrt.runtime.scheduler import Budget, Scheduler
from voxelrt.runtime.window_job import Job

SHARE = 0.9  # of the memory that is free: the driver and the libraries want some of their own
LOG = logging.getLogger("voxelrt")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Share:
    """How a budget is spent.

    Parameters
    ----------
    batch : windows in one run.
    host_slab : whether sums are in the host's memory.
    studies : bytes for studies together.
    """

    batch: int
    host_slab: bool
    studies: int


@dataclass(frozen=True)
class _Opened:
    """What is held on the GPU."""

    device: CudaDevice
    network: GpuNetwork
    scheduler: Scheduler


class GpuWindows:
    """The windows of one plan on one GPU: a scheduler, and what it holds.

    Parameters
    ----------
    driver, compiled : the GPU, and the plan's part for it.
    study_bytes, slab_bytes : what the largest study takes on the device, its sums without and its sums.
    memory : the budget in bytes; None is what is free.
    say : called with a sentence on the batch and on what is held where.

    Raises
    ------
    UsageError : the budget is below what single windows need.
    PlanError : the network is not one of windows, or the plan holds no kernels for them.
    DeviceMemoryError : the GPU has less memory than it said, twice.
    """

    def __init__(
        self,
        driver: Driver,
        compiled: Compiled,
        study_bytes: int,
        slab_bytes: int,
        *,
        memory: int | None = None,
        say: Say | None = None,
    ) -> None:
        part = compiled.part
        if len(part.profiles) != 1 or len(part.outputs) != 1:
            raise PlanError("windows have one input and one output; this network has more")
        self._driver, self._compiled = driver, compiled
        (self._input,), (self._output,) = part.profiles, part.outputs
        if {part.values[name].dtype for name in (self._input, self._output)} != {"float32"}:
            raise PlanError("windows go in and logits come out as float32; this network's do not")
        self._codes = window_codes(compiled.codes)
        if len(self._codes) < 3:
            raise PlanError("the plan holds no kernels for windows: compile it again with this version")
        self._engines, self._tell = load_engines(driver, compiled), say or LOG.info
        self._opened: _Opened | None = None
        free = int(driver.memory()[0] * SHARE)
        budget = free if memory is None else min(memory, free)
        share = self._share_of(budget, study_bytes, slab_bytes, None)
        try:
            self._open(self._engines, share)
        except MemoryError:
            if share.batch == 1:
                raise
            smaller = share.batch // 2
            self._tell(f"the GPU has less memory than it said: {smaller} windows at once, not {share.batch}")
            self._open(self._engines, self._share_of(budget, study_bytes, slab_bytes, smaller))

    @property
    def _held(self) -> _Opened:
        if self._opened is None:
            raise PlanError("the windows of this plan are closed")
        return self._opened

    @property
    def scheduler(self) -> Scheduler:
        """Runs studies."""
        return self._held.scheduler

    @property
    def network(self) -> GpuNetwork:
        """The plan's steps."""
        return self._held.network

    def _share_of(self, budget: int, study: int, slab: int, most: int | None) -> Share:
        """The largest batch that fits, then without the slab. Raises UsageError."""
        least, largest = self._compiled.part.batches
        batch = min(largest, most or largest)
        while True:
            fixed = self.fixed_bytes(batch)
            if fixed + study + slab <= budget:
                return Share(batch, False, budget - fixed)
            if batch <= least or batch == 1:
                break
            batch = max(least, batch // 2)
        if fixed + study <= budget:
            return Share(batch, True, budget - fixed)
        raise UsageError(
            f"memory: {in_words(budget)} of the GPU is less than this study needs, {in_words(fixed + study)} with its "
            "sums in the host's memory"
        )

    def fixed_bytes(self, batch: int) -> int:
        """What the network and the rows of the batches in flight take of the GPU."""
        values = self._compiled.part.values
        rows = sum(values[name].bytes_at(batch) for name in (self._input, self._output))
        return network_memory(self._compiled, batch, self._engines).bytes + CudaDevice.in_flight * rows

    def _open(self, engines: dict[int, LoadedEngine], share: Share) -> None:
        driver, compiled, part = self._driver, self._compiled, self._compiled.part
        device, network = CudaDevice(driver), GpuNetwork(driver, compiled, share.batch, engines)
        kernels = CudaWindows(device, self._codes, compiled.use_ptx, self._run_network, host_slab=share.host_slab)
        shapes = [part.values[name].dims[1:] for name in (self._input, self._output)]
        budget = Budget(share.studies)
        try:
            scheduler = Scheduler(device, kernels, *shapes, batch=share.batch, budget=budget)
        except MemoryError:
            network.close()
            device.trim()
            raise
        self.share, self._opened = share, _Opened(device, network, scheduler)
        where = "; sums of windows are kept in the host's memory" if share.host_slab else ""
        self._tell(f"{share.batch} windows at once on {driver.name}, {in_words(network.bytes)} for the network{where}")

    def _run_network(self, inputs: CudaBuffer, outputs: CudaBuffer, stream: Stream) -> None:
        addresses = {self._input: inputs.address, self._output: outputs.address}
        self.network.run(handle_of(stream), addresses, inputs.shape[0])

    def takes(self, study: int, slab: int) -> bool:
        """Whether there is room for a study of these sizes (see ``study_bytes``)."""
        return self.bytes_of(study, slab) <= self.share.studies

    def bytes_of(self, study: int, slab: int) -> int:
        """What a study takes of the device."""
        return study if self.share.host_slab else study + slab

    def run(self, job: Job) -> None:
        """Run one study; out of memory it is tried once more with the next smaller batch.

        Raises
        ------
        VoxelRTError : the study's own error, a lost GPU's among them (LostDeviceError).
        """
        for attempt in range(2):
            for ended in self.scheduler.run(OneJob(job)):
                error = ended.error
            if error is None:
                return
            if attempt or self.share.batch == 1 or not isinstance(error.__cause__, MemoryError):
                raise error
            self.shrink()
            job.error = None

    def shrink(self) -> None:
        """Go on with half the batch, which was found to be too large. Raises DeviceMemoryError, LostDeviceError."""
        smaller = replace(self.share, batch=max(1, self.share.batch // 2))
        self._tell(f"out of memory: once more with {smaller.batch} windows at once, not {self.share.batch}")
        self.close()
        self._open(self._engines, smaller)

    def close(self) -> None:
        """Give everything back; on a lost GPU nothing is left to give."""
        with suppress(LostDeviceError):
            if self._opened is not None:
                self._opened.scheduler.close()
                self._opened.network.close()
                self._opened.device.trim()
        self._opened = None


class OneJob:
    """A source of one study."""

    def __init__(self, job: Job) -> None:
        self._job: Job | None = job

    def wait(self) -> None:
        """All of it is there."""

    def next(self, wait: bool) -> Job | None:
        del wait
        job, self._job = self._job, None
        return job


def sizes_of(job: Job) -> tuple[int, int]:
    """``study_bytes`` of a study's windows."""
    return study_bytes(job.data.shape, job.channels, job.weights.shape[0], job.labels[0].nbytes)


def study_bytes(data: tuple[int, ...], channels: int, window_depth: int, labels_plane: int) -> tuple[int, int]:
    """What a study takes on a device: its data and planes of labels, and its slab of sums and counts.

    Parameters
    ----------
    data : (C, Z, Y, X). channels : of the logits. window_depth : of a window. labels_plane : bytes of one.
    """
    planes = min(window_depth + 1, data[1])
    plane = data[2] * data[3]
    return 4 * int(np.prod(data, dtype=np.int64)) + 2 * labels_plane, 4 * planes * (channels + 1) * plane
