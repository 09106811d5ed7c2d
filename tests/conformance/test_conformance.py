"""The ONNX backend tests: natively at least 89 %, with islands at least 99.5 %, and never a wrong answer.

Shares are of the tests that ONNX Runtime passes. Wrong answers are looked for natively in all tests, since there the
answers are all our own; in islands ONNX Runtime's own wrong answers to the other tests would be counted as ours.
"""

from __future__ import annotations

import pytest

from tests.conformance.cases import cases
from tests.conformance.conformance import reference_set, run_all, summary

SHARES = {"native": 0.89, "islands": 0.995}


@pytest.mark.parametrize("way", list(SHARES))
def test_the_onnx_backend_tests(way: str) -> None:
    pytest.importorskip("onnxruntime")
    reference = reference_set()
    results = run_all(cases() if way == "native" else reference, way)
    counted = {name: results[name] for name in reference}
    print(summary(counted, way))
    assert not [name for name, (status, _) in results.items() if status == "wrong"], summary(results, way)
    passed = sum(status == "pass" for status, _ in counted.values())
    assert passed >= SHARES[way] * len(counted), summary(counted, way)
