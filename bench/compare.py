"""This working tree against another commit of the repository: both built, both checked, timed in interleaved rounds."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from bench import machine
from bench.networks import NETWORKS
from bench.peers import Contestant
from bench.run_models import run_model
from voxelrt import environment

FOLDER = machine.ROOT / "build" / "compare"


def compare(asked: argparse.Namespace) -> int:
    """Print, for each row, how many times longer the base took; the exit code is 1 where one could not be timed."""
    if unknown := [row for row in asked.rows.split(",") if row not in NETWORKS]:
        raise SystemExit(f"no row is named {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    if asked.rounds < 6:
        raise SystemExit(f"--rounds {asked.rounds}: an interval of 95 % needs 6")
    commit = _git("rev-parse", "--verify", f"{asked.base}^{{commit}}")
    base = build(commit)
    failed = False
    for name in asked.rows.split(","):
        row = run_model(
            name,
            [base],
            size=NETWORKS[name].fixed or asked.size,
            seed=asked.seed,
            rounds=asked.rounds,
            threads=asked.threads or environment.threads(),
            budget_s=float("inf"),
            tell=lambda line: print(line, file=sys.stderr, flush=True),
        )
        ratio = row.get("ratios", {}).get(base.name)
        if ratio is None:
            failed = True
            print(f"{name}: not compared: {row['error'] or row['contestants'][base.name]['error']}")
            continue
        ours, theirs = (row["contestants"][who]["median_s"] * 1e3 for who in ("voxelrt", base.name))
        print(
            f"{name}: {theirs:.1f} ms at {commit[:10]}, {ours:.1f} ms now: "
            f"{ratio['median']:.3f}× as fast ({ratio['low']:.3f}–{ratio['high']:.3f})"
        )
    return 1 if failed else 0


def build(commit: str) -> Contestant:
    """The commit in a folder and an environment of its own, kept for the next time.

    Raises
    ------
    SystemExit
        It cannot be built; pip has said why.
    """
    root = FOLDER / commit[:12]
    python = root / ".venv" / "bin" / "python"
    if not root.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        _git("worktree", "prune")
        _git("worktree", "add", "--detach", str(root), commit)
    if not python.exists():
        print(f"building {commit[:10]}", file=sys.stderr, flush=True)
        _run([sys.executable, "-m", "venv", str(root / ".venv")], root)
        _run([str(python), "-m", "pip", "install", "--quiet", "--editable", ".[onnxruntime]"], root)
    title = f"VoxelRT at {commit[:10]}"
    return Contestant("base", title, "voxelrt", python=str(python), root=str(root), mode="the same bench, older code")


def _run(command: list[str], folder: Path) -> None:
    if subprocess.run(command, cwd=folder, check=False).returncode:
        raise SystemExit(f"the base cannot be built; remove {folder.relative_to(machine.ROOT)} to begin anew")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=machine.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
