"""The public names, and what importing the package costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import voxelrt as vx

SCRIPT = """
import json, sys, time
before = set(sys.modules)
start = time.thread_time()
import voxelrt
seconds = time.thread_time() - start
print(json.dumps([seconds, sorted(set(sys.modules) - before)]))
"""


def test_importing_is_quick_and_brings_no_framework() -> None:
    seconds, modules = min(
        json.loads(subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True).stdout)
        for _ in range(3)
    )
    assert seconds < 0.3
    heavy = {"torch", "onnxruntime", "onnx", "onnx_ir", "numpy", "typer", "rich", "pydicom", "nibabel"}
    assert not heavy & {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("voxelrt.cli", {"numpy", "rich"}),
        ("voxelrt.commands.info", {"onnx", "onnx_ir", "pydicom"}),
        ("voxelrt.commands.compile", {"onnx", "onnx_ir", "pydicom"}),
        ("voxelrt.commands.run", {"onnx", "onnx_ir"}),
        ("voxelrt.runtime.session", {"onnx", "onnx_ir"}),
        ("voxelrt.compile", {"pydicom"}),
    ],
)
def test_start_up_brings_only_what_is_used(module: str, unneeded: set[str]) -> None:
    """onnx_ir takes half a second, pydicom a quarter: a kept plan needs neither to run."""
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    assert not (unneeded | {"torch", "onnxruntime"}) & {name.partition(".")[0] for name in modules}


def test_the_public_names() -> None:
    assert set(vx.__all__) <= set(dir(vx))
    for name in ("load", "compile", "predict"):
        assert callable(getattr(vx, name))
    assert {vx.Plan.__name__, vx.Session.__name__, vx.Volume.__name__, vx.Result.__name__} == {
        "Plan", "Session", "Volume", "Result",
    }  # fmt: skip
    assert vx.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = vx.nonsense


def test_compile_stays_a_function_whatever_is_imported_first() -> None:
    script = (
        "import voxelrt.compile, voxelrt; from voxelrt.compile import PRECISIONS; "
        "assert callable(voxelrt.compile) and 'fp32' in PRECISIONS"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
