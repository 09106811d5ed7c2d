"""The table of formats: what needs no download and no torch is run; what cannot be is said in its row."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.models import format_table
from tests.models.format_rows import ROWS, Row, _safetensors
from voxelrt.errors import UsageError


def test_a_row_is_measured_and_one_that_cannot_be_says_why(tmp_path: Any, monkeypatch: Any) -> None:
    pytest.importorskip("onnxruntime", reason="the reference of the row")

    def missing() -> Any:
        raise UsageError("no such thing\nand more")

    monkeypatch.setattr(format_table, "ROWS", [Row("safetensors", "an MLP", _safetensors), Row("x", "y", missing)])
    monkeypatch.setattr(format_table, "TARGET", tmp_path / "formats.md")
    assert format_table.main() == 0
    text = (tmp_path / "formats.md").read_text("utf-8")
    assert "| safetensors | an MLP | ONNX Runtime" in text
    assert "not run here: no such thing |" in text
    monkeypatch.setattr(format_table, "TOLERANCE", -1.0)
    assert format_table.main() == 1


def test_an_answer_of_nan_is_no_perfect_one() -> None:
    pytest.importorskip("onnxruntime", reason="the reference of the row")
    (run,) = _safetensors()
    spoiled = dataclasses.replace(run, part=lambda answer: np.full_like(answer, np.nan))
    assert format_table.measured(Row("x", "y", lambda: [run]))[2] <= format_table.TOLERANCE
    assert format_table.measured(Row("x", "y", lambda: [spoiled, run]))[2] == float("inf")


def test_every_row_of_the_docs_is_one_of_the_command() -> None:
    text = format_table.TARGET.read_text("utf-8")
    assert all(f"| {row.format} | {row.what} |" in text for row in ROWS)
