"""``python -m bench run | running | accuracy | cases | compare | summary | …``: see ``bench/README.md``."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.peers import choose_peers, read_peers, requirements

OUTPUT = Path("bench-output")
FORMAT = 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="VoxelRT against its peers, in one run.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure; writes JSON, a Markdown table and a plot")
    run.add_argument(
        "--quick", action="store_true", help="peers of the quick run only, fewer rounds, at most 10 minutes"
    )
    run.add_argument("--rows", help="comma-separated: models/demo, layers, kernels ... (default: all)")
    run.add_argument("--peers", help="comma-separated names of peers.toml (default: those marked for the run)")
    run.add_argument("--seed", type=int, default=0, help="of weights, inputs and the order of rounds")
    run.add_argument("--rounds", type=int, help="interleaved rounds, at least 5 (default: 9; quick: 6)")
    run.add_argument("--threads", type=int, help="compute threads of everyone (default: all that are allowed)")
    run.add_argument("--size", type=int, default=128, help="edge of models/unet3d's window in voxels (default: 128)")
    run.add_argument("--isa", choices=("all", "avx2"), default="all", help="hold everyone who can be held to AVX2")
    run.add_argument("--kernels", default="", metavar="EXPRESSION", help="which kernel rows, as pytest's -k")
    run.add_argument("--output", type=Path, default=OUTPUT, help="folder (default: bench-output)")
    for name, text in (("table", "print a run's Markdown table"), ("plot", "draw a run's plot beside its JSON")):
        commands.add_parser(name, help=text).add_argument("file", type=Path)
    summary = commands.add_parser("summary", help="print the networks of several runs, their ratios side by side")
    summary.add_argument("files", type=Path, nargs="+")
    compare = commands.add_parser("compare", help="this working tree against another commit, in one run")
    compare.add_argument("base", help="the commit to compare with")
    compare.add_argument("--rows", default="models/unet3d", help="comma-separated models (default: models/unet3d)")
    compare.add_argument("--size", type=int, default=128, help="edge of models/unet3d's window (default: 128)")
    compare.add_argument("--rounds", type=int, default=9, help="interleaved rounds (default: 9)")
    compare.add_argument("--threads", type=int, help="compute threads of both (default: all that are allowed)")
    compare.add_argument("--seed", type=int, default=0)
    cases = commands.add_parser("cases", help="whole cases, file to file, against nnU-Net's own predictor")
    cases.add_argument("--classes", default="5,118", help="comma-separated, the background among them (default: 5,118)")
    cases.add_argument("--case-size", default="160,256,256", help="voxels z,y,x (default: 160,256,256)")
    cases.add_argument("--rounds", type=int, default=1, help="(default: 1; a case takes nnU-Net minutes)")
    cases.add_argument("--memory", help="also run VoxelRT with this budget, such as 2GiB")
    cases.add_argument("--stock", action="store_true", help="also run nnU-Net without the tuned allocator")
    cases.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    cases.add_argument("--seed", type=int, default=0)
    cases.add_argument("--output", type=Path, default=OUTPUT, help="folder (default: bench-output)")
    accuracy = commands.add_parser("accuracy", help="how far answers are from torch's in float64")
    accuracy.add_argument("--row", default="models/unet3d", help="a network of named classes (default: models/unet3d)")
    accuracy.add_argument("--size", type=int, default=128, help="edge of its window (default: 128)")
    accuracy.add_argument("--peers", default="onnxruntime,openvino,torch", help="(default: onnxruntime,openvino,torch)")
    accuracy.add_argument("--threads", type=int, help="(default: all that are allowed)")
    accuracy.add_argument("--seed", type=int, default=0)
    running = commands.add_parser("running", help="what running costs: first start, memory, threads, timers")
    running.add_argument("--parts", default="starts,memory,threads,timers", help="(default: all four)")
    running.add_argument("--row", default="models/unet3d", help="(default: models/unet3d)")
    running.add_argument("--size", type=int, default=128, help="edge of its window (default: 128)")
    running.add_argument("--weights-memory", default="250MiB", help="the limit whose cost is shown (default: 250MiB)")
    running.add_argument("--rounds", type=int, default=6, help="runs in turn, at least 6 (default: 6)")
    running.add_argument("--threads", type=int, help="(default: all that are allowed)")
    running.add_argument("--seed", type=int, default=0)
    commands.add_parser("peers", help="who is measured, and how")
    commands.add_parser("requirements", help="what pip installs into the bench's environment")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 1 where a row of the run failed."""
    asked = _parser().parse_args(arguments)
    if asked.command == "requirements":
        print("\n".join(requirements()))
    elif asked.command == "peers":
        for peer in read_peers().values():
            print(f"{peer.name:16}{peer.title}: {peer.mode}{'' if peer.default else ' (only by --peers)'}")
    elif asked.command == "table":
        from bench.table import markdown

        print(markdown(_read(asked.file)), end="")
    elif asked.command == "summary":
        from bench.table import summary

        print(summary([_read(file) for file in asked.files]), end="")
    elif asked.command == "plot":
        from bench.plot import draw

        print(draw(_read(asked.file), asked.file.with_suffix(".png")))
    elif asked.command == "cases":
        from bench.cases import run_cases

        return run_cases(asked)
    elif asked.command == "accuracy":
        from bench.accuracy import accuracy

        return accuracy(asked)
    elif asked.command == "running":
        from bench.running import running

        return running(asked)
    elif asked.command == "compare":
        from bench.compare import compare

        return compare(asked)
    else:
        return _run(asked, sys.argv[1:] if arguments is None else arguments)
    return 0


