"""Windows that look the same to the network: their logits need be computed only once, and are the same bits.

Where intensities are clipped or padded, much of a volume is one value (air around a body in CT), and windows there are
equal whichever way they are mirrored.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Triple = tuple[int, int, int]
SAMPLES = 5  # an axis, looked at before the whole window is


def repeated(
    data: Floats, window: Triple, places: Sequence[Triple], looked: Callable[[], None] = lambda: None
) -> dict[Triple, Hashable]:
    """Which windows repeat.

    Parameters
    ----------
    data : (C, Z, Y, X).
    window : the size of one (z, y, x).
    places : where each begins.
    looked : called after each window.

    Returns
    -------
    place -> key, for windows of one value and for those that are equal to another. Equal windows have equal keys; the
    key of a window of one value (bytes) is the same for all of its mirrored forms.
    """
    bits = data.view(np.int32)
    samples = {}
    for place in places:
        samples[place] = _part(bits, window, place)[(slice(None), *map(_some, window))].tobytes()
        looked()
    counts = Counter(samples.values())
    keys: dict[Triple, Hashable] = {}
    for place, sample in samples.items():
        part = _part(bits, window, place)
        first = part[:, :1, :1, :1]
        if _constant(sample, len(data)) and (part == first).all():
            keys[place] = first.tobytes()
        elif counts[sample] > 1:
            keys[place] = (hashlib.blake2b(np.ascontiguousarray(part).data, digest_size=32).digest(),)
        looked()
    alike = Counter(keys.values())
    return {place: key for place, key in keys.items() if alike[key] > 1 or isinstance(key, bytes)}


def most_repeated(keys: Sequence[Hashable]) -> Hashable:
    """The key that comes most often, None where each comes once."""
    counted = Counter(key for key in keys if key is not None).most_common(1)
    return counted[0][0] if counted and counted[0][1] > 1 else None


def _part(data: NDArray[np.int32], window: Triple, place: Triple) -> NDArray[np.int32]:
    return data[(slice(None), *(slice(at, at + size) for at, size in zip(place, window, strict=True)))]


def _some(size: int) -> slice:
    return slice(None, None, max(1, (size - 1) // (SAMPLES - 1)))


def _constant(sample: bytes, channels: int) -> bool:
    values = np.frombuffer(sample, np.int32).reshape(channels, -1)
    return bool((values == values[:, :1]).all())
