"""The reductions' codes in plans: their places here, which are those of joins.h."""

from __future__ import annotations

REDUCTIONS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
