"""``voxelrt.kernels.<op>`` is the op's function, whatever was imported first."""

from __future__ import annotations

import subprocess
import sys

import pytest

from voxelrt.kernels.common.kernel import entries

FIRST = (
    "import voxelrt.kernels",
    "import voxelrt.kernels.conv3d.oracle",
    "from voxelrt.kernels.common.kernel import entries; entries()",
    "from voxelrt.kernels.pool3d.cpu import run",
)


@pytest.mark.parametrize("first", FIRST)
def test_the_name_of_an_op_is_its_function(first: str) -> None:
    names = sorted(entries())
    check = f"import voxelrt.kernels as k; print([n for n in {names} if not callable(getattr(k, n))])"
    code = f"{first}; import voxelrt.kernels.matmul.oracle; {check}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
