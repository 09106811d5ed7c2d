"""Write the table of docs/nnunet.md: how far labels are from nnU-Net's own, on every stored case.

python -m tests.pipeline.nnunet_agreement
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import voxelrt as vx
from tests.pipeline import test_nnunet_meaning as meaning
from tests.pipeline import test_nnunet_run as plain
from voxelrt.result import Result

REPORT = Path(__file__).parents[2] / "docs" / "nnunet.md"
TEXT = """# nnU-Net's labels

nnU-Net's predictor sums logits and weights in half precision, on the CPU too. VoxelRT sums in float32. So there are two
references, both nnU-Net 2.8.1's own `nnUNetPredictor`: *as it is*, and with its two accumulators *patched* to float32.
`--source-rounding` repeats the half-precision sums, divisions and fold averages in nnU-Net's order of windows.

Differing voxels as a share of the union of foregrounds; the cases and both references are stored with the scripts that
made them (`make_nnunet_cases.py`, `make_nnunet_meaning.py`). Written by `python -m tests.pipeline.nnunet_agreement`.

Where labels differ from the predictor *as it is*, the two best classes are closer than its half-precision sums can
round (`tests/pipeline/test_margins.py` states the bound and holds every differing voxel of five cases to it).

| case | VoxelRT against patched | `--source-rounding` against as it is | patched against as it is |
| --- | ---: | ---: | ---: |
"""


def main() -> int:
    """Run all cases, write the report; 1 where an agreement is below what is promised."""
    rows, sound = [], True
    with tempfile.TemporaryDirectory() as scratch:
        for name, ours, rounded, patched, stock in [*_plain(Path(scratch) / "a"), *_meaning(Path(scratch) / "b")]:
            wide, half = _differ(ours, patched), _differ(rounded, stock)
            sound = sound and wide <= 1e-4 and half <= 1e-3
            rows.append(f"| {name} | {wide:.4%} | {half:.4%} | {_differ(patched, stock):.4%} |")
            print(rows[-1], flush=True)
    REPORT.write_text(TEXT + "\n".join(rows) + "\n", encoding="utf-8")
    return 0 if sound else 1


Labels = NDArray[np.generic]
Row = tuple[str, Labels, Labels, Labels, Labels]


def _plain(root: Path) -> list[Row]:
    root.mkdir()
    with tarfile.open(plain.FOLDERS) as archive:
        archive.extractall(root, filter="data")
    made = []
    for case, model in plain.MODELS.items():
        plan = vx.compile(root / model, tune="off", verify=False)
        study = plain._study(case, plan, root)
        answers = [_array(vx.predict(plan, study, source_rounding=rounding)) for rounding in (False, True)]
        with np.load(plain.CASES) as stored:
            made.append((case, *answers, stored[f"{case}.float32"], stored[f"{case}.half"]))
    return made


def _meaning(root: Path) -> list[Row]:
    root.mkdir()
    with tarfile.open(meaning.ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    made = []
    for name in (*meaning.CASCADES, *meaning.PLAIN):
        folder = root / name
        plan = meaning._plan(folder, "3d_cascade_fullres" if name in meaning.CASCADES else None)
        answers = [meaning._run(plan, folder, source_rounding=rounding) for rounding in (False, True)]
        made.append((name, *answers, meaning._stored(folder, "float32"), meaning._stored(folder, "half")))
    return made


def _array(result: Result) -> Labels:
    return np.asarray(result.labels.array)[0].transpose(2, 1, 0)


def _differ(one: Labels, other: Labels) -> float:
    return float((one != other).sum() / max(1, ((one != 0) | (other != 0)).sum()))


if __name__ == "__main__":
    sys.exit(main())
