"""The head of a network, as a plan keeps it: what makes logits of features. ``graph/head.py`` finds it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import PlanError
from voxelrt.plan.schedule import Io

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Head:
    """A linear map of features to logits.

    Parameters
    ----------
    matrix : (classes, features + 1) float32; the last column is the bias.
    """

    matrix: Floats

    @property
    def features(self) -> int:
        return int(self.matrix.shape[1]) - 1

    def logits(self, features: Floats) -> Floats:
        """Features (F, ...) to logits (classes, ...)."""
        flat = self.matrix[:, :-1] @ features.reshape(self.features, -1)
        flat += self.matrix[:, -1:]
        made: Floats = flat.reshape(-1, *features.shape[1:])
        return made

    @classmethod
    def of(cls, section: NDArray[np.uint8], logits: Io, features: Io) -> Head:
        """The head in a section of a plan with these outputs. Raises PlanError where it does not fit them."""
        beside = [(*io.dims[:1], *io.dims[2:], io.batched) for io in (logits, features)]
        if beside[0] != beside[1] or len(logits.dims) != len(features.dims) or len(logits.dims) < 2:
            raise PlanError(f"the plan is damaged: features of {features.dims} beside logits of {logits.dims}")
        classes, narrow = logits.dims[1], features.dims[1]
        if section.size != 4 * classes * (narrow + 1):
            raise PlanError(f"the plan is damaged: size of the head of {narrow} features and {classes} classes")
        return cls(np.frombuffer(bytes(section), np.float32).reshape(classes, narrow + 1))
