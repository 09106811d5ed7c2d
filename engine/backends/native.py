"""The native executor: an opened plan and its contexts, through the C API."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import queue
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.kernels.common import capi, native
from voxelrt.plan.schedule import Io

Array = NDArray[Any]
HostStep = Callable[[int, int, list[Array], list[Array]], None]
Progress = Callable[[int, int], None]

_HOST_STEP = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_uint32,
    ctypes.POINTER(capi.CTensor),
    ctypes.c_uint32,
    ctypes.POINTER(capi.CTensor),
    ctypes.c_uint32,
)
_PROGRESS = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)


class _PlanOptions(ctypes.Structure):
    _fields_ = (("struct_size", ctypes.c_uint32), ("skip_checksums", ctypes.c_uint32), ("pool", ctypes.c_void_p))


class _IoInfo(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("dtype", ctypes.c_uint8),
        ("rank", ctypes.c_uint8),
        ("batched", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
        ("name", ctypes.c_char_p),
        ("dims", ctypes.c_int64 * capi.MAX_RANK),
    )


class _VariantInfo(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("inputs", ctypes.c_uint32),
        ("outputs", ctypes.c_uint32),
        ("steps", ctypes.c_uint32),
        ("batch_min", ctypes.c_uint32),
        ("batch_max", ctypes.c_uint32),
        ("arena_bytes", ctypes.c_uint64),
    )


class _ContextOptions(ctypes.Structure):
    _fields_ = (("struct_size", ctypes.c_uint32), ("batch_capacity", ctypes.c_uint32))


class _RunOptions(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("cancel", ctypes.c_void_p),
        ("progress", _PROGRESS),
        ("progress_user", ctypes.c_void_p),
        ("host_step", _HOST_STEP),
        ("host_user", ctypes.c_void_p),
        ("step_time_ns", ctypes.c_void_p),
        ("step_begin_ns", ctypes.c_void_p),
    )


class StepTimers:
    """What a run writes down about each of its steps, in nanoseconds of the monotonic clock (``perf_counter_ns``)."""

    def __init__(self, steps: int) -> None:
        self.begin_ns = np.zeros(steps, np.uint64)
        self.time_ns = np.zeros(steps, np.uint64)


@functools.cache
def _library() -> ctypes.CDLL:
    library = capi.library()
    void, size, error = ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p)
    u32 = ctypes.c_uint32
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "voxelrt_plan_from_memory": (ctypes.c_int, [void, size, ctypes.POINTER(_PlanOptions), error, error]),
        "voxelrt_plan_release": (None, [void]),
        "voxelrt_plan_variants": (u32, [void]),
        "voxelrt_plan_variant": (ctypes.c_int, [void, u32, ctypes.POINTER(_VariantInfo), error]),
        "voxelrt_plan_input": (ctypes.c_int, [void, u32, u32, ctypes.POINTER(_IoInfo), error]),
        "voxelrt_plan_output": (ctypes.c_int, [void, u32, u32, ctypes.POINTER(_IoInfo), error]),
        "voxelrt_context_create": (ctypes.c_int, [void, void, ctypes.POINTER(_ContextOptions), error, error]),
        "voxelrt_context_release": (None, [void]),
        "voxelrt_context_bytes": (ctypes.c_uint64, [void]),
        "voxelrt_run": (
            ctypes.c_int,
            [
                void,
                ctypes.POINTER(capi.CTensor),
                u32,
                ctypes.POINTER(capi.CTensor),
                u32,
                ctypes.POINTER(_RunOptions),
                error,
            ],
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _call(name: str, *arguments: Any) -> None:
    error = ctypes.c_void_p()
    capi.check(getattr(_library(), name)(*arguments, ctypes.byref(error)), error)


class CancelFlag:
    """A flag that stops a run between two of its steps; any thread may set it."""

    def __init__(self) -> None:
        self._value = ctypes.c_int32(0)

    def set(self) -> None:
        """Ask the run to stop."""
        self._value.value = 1

    @property
    def is_set(self) -> bool:
        return self._value.value != 0

    @property
    def address(self) -> int:
        return ctypes.addressof(self._value)


@contextlib.contextmanager
def _interruptible(flag: CancelFlag) -> Iterator[None]:
    """Let Ctrl-C set the flag while the library works, and raise KeyboardInterrupt when the call has come back.

    Python runs its signal handlers only between bytecodes of the main thread; the progress callback is where that
    happens inside a long call.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    pressed = []

    def stop(number: int, frame: Any) -> None:
        del number, frame
        pressed.append(True)
        flag.set()

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            raise KeyboardInterrupt


def _view(tensor: capi.CTensor) -> Array:
    """A NumPy view on a tensor of the library (dense)."""
    dtype = capi.numpy_dtype(tensor.dtype)
    shape = tuple(tensor.dims[: tensor.rank])
    count = int(np.prod(shape, dtype=np.int64))
    if count == 0:
        return np.empty(shape, dtype)
    memory = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(tensor.data)
    view: Array = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
    return view


