"""One case within a budget, in a process of its own: ``python -m tests.pipeline.memory_child PLAN CASE BUDGET``.

BUDGET is in MiB, 0 for none. Prints JSON: what was said before the start, the most memory that the operating system saw
this process hold, and a digest of the labels; or the refusal.
"""

from __future__ import annotations

import hashlib
import json
import sys

import voxelrt as vx
from voxelrt.errors import UsageError
from voxelrt.runtime.process import peak_memory_bytes


def main(plan: str, case: str, budget: str) -> None:
    said: list[str] = []
    memory = int(budget) * 2**20 or None
    try:
        result = vx.predict(vx.Plan.open(plan, threads=2), case, mirroring=False, memory=memory, say=said.append)
    except UsageError as error:
        print(json.dumps({"refused": str(error), "peak": peak_memory_bytes()}))
        return
    digest = hashlib.sha256(result.labels.array.tobytes()).hexdigest()
    print(json.dumps({"said": said[-1], "peak": peak_memory_bytes(), "labels": digest}))


if __name__ == "__main__":
    main(*sys.argv[1:])
