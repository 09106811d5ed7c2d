"""A case through voxelrt, by our kernels or with the network in ONNX Runtime: python voxelrt_child.py JOB.json"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from voxelrt.backends.native import CancelFlag, Progress
from voxelrt.errors import MissingExtraError
from voxelrt.pipeline import predict
from voxelrt.plan.arrays import Array
from voxelrt.plan.plan import Plan
from voxelrt.runtime.process import peak_memory_bytes


class OnnxRuntimePlan(Plan):
    """A plan whose network runs in ONNX Runtime: everything around it stays ours."""

    _runner: Any = None

    @property
    def parts(self) -> tuple[Plan, ...]:
        """The plans of earlier stages, likewise."""
        return tuple(OnnxRuntimePlan(part._file, threads=self.threads) for part in super().parts)

    def run(
        self,
        inputs: Mapping[str, Any],
        out: Mapping[str, Array] | None = None,
        taps: Sequence[str] = (),
        *,
        cancel: CancelFlag | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Row by row: the session is for the shape that the plan was compiled for."""
        del taps, cancel, progress
        if self._runner is None:
            from voxelrt.plan.kept import portable_graph
            from voxelrt.plan.parity import ReferenceRunner

            self._runner = ReferenceRunner(portable_graph(self)).run
        arrays = {name: np.asarray(array) for name, array in inputs.items()}
        rows = self.inputs[0].dims[0]
        count = max(1, next(iter(arrays.values())).shape[0] // max(1, rows))
        parts = [{n: a[k * rows : (k + 1) * rows] for n, a in arrays.items()} for k in range(count)]
        answers = [self._runner(part if count > 1 else arrays) for part in parts]
        made = {name: np.concatenate([one[name] for one in answers]) for name in answers[0]}
        for name, array in (out or {}).items():
            array[...] = made[name]
        return {**made, **(out or {})}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    kind = OnnxRuntimePlan if job["executor"] == "onnxruntime" else Plan
    versions = {"voxelrt": version("voxelrt")}
    if job["executor"] == "onnxruntime":
        from voxelrt.backends.onnxruntime import runtime

        try:
            runtime("comparing with ONNX Runtime")
        except MissingExtraError as error:
            Path(job["report"]).write_text(json.dumps({"missing": error.package}), "utf-8")
            return
        versions["onnxruntime"] = version("onnxruntime")
    plan = kind.open(job["plan"], threads=job.get("threads"))
    study = job["study"] if isinstance(job["study"], str) else dict(job["study"])
    start = time.perf_counter()
    result = predict(plan, study, job["out"], **job["options"])
    seconds = time.perf_counter() - start
    report = {
        "seconds": seconds,
        "peak_bytes": peak_memory_bytes(),
        "versions": versions,
        "stages": result.timings,
    }
    Path(job["report"]).write_text(json.dumps(report), "utf-8")


if __name__ == "__main__":
    main()
