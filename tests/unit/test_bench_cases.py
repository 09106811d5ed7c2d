"""The end-to-end rows: what is told, and when no ratio is."""

from __future__ import annotations

from typing import Any

from bench.cases import _table


def _row(equal: float) -> dict[str, Any]:
    def program(scale: float) -> dict[str, Any]:
        stages = {"preprocess": 1.0, "network": 5.0, "export": 0.5, "total": 6.5}
        return {"seconds": {name: scale * value for name, value in stages.items()}, "peak_bytes": int(scale * 2**30)}

    programs = {"VoxelRT": program(1.0), "nnU-Net, tuned allocator": program(4.0)}
    return {"classes": 5, "size_zyx": "1,2,3", "rounds": 1, "equal": equal, "labels_found": 5, "programs": programs}


def test_a_row_tells_stages_and_ratios() -> None:
    told = _table(_row(1.0))
    assert "| nnU-Net, tuned allocator | 4.00 s | 20.00 s | 2.00 s | 26.00 s | 4.00 GiB | 4.0× | 4.0× |" in told


def test_wrong_labels_have_no_ratio() -> None:
    assert "×" not in _table(_row(0.9998)).partition("| --- |")[2]
