"""The end-to-end rows: what is told, and when no ratio is."""

from __future__ import annotations

from typing import Any

from bench.cases import _table


def _row(right: bool) -> dict[str, Any]:
    def program(scale: float) -> dict[str, Any]:
        stages = {"preprocess": 1.0, "network": 5.0, "export": 0.5, "total": 6.5}
        return {"seconds": {name: scale * value for name, value in stages.items()}, "peak_bytes": int(scale * 2**30)}

    programs = {"VoxelRT": program(1.0), "nnU-Net, tuned allocator": program(4.0)}
    row = {"classes": 5, "size_zyx": "1,2,3", "rounds": 1, "labels_found": 5, "programs": programs}
    return {**row, "equal": 1.0, "equal_as_it_is": 0.9997, "right": right}


def test_a_row_tells_stages_and_ratios() -> None:
    told = _table(_row(True))
    assert "100.0000% of the union of foregrounds as nnU-Net with sums in float32, 99.9700% as nnU-Net as it is" in told
    assert "| nnU-Net, tuned allocator | 4.00 s | 20.00 s | 2.00 s | 26.00 s | 4.00 GiB | 4.0× | 4.0× |" in told


def test_wrong_labels_have_no_ratio() -> None:
    assert "×" not in _table(_row(False)).partition("| --- |")[2]
