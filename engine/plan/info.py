"""What a plan says of itself: where each node runs, how far its answers are from the network's, how it was made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from voxelrt.errors import PlanError


@dataclass(frozen=True)
class Placement:
    """Where a node of the graph runs: backend, kernel or reason."""

    node: str
    op: str
    backend: str
    why: str = ""


@dataclass
class ParityLine:
    """One line of the parity report."""

    name: str  # import | plan | labels
    status: str  # "measured on N inputs", "not independent", "pending", "not applicable"
    against: str = ""
    relative: float | None = None  # the largest ‖e‖/‖ref‖
    maximum: float | None = None
    tolerance: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class PlanInfo:
    """What a plan knows about itself; the META section as data."""

    name: str
    precision: str
    source: dict[str, Any]  # format, hashes of graph and weights, notes of the importer
    placements: list[Placement]
    parity: list[ParityLine]
    settings: dict[str, Any]  # shapes, constants' names, fallback
    recipe: str = ""  # TOML text, so that a plan is self-contained
    model_settings: dict[str, Any] | None = None  # of an nnU-Net model, see models/nnunet_settings.py

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> PlanInfo:
        """Raises PlanError where the section is not what it should be."""
        try:
            raw = json.loads(data)
            raw["placements"] = [Placement(**p) for p in raw["placements"]]
            raw["parity"] = [ParityLine(**p) for p in raw["parity"]]
            return cls(**raw)
        except (ValueError, TypeError, KeyError) as error:
            raise PlanError("the plan is damaged: its description is not what this version writes") from error
