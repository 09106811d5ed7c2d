"""Measure on the GPU and write a one-page report.

  python -m bench.gpu                        every row
  python -m bench.gpu --quick                a short form of each
  python -m bench.gpu --rows warp3d,median   some of them
  python -m bench.gpu --tests LOG            with the last line of a log of the GPU tests, as `make gpu-acceptance` does

Exit status: 0, 1 where VoxelRT itself gave a wrong answer or failed, 77 where there is no GPU or no library that builds
engines for it.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.gpu.contest import SUBJECT, Measured, Row, hold
from bench.gpu.device import describe
from bench.gpu.report import markdown
from voxelrt.errors import DeviceError, MissingExtraError
from voxelrt.io.atomic import atomic_path

SKIPPED = 77  # as automake has it: nothing failed, nothing was done
OUTPUT = Path("bench-output")


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m bench.gpu", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a short form of each row")
    parser.add_argument("--rows", help="names, with commas between")
    parser.add_argument("--rounds", type=int, help="of each row; default 20, or 8 with --quick")
    parser.add_argument("--report", type=Path, default=OUTPUT / "gpu-report.md", help="where the page goes")
    parser.add_argument("--json", type=Path, default=OUTPUT / "gpu.json", help="where the figures go")
    parser.add_argument("--tests", type=Path, help="a log of pytest, whose last line the report repeats")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    return parser.parse_args(given)


def last_line(log: Path | None) -> str:
    """pytest's own last line; empty where there is none."""
    if log is None or not log.exists():
        return ""
    lines = [line.strip(" =") for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    found = [line for line in lines if re.search(r"\d+ (passed|failed|skipped|error)", line)]
    return found[-1] if found else ""


def chosen(rows: Sequence[Row], names: str | None) -> list[Row]:
    """The rows asked for. Raises SystemExit for one that is not there."""
    if names is None:
        return list(rows)
    wanted, known = names.split(","), {row.name: row for row in rows}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"no row is named {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in wanted]


def run(options: argparse.Namespace, rows: Callable[[], list[Row]], command: str) -> int:
    """Measure and write; the exit status. `rows` raises where there is no GPU."""
    described, tests, measured = describe(), last_line(options.tests), list[Measured]()
    missing = ""
    try:
        todo = chosen(rows(), options.rows)
    except (DeviceError, MissingExtraError) as error:
        todo, missing = [], str(error)
    rounds = options.rounds or (8 if options.quick else 20)
    for row in todo:
        print(f"{row.name}: {row.title}", flush=True)
        measured.append(hold(row, rounds, mark=_nvtx()))
    for path in (options.report, options.json):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.report) as partial:
        partial.write_text(markdown(described, tests, measured, command), encoding="utf-8")
    record = {"gpu": asdict(described), "command": command, "tests": tests, "rows": [_record(m) for m in measured]}
    with atomic_path(options.json) as partial:
        partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
    if missing:
        print(f"nothing was measured: {missing}", file=sys.stderr)
        return SKIPPED
    print(f"wrote {options.report}")
    ours = [t for m in measured for t in m.timed if t.name == SUBJECT]
    if any(t.error and not t.absent for t in ours) or any(m.error and not m.absent for m in measured):
        return 1
    return SKIPPED if any(t.absent for t in ours) or any(m.absent for m in measured) else 0


def _record(measured: Measured) -> dict[str, Any]:
    row = measured.row
    timed = [
        {**{k: v for k, v in asdict(t).items() if k != "ratio"}, "ratio": t.ratio and t.ratio.record()}
        for t in measured.timed
    ]
    return {"row": row.name, "title": row.title, "work": row.work, "error": measured.error, "timed": timed}


def _nvtx() -> Callable[[str], AbstractContextManager[Any]]:
    """Ranges that Nsight shows; none where CuPy is missing."""
    try:
        from cupy.cuda import nvtx
    except ImportError:
        return lambda name: nullcontext()

    @contextmanager
    def mark(name: str) -> Any:
        nvtx.RangePush(name)
        try:
            yield
        finally:
            nvtx.RangePop()

    return mark


def _rows(options: argparse.Namespace) -> list[Row]:
    from bench.gpu import scale
    from bench.gpu.rows import all_rows, driver

    if not options.list:
        driver()  # raises where there is none
    return all_rows(scale.QUICK if options.quick else scale.FULL)


def main(given: Sequence[str]) -> int:
    """The command."""
    options = arguments(given)
    if options.list:
        print("\n".join(f"{row.name}: {row.title}" for row in _rows(options)))
        return 0
    return run(options, lambda: _rows(options), "python -m bench.gpu " + shlex.join(given))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
