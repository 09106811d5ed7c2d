"""The long checks, and their report: ``python -m tests.soak.run [--seconds 600]`` writes docs/soak.md.

Fuzzing of every reader under ASan and UBSan, the thread pool and plans under TSan, the C example under valgrind.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs" / "soak.md"


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


def fuzz(seconds: float) -> list[str]:
    """Rows of the report: one a target."""
    environment = {
        **os.environ,
        "VOXELRT_LIBRARY": str(build("sanitized", "address,undefined")),
        "LD_PRELOAD": preload("libasan.so", "libstdc++.so.6"),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=8192",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.fuzz", "--seconds", str(seconds)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    lines = ["| reader | executions | seconds | distinct outcomes | findings |", "|---|---|---|---|---|"]
    for row in rows:
        found = "; ".join(row["findings"]) or "none"
        lines.append(f"| {row['target']} | {row['executions']} | {row['seconds']} | {row['outcomes']} | {found} |")
    if done.returncode not in (0, 1):
        lines.append(f"\nThe fuzzer stopped with {done.returncode}:\n\n```\n{done.stderr[-3000:]}\n```")
    return lines


def suite(title: str, environment: dict[str, str], command: list[str]) -> str:
    """One line: what a suite gave."""
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    last = (done.stdout.strip().splitlines() or [""])[-1]
    verdict = "passed" if done.returncode == 0 else f"FAILED ({done.returncode}): {done.stderr[-1500:]}"
    return f"- {title}: {verdict}, {time.monotonic() - start:.0f} s. {last}"


def main() -> None:
    """Run all and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="fuzzing time for each reader")
    options = parser.parse_args()
    lines = ["# Long checks", "", f"Written by `make soak` on {platform.machine()}."]
    lines += ["", "## Fuzzing (ASan and UBSan)", "", *fuzz(options.seconds), "", "## Native suites", ""]
    thread = {
        "VOXELRT_LIBRARY": str(build("tsan", "thread")),
        "LD_PRELOAD": preload("libtsan.so", "libstdc++.so.6"),
        "TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0",
    }
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    lines.append(
        suite(
            "TSan, plans and pools", thread, [*pytest, "tests/unit/test_plan_file.py", "-k", "not fork and not damage"]
        )
    )
    lines.append(suite("TSan, kernels", thread, [*pytest, "tests/kernels/test_cases.py", "-k", "odd or prime or 2-2"]))
    # Only where torch is installed have they a peer; else they say so.
    lines.append(suite("slow tests", {}, [*pytest, "-m", "slow", "tests/models", "tests/pipeline", "tests/unit"]))
    if shutil.which("valgrind"):
        with tempfile.TemporaryDirectory() as folder:
            example = [sys.executable, "-m", "tests.native.prepare_example", folder]
            avx2 = {"VOXELRT_CPU_ISA": "avx2"}  # valgrind knows no AVX-512
            subprocess.run(example, cwd=ROOT, check=True, env={**os.environ, **avx2})
            run = [f"{folder}/example", f"{folder}/net.vxp", f"{folder}/in.f32", f"{folder}/out.f32"]
            check = ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full"]
            lines.append(suite("valgrind, the C example (AVX2)", avx2, [*check, *run]))
    else:
        lines.append("- valgrind is not installed: the C example was not run under it")
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
