"""The stored graphs and answers of ``make_tensorflow_ops.py``, by case."""

from __future__ import annotations

import functools
import io
import lzma
from pathlib import Path
from typing import Any

import numpy as np

STORED = Path(__file__).parent / "data" / "tensorflow_ops.npz.xz"


@functools.cache
def cases() -> dict[str, dict[str, Any]]:
    """Case -> ``graph`` (the bytes as uint8), ``in|x`` and ``out|y``."""
    found: dict[str, dict[str, Any]] = {}
    with np.load(io.BytesIO(lzma.decompress(STORED.read_bytes()))) as stored:
        for key in stored.files:
            name, _, part = key.partition("|")
            found.setdefault(name, {})[part] = stored[key]
    return found
