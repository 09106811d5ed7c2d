"""What was measured of each label, as a table for programs: .csv, or .json with the maker."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxelrt.io.atomic import atomic_path
from voxelrt.io.dicom.derived import Algorithm
from voxelrt.postprocess.measurements import Measured
from voxelrt.volume import Volume

COLUMNS = ("value", "name", "voxels", "volume_ml", "area_mm2", "mean", "deviation", "diameter_mm")


def write_table(measured: Sequence[Measured], labels: Volume, path: Path, algorithm: Algorithm) -> None:
    """Write a row for each label; what cannot be measured is empty (.csv) or null (.json).

    Raises
    ------
    OutputError : the file cannot be written.
    """
    rows: list[dict[str, Any]] = [{column: getattr(one, column) for column in COLUMNS} for one in measured]
    if path.name.endswith(".csv"):
        written = io.StringIO(newline="")
        table = csv.DictWriter(written, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        text = written.getvalue()
    else:
        made_by = {"algorithm": algorithm.name, "voxelrt": algorithm.version, "plan_sha256": algorithm.plan_sha256}
        voxel_mm3 = labels.voxel_volume_mm3 if labels.lengths == "volume" else None
        text = json.dumps({"labels": rows, "voxel_mm3": voxel_mm3, **made_by}, indent=1) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")
