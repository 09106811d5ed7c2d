"""Networks built from random plans of nnU-Net answer as torch's own do."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import voxelrt as vx
from tests.models.nnunet_networks import Described, described, weight
from voxelrt.errors import UnsupportedError
from voxelrt.kernels.common.kernel import compare
from voxelrt.models.formats.nnunet_network import network
from voxelrt.models.formats.nnunet_plans import Fields, architecture

STORED = Path(__file__).parent / "data" / "nnunet_networks.npz"


def _ours(given: Described, shapes: Mapping[str, Any]) -> NDArray[Any]:
    def get(name: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
        del shape
        return weight(name, tuple(shapes[name])) if name in shapes else None

    kind = architecture(Fields(given.config, "plans"), len(given.patch))
    model = network(kind, [get], given.channels, given.outputs, given.patch)
    plan = vx.compile(model, fallback="error", tune="off", verify=False)
    made: NDArray[Any] = plan.run({"image": given.image()})["logits"]
    return made


@pytest.mark.parametrize("seed", range(16))
def test_stored_answers_of_torch(seed: int) -> None:
    with np.load(STORED) as stored:
        logits, shapes = stored[f"{seed}.logits"], json.loads(str(stored[f"{seed}.shapes"]))
    assert compare(_ours(described(random.Random(seed)), shapes), logits).relative < 5e-5


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_any_plans_answer_as_torch(rng: random.Random) -> None:
    pytest.importorskip("nnunetv2", reason="needs nnunetv2 and torch")
    from tests.models.nnunet_torch import answer  # torch is an extra

    given = described(rng)
    logits, shapes = answer(given)
    assert compare(_ours(given, shapes), logits).relative < 5e-5


def test_what_a_network_of_another_make_says_is_refused() -> None:
    config = described(random.Random(1)).config
    config["architecture"]["arch_kwargs"]["nonlin_first"] = True
    with pytest.raises(UnsupportedError, match="nonlin_first"):
        architecture(Fields(config, "plans"), 3)
