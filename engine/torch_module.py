"""A plan in the place of a torch network: for MONAI's inferers, nnU-Net's predictor, whatever calls a module."""

from __future__ import annotations

import importlib.util
from typing import Any

from voxelrt.errors import MissingExtraError, UsageError
from voxelrt.plan.plan import Plan


def torch_module(plan: Plan) -> Any:
    """A ``torch.nn.Module`` that runs a plan.

    It has no parameters: ``to``, ``eval`` and ``load_state_dict({})`` do nothing, and there are no gradients. In
    nnU-Net's predictor::

        predictor.network = voxelrt.torch_module(plan)
        predictor.list_of_parameters = [{}]  # the plan holds its folds already

    Parameters
    ----------
    plan : of one input and one output; compiled for the shapes, and the batches, that it will be called with.

    Returns
    -------
    module : called with a contiguous float32 tensor on the CPU, of the plan's input shape; answers with a tensor.

    Raises
    ------
    MissingExtraError : torch is not installed. UsageError : a plan of several inputs or outputs.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "torch", "standing in for a torch network")
    if len(plan.inputs) != 1 or len(plan.outputs) != 1:
        names = ", ".join(io.name for io in (*plan.inputs, *plan.outputs))
        raise UsageError(f"a module stands for a plan of one input and one output; this one has {names}")
    import torch

    class PlanModule(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.plan = plan

        def forward(self, x: Any) -> Any:
            if x.device.type != "cpu":
                raise UsageError(f"the plan runs on the CPU; the tensor is on {x.device}")
            return self.plan(x.detach().to(torch.float32).contiguous())

    return PlanModule()
