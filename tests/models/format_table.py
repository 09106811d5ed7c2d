"""``python -m tests.models.format_table``: run every format and write docs/formats.md, a row for each.

Needs the extras ``[onnxruntime]`` and ``[torch]``, and the cache folder for what is fetched; a row whose
package is missing says so. A row past its tolerance makes the exit code 1 and nothing is written.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from tests.models.format_rows import ROWS, Row
from voxelrt.errors import VoxelRTError
from voxelrt.io.atomic import atomic_path
from voxelrt.kernels.common.kernel import compare

TARGET = Path(__file__).parents[2] / "docs" / "formats.md"
TOLERANCE = 5e-5
HEAD = """# Formats

What was run of each format, and how far the plan's answer is from the reference's, ‖difference‖/‖reference‖, the worst
of all outputs. Every node ran natively (`fallback="error"`). Measured by `python -m tests.models.format_table`
on {machine}; a row that is past {tolerance:g} fails it.

| format | what was run | reference | runs | largest error |
| --- | --- | --- | ---: | ---: |
"""
TAIL = """
Two rows say little by their figure: the orientation classifier answers with two probabilities that are nearly 0 and 1,
and the MLP is so small that both executors round alike; it shows that the weights are read as they were written.

Files of torch are checked before torch sees them: of a `.pt2` file torch gets a new archive with the program, without
metadata, guards and pickled parts, whose operators are ATen's; a TorchScript file is a program, and one that touches
files or uses other libraries is refused. A `.safetensors` file becomes a network where its metadata name one of
`voxelrt.models.architectures`. The checkpoints of an nnU-Net folder are pickles too: they are read by our own reader,
which builds tensors and plain containers and runs nothing. A `.pth` state dict is read the same way where it
says of which of our architectures it is; other pickles are not read.
"""


def measured(row: Row) -> tuple[str, int, float]:
    """The reference's name, how many runs there were, and the largest relative error."""
    worst, reference, count = 0.0, "", 0
    for run in row.make():
        answer = run.plan.run(dict(run.inputs))
        reference, count = run.reference, count + 1
        for name, expected in run.expected.items():
            worst = max(worst, compare(run.part(answer[name]), expected).relative)  # NaN on one side is infinite
    return reference, count, worst


def main() -> int:
    """See the module's text."""
    lines, failed = [], False
    for row in ROWS:
        try:
            reference, count, worst = measured(row)
        except (ImportError, VoxelRTError) as error:
            text = f"not run here: {str(error).splitlines()[0]}"
            lines.append(f"| {row.format} | {row.what} | {text} | | |")
        else:
            failed = failed or worst > TOLERANCE
            lines.append(f"| {row.format} | {row.what} | {reference} | {count} | {worst:.1e} |")
        print(lines[-1], flush=True)
    if failed:
        print(f"a row is past {TOLERANCE:g}: {TARGET.name} stays as it was", file=sys.stderr)
        return 1
    head = HEAD.format(machine=platform.machine(), tolerance=TOLERANCE)
    with atomic_path(TARGET) as target:
        target.write_text(head + "\n".join(lines) + "\n" + TAIL, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
