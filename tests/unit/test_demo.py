"""What of the demo needs no download: its comparison with ONNX Runtime, and that all it calls is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import voxelrt as vx
from tests.pipeline.counting import counting, save


def test_the_demo_compares_with_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime, the demo's rival, is not installed")
    from bench import demo

    plan = vx.compile(save(tmp_path, counting((6, 8, 10))), verify=False)
    levels = np.random.default_rng(0).random((1, 1, 6, 8, 10)).astype(np.float32)
    rival = demo._rival(plan, levels, rounds=2)
    assert isinstance(rival, demo.Rival)
    assert rival.maximum_difference < 1e-4
