"""Tests that need a GPU are skipped by name without one."""

from __future__ import annotations

import pytest

from voxelrt.errors import DeviceError, MissingExtraError
from voxelrt.kernels.common.gpu.device import open_device


@pytest.fixture(autouse=True, scope="session")
def _gpu() -> None:
    try:
        open_device("this test")
    except (DeviceError, MissingExtraError) as error:
        pytest.skip(str(error))
