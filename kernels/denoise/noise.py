"""How strong an image's noise is, from the image alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import UsageError
from voxelrt.kernels.common.kernel import Array

# The median of |x| for a standard normal x: Donoho's constant.
MEDIAN_OF_NORMAL = 0.6744897501960817
LEAST_BLOCKS = 8
# Above this the noise of a magnitude is Gaussian to four digits.
HIGH_SNR = 20.0
_ANGLES = (np.arange(512) + 0.5) * (np.pi / 512)


def estimate_noise(volume: Array, noise: str = "gaussian") -> float:
    """The standard deviation of the noise of one volume, in its own units.

    The finest diagonal coefficients of an orthonormal Haar transform hold noise and next to no image; their median
    magnitude over 0.6745 is the deviation (Donoho, Biometrika 81:425, 1994). For ``"rician"`` only coefficients in the
    object, away from edges, count, and the deviation is corrected for the object's signal-to-noise ratio (Coupé et
    al., Med. Image Anal. 14:483, 2010, with Koay and Basser's factor, J. Magn. Reson. 179:317, 2006, equation 18).

    Parameters
    ----------
    volume : (Z, Y, X) or (Y, X), finite.
    noise : ``"gaussian"`` or ``"rician"``.

    Returns
    -------
    sigma : 0.0 where nothing varies.

    Raises
    ------
    UsageError : the volume is too small to tell.
    """
    low, high, mixed = haar_blocks(volume)
    if not mixed.any():
        return 0.0
    used = mixed
    if noise == "rician":
        inside = mixed & (low > two_means(low[mixed]))
        steep = _gradient(low)
        used = inside & (steep <= np.median(steep[inside])) if inside.any() else inside
    count = int(np.count_nonzero(used))
    if count < LEAST_BLOCKS:
        raise UsageError(f"the noise cannot be told from {count} blocks of voxels; give its deviation as sigma")
    sigma = float(np.median(np.abs(high[used]))) / MEDIAN_OF_NORMAL
    return _rician(sigma, float(low[used].mean())) if noise == "rician" and sigma > 0 else sigma


def haar_blocks(volume: Array) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Of blocks of two voxels along every axis that has them: the mean, the diagonal coefficient, and whether the
    voxels differ at all (padding and clipped air do not)."""
    v = volume.astype(np.float64)
    low = high = least = most = v
    paired = 0
    for axis, size in enumerate(v.shape):
        if size < 2:
            continue
        before = (slice(None),) * axis
        even, odd = (*before, slice(0, size - 1, 2)), (*before, slice(1, None, 2))
        low, high = (low[even] + low[odd]) / 2, high[even] - high[odd]
        least, most = np.minimum(least[even], least[odd]), np.maximum(most[even], most[odd])
        paired += 1
    return low, high / np.sqrt(2.0**paired), least < most


def two_means(values: Array) -> float:
    """The border between the two clusters of some values (Lloyd's iteration from their mean)."""
    border = float(values.mean())
    for _ in range(100):
        above = values > border
        if not above.any() or above.all():
            break
        moved = (float(values[above].mean()) + float(values[~above].mean())) / 2
        if moved == border:
            break
        border = moved
    return border


def magnitude_factor(snr: float) -> float:
    """The variance of a Rician magnitude over that of its channels, for a signal of `snr` deviations."""
    if snr > HIGH_SNR:
        return 1.0
    x = snr**2 / 4
    decay = np.exp(x * (np.cos(_ANGLES) - 1))  # e^-x I_n(x) is the mean of decay * cos(n angle)
    bessel0, bessel1 = float(decay.mean()), float((decay * np.cos(_ANGLES)).mean())
    return 2 + snr**2 - np.pi / 8 * ((2 + snr**2) * bessel0 + snr**2 * bessel1) ** 2


def _rician(deviation: float, mean: float) -> float:
    """The channels' deviation from a magnitude's own deviation and mean."""
    sigma = deviation
    for _ in range(100):
        signal = np.sqrt(max(mean**2 + deviation**2 - 2 * sigma**2, 0.0))
        moved = deviation / np.sqrt(magnitude_factor(signal / sigma))
        if abs(moved - sigma) <= 1e-9 * sigma:
            break
        sigma = moved
    return float(sigma)


def _gradient(low: NDArray[np.float64]) -> NDArray[np.float64]:
    squared = np.zeros_like(low)
    for axis, size in enumerate(low.shape):
        if size > 1:
            squared += np.gradient(low, axis=axis) ** 2
    return np.asarray(np.sqrt(squared))
