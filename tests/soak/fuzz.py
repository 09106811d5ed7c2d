"""Mutation fuzzing of everything that reads a file from outside: ``python -m tests.soak.fuzz --seconds 60``.

Each target starts from sound seeds, changes bytes, cuts, repeats and splices them (of JSON texts also whole values,
into such of other types), and keeps inputs that gave an outcome not seen before (an outcome is the kind of error and
the words of its message without numbers). A target passes if every input is either read or refused with one of
VoxelRT's own errors, in time and without a crash. Run it under the sanitized library to look into the native side too
(`make soak`).
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak.targets import TARGETS
from voxelrt.errors import VoxelRTError

SLOW_SECONDS = 5.0
WRONG_VALUES = (None, True, -1, 0, 2**60, 1e308, float("nan"), "", "x" * 300, "../..", [], [[]], {}, {"": {}}, [0] * 9)


@dataclass
class Outcome:
    """What fuzzing one target gave."""

    target: str
    executions: int = 0
    seconds: float = 0.0
    outcomes: set[str] = field(default_factory=set)
    findings: list[str] = field(default_factory=list)


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to four changes of a seed."""
    if rng.random() < 0.5 and (changed := mutate_json(data, rng)) is not None:
        return changed
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(6)
        at = rng.randrange(len(out) + 1)
        if kind == 0 and out:
            out[at % len(out)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 1 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            out[at : at + rng.choice((1, 4, 8, 64))] = b""
        elif kind == 3:
            out[at:at] = rng.choice((b"\xff" * 8, b"\0" * 8, b"\x80" * 4, bytes(rng.randrange(256) for _ in range(8))))
        elif kind == 4 and other:
            start = rng.randrange(len(other))
            out[at : at + 32] = other[start : start + 32]
        elif kind == 5:
            del out[at:]
    return bytes(out)


def mutate_json(data: bytes, rng: random.Random) -> bytes | None:
    """One to three values of a JSON object changed, removed or exchanged; None of anything else.

    A byte that names the file an input is for may stand in front.
    """
    start = data.find(b"{", 0, 2)
    try:
        top = json.loads(data[start:]) if start >= 0 else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(top, dict):
        return None
    for _ in range(rng.randint(1, 3)):
        places = _places(top)
        if not places:
            break
        holder, key = rng.choice(places)
        if rng.random() < 0.2:
            del holder[key]
        elif rng.random() < 0.3:
            other, other_key = rng.choice(places)
            holder[key] = copy.deepcopy(other[other_key])
        else:
            holder[key] = copy.deepcopy(rng.choice(WRONG_VALUES))
    return data[:start] + json.dumps(top).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below a JSON value."""
    found: list[tuple[Any, Any]] = []
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        found += _places(value[key])
    return found


def fuzz(name: str, run: Callable[[Path], None], seeds: list[bytes], seconds: float, seed: int) -> Outcome:
    """Fuzz one target for a time."""
    rng, found = random.Random(seed), Outcome(name)
    corpus, start = list(seeds), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input"
        while time.monotonic() - start < seconds:
            data = mutate(rng.choice(corpus), rng.choice(corpus), rng)
            path.write_bytes(data)
            began = time.process_time()  # the processor's time: others may have the machine
            outcome = _run_once(run, path, found, data)
            if time.process_time() - began > SLOW_SECONDS:
                _keep(found, f"took {time.process_time() - began:.1f} s", data)
            found.executions += 1
            if outcome not in found.outcomes:
                found.outcomes.add(outcome)
                corpus.append(data)
    found.seconds = time.monotonic() - start
    return found


def _run_once(run: Callable[[Path], None], path: Path, found: Outcome, data: bytes) -> str:
    try:
        run(path)
        return "read"
    except (VoxelRTError, MemoryError) as error:
        return f"{type(error).__name__}: {re.sub(r'[0-9a-f]+', '#', str(error))[:120]}"
    except Exception as error:  # noqa: BLE001 - any other exception is what fuzzing looks for
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:120]}"
        if text not in found.outcomes:
            _keep(found, text, data)
        return text


def _keep(found: Outcome, text: str, data: bytes) -> None:
    folder = Path("build/soak")
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{found.target}-{len(found.findings)}.bin"
    (folder / name).write_bytes(data)
    found.findings.append(f"{text} ({name})")


def main() -> int:
    """Fuzz the targets asked for and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="default: all")
    options = parser.parse_args()
    failed = False
    for name in options.target or sorted(TARGETS):
        run, seeds = TARGETS[name]()
        found = fuzz(name, run, seeds, options.seconds, options.seed)
        failed = failed or bool(found.findings)
        row = {
            "target": name,
            "executions": found.executions,
            "seconds": round(found.seconds, 1),
            "outcomes": len(found.outcomes),
            "findings": found.findings,
        }
        print(json.dumps(row), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
