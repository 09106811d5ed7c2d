"""DLPack capsules as NumPy makes and takes them, what is refused, and who keeps the memory for how long."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import voxelrt as vx
from voxelrt.errors import UsageError
from voxelrt.plan import dlpack
from voxelrt.plan.dlpack import ANY_GPU, DeviceArray, Lease, borrow, capsule, gpu_of, stream_number


class _Given:
    """An array as another library gives it."""

    def __init__(self, device: tuple[int, int], make: Any) -> None:
        self._device, self._make, self.streams = device, make, list[Any]()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, *, stream: Any = None, **others: Any) -> Any:
        self.streams.append(stream)
        return self._make()


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_numpy_takes_our_capsules(dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    address = array.__array_interface__["data"][0]
    taken = np.from_dlpack(_Given((1, 0), lambda: capsule(array, address, array.shape, array.dtype, (1, 0))))
    assert taken.dtype == array.dtype
    np.testing.assert_array_equal(taken, array)


@pytest.mark.parametrize("dtype", ["float32", "int16", "bool"])
def test_numpy_s_capsules_are_taken(dtype: str) -> None:
    whole = np.arange(60).reshape(3, 4, 5).astype(dtype)
    for array in (whole, whole[:, ::-1, ::2], whole[1:2, :, 3], whole[:0]):
        taken = borrow(_Given((2, 0), array.__dlpack__), 7, 0)
        assert (taken.shape, taken.dtype) == (array.shape, array.dtype)
        assert taken.contiguous == array.flags.c_contiguous
        if array.size:
            assert taken.address == array.__array_interface__["data"][0]
            steps = [s * array.itemsize for s in taken.strides]
            axes = zip(array.shape, steps, array.strides, strict=True)
            assert all(n == 1 or step == wanted for n, step, wanted in axes)
        taken.release()


def test_memory_stays_as_long_as_anybody_has_it() -> None:
    back = list[set[int]]()

    def lent() -> Any:
        lease = Lease(back.append)
        return lease, weakref.ref(lease)

    lease, alive = lent()
    unused = capsule(lease, 0, (2,), np.float32, (1, 0))
    taken = borrow(_Given((2, 0), [capsule(lease, 0, (2,), np.float32, (2, 0))].pop), 7, 0)
    lease.readers.add(7)
    del lease, unused
    gc.collect()
    assert alive() is not None
    taken.release()
    taken.release()  # once is enough
    gc.collect()
    assert alive() is None
    assert back == [{7}]
    assert dlpack._given == {}


def test_the_reader_s_stream_waits_and_no_other_number_is_a_stream() -> None:
    waited, back = list[int](), list[set[int]]()
    array = DeviceArray(Lease(back.append), 256, (2, 3), np.float32, 1, 0x77, waited.append)
    assert array.__dlpack_device__() == (2, 1)
    assert gpu_of(array) == 1
    for stream in (None, 1, 2, 0x99, -1):
        array.__dlpack__(stream=stream, max_version=(1, 1), dl_device=(2, 1), copy=False)
    assert waited == [1, 1, 2, 0x99]
    for stream, error in ((0, ValueError), (-2, ValueError), ("1", TypeError), (True, TypeError), (1.0, TypeError)):
        with pytest.raises(error):
            array.__dlpack__(stream=stream)
    for wrong in ({"dl_device": (1, 0)}, {"copy": True}):
        with pytest.raises(BufferError):
            array.__dlpack__(**wrong)
    words = array.__cuda_array_interface__
    assert (words["data"], words["stream"], words["typestr"], words["version"]) == ((256, False), 0x77, "<f4", 3)
    with pytest.raises(TypeError, match="from_dlpack"):
        np.asarray(array)
    del array, words
    assert back == [{1, 2, 0x99, -1}]
    half = DeviceArray(Lease(back.append), 256, (2,), ml_dtypes.bfloat16, 1, 0x77, waited.append)
    assert not hasattr(half, "__cuda_array_interface__")


def test_what_is_no_array_of_ours_is_refused_by_name() -> None:
    words: dict[str, Any] = {"shape": (2, 3), "typestr": "<f4", "data": (512, False), "version": 3}

    class Described:
        def __init__(self, **more: Any) -> None:
            self.__cuda_array_interface__ = words | more

    taken = borrow(Described(strides=(4, 8), stream=2), 7, 3)
    assert (taken.address, taken.strides, taken.device, taken.awaits) == (512, (1, 2), 3, 2)
    assert not taken.contiguous
    assert gpu_of(Described()) == ANY_GPU
    assert borrow(Described(), 7, 0).awaits is None
    for wrong in ({"mask": 1}, {"strides": (3, 1)}, {"stream": 0}, {"typestr": "<U4x"}):
        with pytest.raises(UsageError, match="Described"):
            borrow(Described(**wrong), 7, 0)

    def refuses() -> Any:
        raise BufferError("it requires a gradient")

    with pytest.raises(UsageError, match="gradient"):
        borrow(_Given((2, 0), refuses), 7, 0)
    with pytest.raises(UsageError):
        borrow(_Given((2, 0), lambda: 3), 7, 0)
    with pytest.raises(UsageError):  # complex numbers
        borrow(_Given((2, 0), np.zeros(3, np.complex64).__dlpack__), 7, 0)
    with pytest.raises(UsageError):  # a capsule is taken once
        used = np.zeros(3).__dlpack__()
        np.from_dlpack(_Given((1, 0), lambda: used))
        borrow(_Given((2, 0), lambda: used), 7, 0)
    assert stream_number(None) == 1


def test_a_plan_on_the_cpu_says_that_an_array_lies_on_a_gpu() -> None:
    from voxelrt.models.architectures.unet3d import build_unet3d

    plan = vx.compile(build_unet3d((4, 8), (8, 8, 8)), verify=False, tune="off")
    with pytest.raises(UsageError, match="the input input lies on a GPU"):
        plan(_Given((2, 0), lambda: None))
