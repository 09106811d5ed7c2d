"""The modes' and paddings' codes in plans: their places here, which are those of position.h."""

from __future__ import annotations

MODES = ("nearest", "linear", "bspline", "keys", "vote")
PADDINGS = ("zeros", "border", "reflect", "reflect_edges", "border_edges", "zeros_edges")
