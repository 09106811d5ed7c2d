"""The long checks, and their report: ``python -m tests.soak.run [--seconds 600] [--only PART …]`` writes docs/soak.md.

Fuzzing of every reader under ASan and UBSan, and once more of those whose work is Python's, which are ten times as
fast without; the C library's ABI and contexts, the thread pool and plans under TSan, the C example under valgrind. What
a part found is kept in build/soak/rows, and the report is written of that after each part: a run that is broken off
keeps what it has, and parts can be run one by one. ``--seconds 20`` goes through everything quickly.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.native.prepare_example import NETWORKS
from tests.soak.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs" / "soak.md"
ROWS = ROOT / "build" / "soak" / "rows"
NATIVE = "native"
PLAIN = {f"{name}-plain": name for name in ("dicom", "picture")}  # without sanitizers
PARTS = (*sorted(TARGETS), *PLAIN, NATIVE)
PLAIN_SEED = 11  # other inputs than the sanitized run's
# What was found once and is a test since.
MENDED = (
    "a mosaic's normal of two numbers, and ultrasound regions that are no sequence, were wrong exceptions",
    "a pickle's tuples inside tuples, which C hashes without a limit, ended the process; its lists and numbers, errors",
    "a chain of TIFF pages that ran in circles kept tifffile busy without end; chains are walked first",
)


def build(name: str, sanitizers: str) -> Path:
    """A library with these sanitizers, built in build/<name>."""
    folder = ROOT / "build" / name
    tools = Path(sys.executable).parent
    command = [str(tools / "cmake"), "-S", str(ROOT), "-B", str(folder), "-G", "Ninja"]
    command += [f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", f"-DVOXELRT_SANITIZE={sanitizers}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([str(tools / "cmake"), "--build", str(folder), "--target", "voxelrt"], check=True)
    return folder / "libvoxelrt.so"


def preload(*libraries: str) -> str:
    """Paths of the compiler's own run-time libraries, for LD_PRELOAD."""
    found = [
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in libraries
    ]
    return " ".join(found)


