"""The modes' codes in plans: their places here, which are those of cpu.cpp."""

from __future__ import annotations

MODES = ("constant", "edge", "reflect", "wrap")
