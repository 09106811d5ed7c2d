"""Prints the instruction sets that this processor can run, for the native matrix: ``python -m tests.native.isas``."""

from __future__ import annotations

import os
import subprocess
import sys

for name in ("avx2", "avx512", "neon"):
    probe = "from voxelrt.kernels.common import capi; capi.library()"
    environment = {**os.environ, "VOXELRT_CPU_ISA": name}
    if subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, check=False).returncode == 0:
        print(name)
