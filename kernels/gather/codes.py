"""The reductions of scatters and their codes in plans: their places here, which are those of scatter.h."""

from __future__ import annotations

REDUCTIONS = ("none", "add", "mul", "max", "min")
