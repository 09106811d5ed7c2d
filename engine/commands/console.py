"""What commands say: tables and JSON on stdout, progress and warnings on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from voxelrt.errors import UsageError
from voxelrt.io.atomic import atomic_path

Tell = Callable[[str, int, int], None]
Say = Callable[[str], None]

STEPS = {
    "compile": "compiling",
    "read": "reading",
    "preprocess": "bringing to the network's grid",
    "run": "running",
    "estimate": "judging the noise",
    "denoise": "taking noise out",
    "warp": "warping",
    "postprocess": "bringing back to the study's grid",
    "write": "writing",
    "draw": "drawing",
}


class Screen:
    """One command's output.

    Parameters
    ----------
    quiet
        Warnings and errors only.
    json_to
        A file, "-" for stdout (then nothing else goes there), or None.
    """

    def __init__(self, *, quiet: bool = False, json_to: str | None = None) -> None:
        self._json_to = json_to
        self._speaks = not quiet and json_to != "-"
        self._quiet = quiet
        # Into a file or a pipe there is no width to keep to, and a table cut at 80 columns helps nobody.
        self._out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
        self._err = Console(stderr=True, highlight=False)
        if json_to not in (None, "-") and not Path(str(json_to)).parent.is_dir():
            raise UsageError(f"--json {json_to!r}: there is no such folder")

    def line(self, text: str = "") -> None:
        """A line of the answer."""
        if self._speaks:
            self._out.print(escape(text), soft_wrap=True)

    def table(self, columns: Iterable[str], rows: Iterable[Iterable[object]], title: str = "") -> None:
        """A table of the answer; columns whose name begins with > are set to the right."""
        if not self._speaks:
            return
        made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column in columns:
            made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left")
        for row in rows:
            made.add_row(*(escape(str(cell)) for cell in row))
        self._out.print(made)

    def warn(self, text: str) -> None:
        """A warning, to stderr, always."""
        self._err.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True)

    def json(self, data: Mapping[str, Any]) -> None:
        """The answer as JSON, where it was asked for."""
        if self._json_to is None:
            return
        text = json.dumps(data, indent=1, default=str)
        if self._json_to == "-":
            sys.stdout.write(text + "\n")
            return
        with atomic_path(self._json_to) as temporary:
            temporary.write_text(text + "\n", "utf-8")

    @contextmanager
    def progress(self, label: str = "") -> Iterator[tuple[Tell, Say]]:
        """A bar on stderr: (stage, step, steps) moves it, a line of text names a long step. Gone when it is done."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(30), TimeElapsedColumn())
        shown = not self._quiet and self._err.is_terminal
        with Progress(*columns, console=self._err, transient=True, disable=not shown) as bar:
            task = bar.add_task(escape(label), total=None)

            def tell(stage: str, step: int, steps: int) -> None:
                name = f"{label} {STEPS.get(stage, stage)}".strip()
                bar.update(task, description=escape(name), completed=step, total=steps if steps > 1 else None)

            def say(text: str) -> None:
                bar.update(task, description=escape(text), completed=0, total=None)

            yield tell, say
