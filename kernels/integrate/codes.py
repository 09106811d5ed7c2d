"""The paddings' codes in plans: their places here, which are those of warp3d/position.h."""

from __future__ import annotations

PADDINGS = ("zeros", "border")