def fuzz(part: str, seconds: float) -> dict[str, Any]:
    """What fuzzing one reader gave."""
    target, seed, environment = PLAIN.get(part, part), PLAIN_SEED if part in PLAIN else 0, dict(os.environ)
    if part not in PLAIN:
        environment |= {
            "VOXELRT_LIBRARY": str(build("sanitized", "address,undefined")),
            "LD_PRELOAD": preload("libasan.so", "libstdc++.so.6"),
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=8192",
        }
    command = [sys.executable, "-m", "tests.soak.fuzz", "--seconds", str(seconds), "--target", target]
    command += ["--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    row: dict[str, Any] = rows[0] if rows else {"target": target, "executions": 0, "seconds": 0.0, "outcomes": 0}
    if not rows or done.returncode not in (0, 1):
        row["findings"] = [f"the fuzzer stopped with {done.returncode}: {' '.join(done.stderr.split())[-600:]}"]
    return row


def suite(title: str, environment: dict[str, str], command: list[str]) -> str:
    """One line: what a suite gave."""
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    last = (done.stdout.strip().splitlines() or [""])[-1]
    verdict = "passed" if done.returncode == 0 else f"FAILED ({done.returncode}): {done.stderr[-1500:]}"
    return f"- {title}: {verdict}, {time.monotonic() - start:.0f} s. {last}"


def native() -> list[str]:
    """The suites that look into the library: a line each."""
    thread = {
        "VOXELRT_LIBRARY": str(build("tsan", "thread")),
        "LD_PRELOAD": preload("libtsan.so", "libstdc++.so.6"),
        "TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0",
        "OPENBLAS_NUM_THREADS": "1",  # the oracles' threads, of which TSan knows nothing
    }
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    plans = [*pytest, "tests/unit/test_plan_file.py", "-k", "not fork and not damage"]
    # Of lstm also what its threads meet in: its small cases are never cut.
    recurrent = ["tests/kernels/test_lstm.py", "-k", "odd or prime or 2-2 or lstm-t5 or mdlstm or gru-t256 or threads"]
    kernels = [*pytest, "tests/kernels/test_cases.py", "tests/kernels/test_mdlstm.py", *recurrent]
    threads = [*pytest, "tests/kernels/test_conv3d.py", "-k", "heads or statistics or blocks_of_tiles or threads"]
    library = [*pytest, "tests/native/test_c_library.py", "tests/native/test_c_example.py"]
    lines = [suite("the C library: symbols, size, contexts that share a plan, runs that allocate nothing", {}, library)]
    lines += [suite("TSan, plans and pools", thread, plans), suite("TSan, kernels", thread, kernels)]
    lines.append(suite("TSan, convolutions of several threads", thread, threads))
    # Only where torch is installed have they a peer; else they say so.
    lines.append(suite("slow tests", {}, [*pytest, "-m", "slow", "tests/models", "tests/pipeline", "tests/unit"]))
    if not shutil.which("valgrind"):
        return [*lines, "- valgrind is not installed: the C example was not run under it"]
    avx2 = {"VOXELRT_CPU_ISA": "avx2"}  # valgrind knows no AVX-512
    check = ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full"]
    for network in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            example = [sys.executable, "-m", "tests.native.prepare_example", folder, network]
            subprocess.run(example, cwd=ROOT, check=True, env={**os.environ, **avx2})
            run = [f"{folder}/example", f"{folder}/net.vxp", f"{folder}/in.f32", f"{folder}/out.f32"]
            lines.append(suite(f"valgrind, the C example on {network} (AVX2)", avx2, [*check, *run]))
    return lines


def report() -> str:
    """The report of what is kept here; of other parts what the report says already, if anything."""
    kept = {path.stem: json.loads(path.read_text("utf-8")) for path in ROWS.glob("*.json")}
    said = sections(REPORT.read_text("utf-8"))
    lines = ["# Long checks", "", f"Written by `make soak` on {platform.machine()}."]
    for title, names in (("Fuzzing (ASan and UBSan)", sorted(TARGETS)), ("Reading path, without sanitizers", PLAIN)):
        lines += ["", f"## {title}", ""]
        lines += [
            "| reader | date | executions | seconds | distinct outcomes | findings |",
            "|---|---|---|---|---|---|",
        ]
        for name in names:
            reader, row = PLAIN.get(name, name), kept.get(name)
            if row is None:
                before = (line for line in said.get(title, ()) if line.startswith(f"| {reader} |"))
                lines.append(next(before, f"| {reader} | not run | | | | |"))
                continue
            found = "; ".join(row["findings"]) or "none"
            figures = f"{row['executions']} | {row['seconds']} | {row['outcomes']}"
            lines.append(f"| {reader} | {row['date']} | {figures} | {found} |")
    lines += ["", "Found by earlier runs, mended, now tests:", "", *(f"- {text}" for text in MENDED)]
    lines += ["", "## Native suites", ""]
    if NATIVE in kept:
        lines += [f"Of {kept[NATIVE]['date']}:", "", *kept[NATIVE]["lines"]]
    else:
        lines += said.get("Native suites", ["not run"])
    return "\n".join(lines) + "\n"


def sections(text: str) -> dict[str, list[str]]:
    """The lines of a page under each heading of the second level, without empty ones around them."""
    parts = (part.partition("\n") for part in text.split("\n## ")[1:])
    return {title: body.strip().splitlines() for title, _, body in parts}


def main() -> None:
    """Run all or some and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="fuzzing time for each reader")
    parser.add_argument("--only", action="append", choices=PARTS, help="default: all parts")
    options = parser.parse_args()
    if not options.only:
        shutil.rmtree(ROWS, ignore_errors=True)
    ROWS.mkdir(parents=True, exist_ok=True)
    for part in options.only or PARTS:
        row = {"lines": native()} if part == NATIVE else fuzz(part, options.seconds)
        row["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
        (ROWS / f"{part}.json").write_text(json.dumps(row, indent=1), "utf-8")
        REPORT.write_text(report(), encoding="utf-8")
    print(report())


if __name__ == "__main__":
    main()
