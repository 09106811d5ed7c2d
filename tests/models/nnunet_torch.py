"""Random networks of nnU-Net in torch; needs torch and nnunetv2."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from numpy.typing import NDArray

from tests.models.nnunet_networks import Described, weight


def answer(network: Described) -> tuple[NDArray[Any], dict[str, tuple[int, ...]]]:
    """The logits of nnU-Net's own network in double precision, and the shapes of its weights by name."""
    described = network.config["architecture"]
    built = get_network_from_plans(
        described["network_class_name"],
        described["arch_kwargs"],
        described["_kw_requires_import"],
        network.channels,
        network.outputs,
        allow_init=False,
        deep_supervision=False,
    )
    # Not from its state, which holds the same weight under several names.
    weights = {
        name: value for name, value in (*built.named_parameters(), *built.named_buffers()) if value.is_floating_point()
    }
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    with torch.no_grad():
        for name, value in weights.items():
            value.copy_(torch.from_numpy(weight(name, shapes[name])))
        built.eval().double()
        logits = built(torch.from_numpy(network.image()).double())
    return logits.numpy().astype(np.float32), shapes
