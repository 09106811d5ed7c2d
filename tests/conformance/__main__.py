"""``python -m tests.conformance [native|islands|reference] [FILTER]``: print the table, or make the reference set."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor

import onnx
import onnxruntime

from tests.conformance.cases import cases
from tests.conformance.conformance import REFERENCE, WAYS, reference_set, run_all, run_reference, summary


def main() -> None:
    """See the module's text."""
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    word = sys.argv[2] if len(sys.argv) > 2 else ""
    if what == "reference":
        names = list(cases())
        with ProcessPoolExecutor(2) as pool:
            passed = [n for n, good in zip(names, pool.map(run_reference, names, chunksize=32), strict=True) if good]
        head = (
            f"# Passed by ONNX Runtime {onnxruntime.__version__} of the {len(names)} tests of onnx {onnx.__version__}"
        )
        REFERENCE.write_text("\n".join([head, *passed, ""]), encoding="utf-8")
        print(head, len(passed))
        return
    for way in [what] if what in WAYS else WAYS:
        print(summary(run_all([n for n in reference_set() if word in n], way), way))


if __name__ == "__main__":
    main()
