"""Running a reference as a child process: a job as JSON in, a report as JSON out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxelrt.errors import MissingPackageError, UsageError, VoxelRTError

HERE = Path(__file__).parent
TAIL = 1500  # characters of a child's last words
PACKAGES = {"nnunet": "nnunetv2", "monai": "monai"}


@dataclass(frozen=True)
class Report:
    """What a child says.

    Parameters
    ----------
    seconds : of the case, without starting up and loading the network.
    peak_bytes : the most memory that its process held.
    versions : of the packages that did the work.
    stages : seconds of each stage, where it tells.
    """

    seconds: float
    peak_bytes: int
    versions: Mapping[str, str]
    stages: Mapping[str, float]


def run_child(name: str, job: Mapping[str, Any], folder: Path, python: str | None = None) -> Report:
    """Run ``<name>_child.py`` with a job.

    Parameters
    ----------
    name : "nnunet", "monai" or "voxelrt".
    job : what it is to do; files by their paths.
    folder : for the job's and the report's files.
    python : the interpreter of the reference's environment, by default ours.

    Raises
    ------
    UsageError : there is no such interpreter.
    MissingPackageError : the reference is not installed there.
    VoxelRTError : the reference failed; its last words are in the message.
    """
    asked, told = folder / f"{name}-job.json", folder / f"{name}-report.json"
    asked.write_text(json.dumps({**job, "report": str(told)}), "utf-8")
    given = python or sys.executable
    command = [given, str(HERE / f"{name}_child.py"), str(asked)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise UsageError(f"--python {given!r} cannot be run: {error.strerror}") from error
    if not told.is_file():
        said = (done.stderr or done.stdout)[-TAIL:].strip()
        raise VoxelRTError(f"the reference ended with code {done.returncode} and no answer; its last words:\n{said}")
    report = json.loads(told.read_text("utf-8"))
    if "missing" in report:
        raise MissingPackageError(str(report["missing"]), given, f"comparing with {PACKAGES.get(name, name)}")
    return Report(
        float(report["seconds"]), int(report["peak_bytes"]), dict(report["versions"]), dict(report.get("stages", {}))
    )