def _read(path: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if run.get("format") != FORMAT:
        raise SystemExit(f"{path} is not a run of this bench (format {FORMAT})")
    return run


def rows_asked(wanted: Sequence[str], known: Collection[str]) -> list[str]:
    """The rows asked for; ``models`` and ``layers`` stand for all of theirs."""
    found: list[str] = []
    for name in wanted:
        group = [row for row in known if row.startswith(f"{name}/")] or [name]
        if group == [name] and name not in known and name != "kernels":
            raise SystemExit(f"no row is named {name}; there are {', '.join(known)} and kernels")
        found += group
    return found


def _run(asked: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Measure everything asked for and write it down after each row, so that a broken run keeps what it has."""
    # What measures needs NumPy and voxelrt; `requirements` and `peers` run on a bare Python.
    from bench import machine
    from bench.networks import NETWORKS
    from bench.run_kernels import run_kernels
    from bench.run_models import run_model
    from voxelrt import environment

    wanted = rows_asked(asked.rows.split(",") if asked.rows else [*NETWORKS, "kernels"], NETWORKS)
    rounds = asked.rounds or (6 if asked.quick else 9)
    if rounds < 5:
        raise SystemExit(f"--rounds {rounds}: at least 5; an interval of 95 % needs 6")
    try:
        peers = choose_peers(asked.peers.split(",") if asked.peers else None, asked.quick)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    threads = asked.threads or environment.threads()
    now = datetime.datetime.now(datetime.UTC)
    run: dict[str, Any] = {
        "format": FORMAT,
        "created": now.isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "bench", *arguments]),
        "seed": asked.seed,
        "rounds": rounds,
        "quick": asked.quick,
        "machine": machine.describe_machine(threads),
        "revision": machine.commit(),
        "versions": machine.versions(),
        "ceilings": None,
        "warnings": [],
        "models": [],
        "kernels": [],
    }
    asked.output.mkdir(parents=True, exist_ok=True)
    target = asked.output / f"{now:%Y%m%d-%H%M%S}{'-quick' if asked.quick else ''}.json"
    ceilings = _Ceilings(run, threads)
    ceilings.measure()
    for name in wanted:
        if name == "kernels":
            run["kernels"] = run_kernels(
                seed=asked.seed, rounds=rounds, seconds=0.3 if asked.quick else 1.0, select=asked.kernels
            )
        else:
            size = NETWORKS[name].fixed or asked.size
            budget = 200.0 if asked.quick else float("inf")
            run["models"].append(
                run_model(
                    name,
                    peers,
                    size=size,
                    seed=asked.seed,
                    rounds=rounds,
                    threads=threads,
                    budget_s=budget,
                    avx2=asked.isa == "avx2",
                    tell=_tell,
                )
            )
        ceilings.measure()
        _write(target, run)
    _finish(target, run)
    failed = [r for r in [*run["models"], *run["kernels"]] if r["error"] and not r.get("skipped")]
    failed += [c for r in run["models"] for c in r["contestants"].values() if c["error"]]
    return 1 if failed else 0


class _Ceilings:
    """The machine's peak, measured before the first and after every row; the highest counts."""

    def __init__(self, run: dict[str, Any], threads: int) -> None:
        from bench import machine

        self.run, self.threads = run, threads
        self.highest: machine.Ceilings | None = None
        load = machine.load()
        if load > 0.3 * threads:
            run["warnings"].append(f"the machine was busy at the start (load {load:.1f}): the figures are noise")
        try:
            self.library: Any = machine.peak_library()
        except RuntimeError as error:
            self.library = None
            run["warnings"].append(str(error))

    def measure(self) -> None:
        from bench import machine

        if self.library is None:
            return
        now = machine.measure_ceilings(self.library, self.threads)
        self.highest = now if self.highest is None else self.highest.best(now)
        self.run["ceilings"] = asdict(self.highest)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write(target: Path, run: dict[str, Any]) -> None:
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(run, indent=1), encoding="utf-8")
    partial.replace(target)


def _finish(target: Path, run: dict[str, Any]) -> None:
    """The table on standard output and as a file, and the plot where matplotlib is installed."""
    from bench.plot import draw
    from bench.table import markdown

    _write(target, run)
    text = markdown(run)
    target.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text, end="")
    try:
        draw(run, target.with_suffix(".png"))
    except ImportError:
        _tell("no plot: matplotlib is not installed here (`make bench` has it)")
    _tell(f"written: {target} and beside it .md and .png")


if __name__ == "__main__":
    raise SystemExit(main())