class NativePlan:
    """A plan opened by the library; immutable, usable from many threads.

    Parameters
    ----------
    file : the whole .vxp file in memory aligned to 64 bytes (a mapped file is).
    host_step : executes islands: (variant, island, inputs, outputs to fill).
    """

    def __init__(
        self,
        file: NDArray[np.uint8],
        *,
        pool: native.Pool | None = None,
        host_step: HostStep | None = None,
        checksums: bool = True,
    ) -> None:
        self._file = file
        self._pool = pool or native.default_pool()
        self._host_step = host_step
        self._handle = ctypes.c_void_p()
        self._contexts: queue.LifoQueue[ctypes.c_void_p] = queue.LifoQueue()
        self._made: list[ctypes.c_void_p] = []
        options = _PlanOptions(struct_size=ctypes.sizeof(_PlanOptions), skip_checksums=0 if checksums else 1)
        options.pool = self._pool.handle
        _call(
            "voxelrt_plan_from_memory", file.ctypes.data, file.size, ctypes.byref(options), ctypes.byref(self._handle)
        )
        weakref.finalize(self, _release, self._handle, self._made)
        self.variants = [self._variant(i) for i in range(_library().voxelrt_plan_variants(self._handle))]

    def _variant(self, index: int) -> tuple[list[Io], list[Io], tuple[int, int], int]:
        info = _VariantInfo(struct_size=ctypes.sizeof(_VariantInfo))
        _call("voxelrt_plan_variant", self._handle, index, ctypes.byref(info))
        inputs = [self._io("voxelrt_plan_input", index, k) for k in range(info.inputs)]
        outputs = [self._io("voxelrt_plan_output", index, k) for k in range(info.outputs)]
        return inputs, outputs, (info.batch_min, info.batch_max), info.steps

    def _io(self, function: str, variant: int, index: int) -> Io:
        info = _IoInfo(struct_size=ctypes.sizeof(_IoInfo))
        _call(function, self._handle, variant, index, ctypes.byref(info))
        return Io(info.name.decode(), info.dtype, tuple(info.dims[: info.rank]), bool(info.batched))

    @contextlib.contextmanager
    def _context(self) -> Iterator[ctypes.c_void_p]:
        """A context that is free: one of those made before, or a new one."""
        try:
            context = self._contexts.get_nowait()
        except queue.Empty:
            context = ctypes.c_void_p()
            most = max((v[2][1] for v in self.variants), default=1)
            options = _ContextOptions(struct_size=ctypes.sizeof(_ContextOptions), batch_capacity=most)
            _call(
                "voxelrt_context_create",
                self._handle,
                self._pool.handle,
                ctypes.byref(options),
                ctypes.byref(context),
            )
            self._made.append(context)
        try:
            yield context
        finally:
            self._contexts.put(context)

    @property
    def context_bytes(self) -> int:
        """Memory of all contexts made so far; of the first, where none has been made."""
        if not self._made:
            with self._context():
                pass
        return sum(_library().voxelrt_context_bytes(c) for c in self._made)

    def run(
        self,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        *,
        cancel: CancelFlag | None = None,
        progress: Progress | None = None,
        timers: StepTimers | None = None,
    ) -> None:
        """Run the variant whose inputs have these shapes; results go into ``outputs``.

        Raises
        ------
        ShapeError : no variant takes these inputs, or an output has the wrong shape or dtype.
        CancelledError : the flag was set. KeyboardInterrupt : Ctrl-C, between two steps.
        """
        flag = CancelFlag()  # of this run alone: a failure of its callbacks stops no other that shares `cancel`
        if cancel is not None and cancel.is_set:
            flag.set()
        failures: list[BaseException] = []

        def on_progress(user: Any, step: int, steps: int) -> None:
            del user
            if progress is not None:
                try:
                    progress(step, steps)
                except BaseException as error:  # noqa: BLE001 - an exception cannot cross the C frames
                    failures.append(error)
                    flag.set()
            if cancel is not None and cancel.is_set:  # perhaps by the callback
                flag.set()

        def on_host_step(
            user: Any, variant: int, island: int, ins: Any, in_count: int, outs: Any, out_count: int
        ) -> int:
            del user
            try:
                assert self._host_step is not None
                self._host_step(
                    variant,
                    island,
                    [_view(ins[i]) for i in range(in_count)],
                    [_view(outs[i]) for i in range(out_count)],
                )
            except BaseException as error:  # noqa: BLE001 - as above
                failures.append(error)
                return 1
            return 0

        options = _RunOptions(struct_size=ctypes.sizeof(_RunOptions), cancel=flag.address)
        options.progress = _PROGRESS(on_progress)
        if self._host_step is not None:
            options.host_step = _HOST_STEP(on_host_step)
        if timers is not None:
            options.step_time_ns, options.step_begin_ns = timers.time_ns.ctypes.data, timers.begin_ns.ctypes.data
        c_inputs = (capi.CTensor * max(1, len(inputs)))(*map(native.tensor, inputs))
        c_outputs = (capi.CTensor * max(1, len(outputs)))(*map(native.tensor, outputs))
        error = ctypes.c_void_p()
        with self._context() as context, _interruptible(flag):
            status = _library().voxelrt_run(
                context, c_inputs, len(inputs), c_outputs, len(outputs), ctypes.byref(options), ctypes.byref(error)
            )
        if failures:
            if error:
                capi.library().voxelrt_error_release(error)
            raise failures[0]
        capi.check(status, error)


def _release(plan: ctypes.c_void_p, contexts: list[ctypes.c_void_p]) -> None:
    for context in contexts:
        _library().voxelrt_context_release(context)
    _library().voxelrt_plan_release(plan)
