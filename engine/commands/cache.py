"""voxelrt cache: what is kept in the cache folder, and removing of it what was not used for longest."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from voxelrt.commands.console import Screen
from voxelrt.commands.options import JsonOption, QuietOption
from voxelrt.environment import cache_folder
from voxelrt.errors import UsageError
from voxelrt.memory_size import in_words, parse_size
from voxelrt.plan import tuning_cache
from voxelrt.runtime import engine_cache

DAY = 86400.0


class Action(StrEnum):
    """What to do."""

    LS = "ls"
    PRUNE = "prune"


@dataclass(frozen=True)
class Entry:
    """One file of the cache folder."""

    path: Path
    kind: str
    bytes: int
    days: float  # since it was written or last used


def cache_command(
    action: Annotated[Action, typer.Argument(help="ls lists what is kept; prune removes what the options say.")],
    days: Annotated[
        float | None, typer.Option("--days", min=0, help="Prune what was not used for longer than so many days.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="SIZE", help="Prune the oldest until no more than this is left.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Only these: engines, plans, tuning, files or packages.")
    ] = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """List or prune the cache folder: engines of GPUs, compiled plans, timings, downloads.

    All of it is made again when it is needed; engines and plans take time, downloads a network.

    [bold]Examples[/]

      voxelrt cache ls

      voxelrt cache ls --kind tuning

      voxelrt cache prune --days 30

      voxelrt cache prune --kind engines --keep 2GiB
    """
    screen = Screen(quiet=quiet, json_to=json)
    entries = _entries(kind)
    gone: list[Entry] = []
    if action is Action.PRUNE:
        if days is None and keep is None:
            raise UsageError("prune removes nothing by itself: say --days DAYS or --keep SIZE")
        gone = _prune(entries, days, None if keep is None else parse_size(keep, "--keep"))
        screen.line(f"removed {len(gone)} of {len(entries)} files, {in_words(sum(e.bytes for e in gone))}")
    else:
        screen.table(
            ("kind", "size", "last used", "what"),
            ((e.kind, in_words(e.bytes), f"{e.days:.1f} days ago", _what(e)) for e in entries),
        )
        if kind == "tuning":
            screen.table(
                ("convolution", "fastest", "the next"),
                (row for entry in entries for row in tuning_cache.rows_of(entry.path)),
            )
        screen.line(f"{len(entries)} files, {in_words(sum(e.bytes for e in entries))}, in {cache_folder()}")
    rows, removed = ([_row(entry) for entry in some] for some in (entries, gone))
    screen.json({"folder": str(cache_folder()), "entries": rows, "removed": removed})


def _entries(kind: str | None) -> list[Entry]:
    """All files, by kind and the last used first."""
    root, now = cache_folder(), time.time()
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if kind is not None and root.is_dir() and kind not in {"engines", "plans", "tuning", "files", "packages"}:
        raise UsageError(f"--kind {kind!r}: choose engines, plans, tuning, files or packages")
    found = []
    for folder in folders:
        if kind is not None and folder.name != kind:
            continue
        for path in folder.rglob("*"):
            with suppress(OSError):
                if path.is_file() and not path.is_symlink() and path.suffix != ".lock":
                    state = path.stat()
                    found.append(Entry(path, folder.name, state.st_size, (now - state.st_mtime) / DAY))
    return sorted(found, key=lambda entry: (entry.kind, entry.days))


def _prune(entries: list[Entry], days: float | None, keep: int | None) -> list[Entry]:
    left, gone = sum(entry.bytes for entry in entries), []
    for entry in sorted(entries, key=lambda one: -one.days):
        old = days is not None and entry.days > days
        if old or (keep is not None and left > keep):
            with suppress(OSError):
                entry.path.unlink()
                left -= entry.bytes
                gone.append(entry)
    return gone


def _what(entry: Entry) -> str:
    words = {"engines": engine_cache.described, "tuning": tuning_cache.described}.get(entry.kind)
    return entry.path.name if words is None else words(entry.path)


def _row(entry: Entry) -> dict[str, object]:
    row = {"path": str(entry.path), "kind": entry.kind, "bytes": entry.bytes, "days": round(entry.days, 3)}
    if entry.kind == "tuning":
        return {**row, "timings": [vars(t) for t in tuning_cache.read_timings(entry.path).values()]}
    return row
