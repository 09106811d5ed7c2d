"""A run's model rows as a picture: every round's time, not only the medians."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.peers import SUBJECT


def draw(run: Mapping[str, Any], path: Path) -> Path | None:
    """Write a PNG; None where there is nothing to draw.

    Raises
    ------
    ImportError
        matplotlib is not installed; it is a tool of the bench's own environment.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in run["models"] if any(c["times_s"] for c in row["contestants"].values())]
    if not rows:
        return None
    figure, axes = plt.subplots(len(rows), 1, figsize=(9, 1.0 + 2.2 * len(rows)), squeeze=False)
    for axis, row in zip(axes[:, 0], rows, strict=True):
        entries = [(name, c) for name, c in row["contestants"].items() if c["times_s"]]
        for place, (name, entry) in enumerate(reversed(entries)):
            colour = "tab:red" if name == SUBJECT else "tab:gray"
            axis.barh(place, entry["median_s"], color=colour, alpha=0.5)
            axis.plot(entry["times_s"], [place] * len(entry["times_s"]), "k.", markersize=3)
            axis.annotate(f" {entry['median_s']:.3g} s", (max(entry["times_s"]), place), va="center", fontsize=8)
        axis.set_yticks(range(len(entries)), [c["title"] for _, c in reversed(entries)], fontsize=8)
        axis.set_title(f"{row['row']}: {row['title']}", fontsize=9)
        axis.set_xlabel("seconds per window; dots are rounds, bars medians", fontsize=8)
        axis.margins(x=0.12)
        axis.set_xlim(left=0)
    machine = run["machine"]
    figure.suptitle(
        f"{machine['processor']}, {machine['threads']} threads, commit {run['revision']['commit'][:10]}", fontsize=9
    )
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
