"""Write ``data/torch.npz`` and ``data/weights.pth``, small files of PyTorch and its answers.

``python -m tests.models.make_torch_files``, or with ``weights`` the second alone. Needs ``pip install torch==2.13.0``.
The first holds for each file its bytes, an input and torch's output; the second has both beside its state dict.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Small(nn.Module):
    """A 3-D convolution, a norm, a gate, and logits for every voxel: an answer that hides no rounding in a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm3d(4)
        self.gate = nn.Conv3d(4, 4, 1)
        self.head = nn.Conv3d(4, 2, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(image)))
        x = x * torch.sigmoid(self.gate(x))
        return self.head(x)


DATA = Path(__file__).parent / "data"


def weights() -> None:
    """Weights by the names of our ``mlp``, whose matrices are (inputs, outputs)."""
    torch.manual_seed(3)
    first, second = nn.Linear(5, 7), nn.Linear(7, 3)
    x = torch.randn(2, 5)
    with torch.no_grad():
        y = second(torch.relu(first(x)))
    named = {"linear_1": first, "linear_2": second}
    state = {f"{name}.weight": layer.weight.detach().T.contiguous() for name, layer in named.items()}
    state |= {f"{name}.bias": layer.bias.detach() for name, layer in named.items()}
    whose = {"voxelrt.architecture": "mlp", "voxelrt.arguments": {"widths": (5, 7, 3), "batch": 2}}
    torch.save({**whose, "state_dict": state, "input": x, "output": y}, DATA / "weights.pth")


def main() -> None:
    """See the module's text."""
    weights()
    if sys.argv[1:] == ["weights"]:
        return
    torch.manual_seed(0)
    module = Small().eval()
    module.norm.running_mean.normal_()
    image = torch.randn(1, 1, 6, 7, 8)
    stored: dict[str, np.ndarray] = {"input": image.numpy(), "output": module(image).detach().numpy()}
    stream = io.BytesIO()
    torch.export.save(torch.export.export(module, (image,)), stream)
    stored["pt2"] = np.frombuffer(stream.getvalue(), np.uint8)
    batch = torch.export.Dim("batch", min=1, max=8)
    stream = io.BytesIO()
    torch.export.save(torch.export.export(module, (image.repeat(2, 1, 1, 1, 1),), dynamic_shapes=({0: batch},)), stream)
    stored["pt2_open_batch"] = np.frombuffer(stream.getvalue(), np.uint8)
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, image), stream)
    stored["torchscript"] = np.frombuffer(stream.getvalue(), np.uint8)
    stream = io.BytesIO()
    torch.save(module.state_dict(), stream)
    stored["state_dict"] = np.frombuffer(stream.getvalue(), np.uint8)
    np.savez_compressed(DATA / "torch.npz", **stored)


if __name__ == "__main__":
    main()
