"""The peers of ``peers.toml``, and VoxelRT itself, as contestants of a row."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

PEERS = Path(__file__).with_name("peers.toml")
SUBJECT = "voxelrt"
# What the libraries below a peer read their number of threads from.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Contestant:
    """One program that computes a row's answer, in a process of its own.

    Parameters are those of ``peers.toml``, where each is described.
    """

    name: str
    title: str
    runner: str
    precision: str = "fp32"
    tolerance: float = 1e-4  # two fp32 executors, each within 5e-5 of the exact answer, differ by at most this
    quick: bool = True
    default: bool = True
    mode: str = ""
    requirements: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    avx2: Mapping[str, str] = field(default_factory=dict)
    python: str = ""  # of another environment than the bench's own, and the folder that it runs in
    root: str = ""

    def variables(self, threads: int) -> dict[str, str]:
        """The environment variables that its process gets on top of the caller's."""
        number = str(threads)
        own = {name: value.format(threads=number) for name, value in self.environment.items()}
        return {**dict.fromkeys(_THREADS, number), **own}


def subject(*, steps: bool = False) -> Contestant:
    """VoxelRT, held to the tolerance of its fp32 precision; ``steps``: the time of its convolutions alone."""
    mode = "voxelrt.compile(model, fallback='error')" + (", the time of its convolution steps" if steps else "")
    runner = "voxelrt_steps" if steps else "voxelrt"
    return Contestant(SUBJECT, "VoxelRT fp32", runner, mode=mode, avx2={"VOXELRT_CPU_ISA": "avx2"})


def held_to_avx2(contestant: Contestant) -> Contestant:
    """The same without AVX-512, where it can be told so; the title says which it is."""
    title = f"{contestant.title}, {'AVX2' if contestant.avx2 else 'all instruction sets'}"
    return replace(contestant, title=title, environment={**contestant.environment, **contestant.avx2})


def read_peers(path: Path = PEERS) -> dict[str, Contestant]:
    """All peers by name, in the file's order.

    Raises
    ------
    ValueError
        A key that no peer has: a typing error would silently change what is measured.
    """
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["peers"]
    known = set(Contestant.__dataclass_fields__) - {"name", "python", "root"}
    found: dict[str, Contestant] = {}
    for name, table in tables.items():
        if unknown := set(table) - known:
            raise ValueError(f"{path.name}: peer {name} has unknown keys: {', '.join(sorted(unknown))}")
        found[name] = Contestant(name, **{**table, "requirements": tuple(table["requirements"])})
    return found


def choose_peers(names: Sequence[str] | None, quick: bool) -> list[Contestant]:
    """The peers asked for by name, else those of the quick or of the full run.

    Raises
    ------
    ValueError
        A name that is not in the file.
    """
    peers = read_peers()
    if names is not None:
        if unknown := [name for name in names if name not in peers]:
            raise ValueError(f"no peer is named {', '.join(unknown)}; peers.toml has {', '.join(peers)}")
        return [peers[name] for name in names]
    return [peer for peer in peers.values() if peer.default and (peer.quick or not quick)]


def requirements(path: Path = PEERS) -> list[str]:
    """What pip installs into the bench's environment: the tools and every peer's pins."""
    tools = tomllib.loads(path.read_text(encoding="utf-8"))["tools"]
    pins = (pin for peer in read_peers(path).values() for pin in peer.requirements)
    return list(dict.fromkeys([*tools, *pins]))


def keep_large_blocks(module: str) -> None:
    """Start `module` again with torch's allocator settings, for all contestants of one process.

    malloc reads them when a process begins; without them it gives large blocks back and pays for them anew.
    """
    wanted = read_peers()["torch"].environment
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], {**os.environ, **wanted})
