"""The model rows: each network, VoxelRT and the peers, in one contest."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.contest import Contest, Entry, hold
from bench.networks import NETWORKS, Prepared
from bench.peers import SUBJECT, Contestant, choose_peers, held_to_avx2, subject
from voxelrt.measure.ratios import ratio_of


def run_model(
    name: str,
    peers: Sequence[Contestant],
    *,
    size: int,
    seed: int,
    rounds: int,
    threads: int,
    budget_s: float,
    avx2: bool = False,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Measure one network; a row that cannot be made at all holds the error and nothing else."""
    tell(f"{name} at {size}")
    start, waited = time.monotonic(), machine.waited_s()
    try:
        with tempfile.TemporaryDirectory(prefix="voxelrt-bench-") as temporary:
            folder = Path(temporary)
            prepared = NETWORKS[name].prepare(folder, seed, size)
            network = NETWORKS[name]
            reference = network.reference
            contest = Contest(prepared.model, prepared.x, reference, folder, threads, rounds, seed, budget_s, tell)
            racing = [peer for peer in peers if not network.only or peer.name in network.only]
            contestants = [subject(steps=network.steps), *_with_reference(racing, reference)]
            entries = hold(contest, [held_to_avx2(c) for c in contestants] if avx2 else contestants)
    except Exception as error:  # noqa: BLE001 - a row that fails must not take the others with it
        tell(f"    failed: {error}")
        return {"row": name, "size": size, "error": f"{type(error).__name__}: {error}", "contestants": {}}
    return _record(name, size, prepared, entries, _disturbance(start, waited))


def _with_reference(peers: Sequence[Contestant], reference: str) -> list[Contestant]:
    """The reference takes part whoever is asked for: without it no answer can be checked."""
    asked = any(peer.name == reference for peer in peers)
    return list(peers) if asked else [*choose_peers([reference], quick=False), *peers]


def _disturbance(start: float, waited: float | None) -> float | None:
    """The share of the time since ``start`` in which some thread waited for a processor; None if not known."""
    now = machine.waited_s()
    return None if waited is None or now is None else (now - waited) / max(1e-9, time.monotonic() - start)


def _record(
    name: str, size: int, prepared: Prepared, entries: Sequence[Entry], disturbance: float | None
) -> dict[str, Any]:
    ours = next(e for e in entries if e.contestant.name == SUBJECT)
    ratios = {
        e.contestant.name: ratio_of(e.times_s, ours.times_s).record()
        for e in entries
        if e is not ours and e.times_s and len(e.times_s) == len(ours.times_s)
    }
    return {
        "row": name,
        "title": prepared.title,
        "size": size,
        "error": "",
        "reference": NETWORKS[name].reference,
        "voxels": prepared.voxels,
        "flops": prepared.flops,
        "disturbance": disturbance,
        "contestants": {e.contestant.name: e.record() for e in entries},
        "ratios": ratios,
    }
