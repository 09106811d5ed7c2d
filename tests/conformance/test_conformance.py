"""The ONNX backend tests: natively at least 65 %, with islands at least 99 %, and never a wrong answer."""

from __future__ import annotations

import pytest

from tests.conformance.conformance import reference_set, run_all, summary

SHARES = {"native": 0.65, "islands": 0.99}


@pytest.mark.parametrize("way", list(SHARES))
def test_the_onnx_backend_tests(way: str) -> None:
    pytest.importorskip("onnxruntime")
    results = run_all(reference_set(), way)
    print(summary(results, way))
    wrong = [name for name, (status, _) in results.items() if status == "wrong"]
    assert not wrong, summary(results, way)
    passed = sum(status == "pass" for status, _ in results.values())
    assert passed >= SHARES[way] * len(results), summary(results, way)
