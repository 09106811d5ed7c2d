"""The GPUs that kernels are compiled for."""

from __future__ import annotations

# Turing, A100, RTX 30, Orin, RTX 40, H100, B200, Thor, RTX 50.
TARGETS = (75, 80, 86, 87, 89, 90, 100, 110, 120)
# Whose PTX the tests interpret: before wgmma and its kin, which are not worth emulating.
INTERPRETED = (80, 86, 89)
