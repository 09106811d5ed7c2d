"""What all tests share: poisoned memory, so that an output a kernel did not write shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from voxelrt.kernels.common import native

# The same examples every time, so that a failure is a change's own; `--hypothesis-profile=default` draws new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh arrays of the native layer start as NaN bit patterns (0xFF bytes), never as zeros."""
    make = native.aligned_empty

    def poisoned(shape: Sequence[int], dtype: Any) -> Any:
        array = make(shape, dtype)
        array.reshape(-1).view(np.uint8)[:] = 0xFF
        return array

    monkeypatch.setattr(native, "aligned_empty", poisoned)
