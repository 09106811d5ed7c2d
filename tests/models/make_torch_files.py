"""Write ``data/torch.npz``, small files of PyTorch and its answers: ``python -m tests.models.make_torch_files``.

Needs ``pip install torch==2.13.0``. Holds for each file its bytes, an input and torch's output.
"""

from __future__ import annotations

import io
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


def main() -> None:
    """See the module's text."""
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
    np.savez_compressed(Path(__file__).parent / "data" / "torch.npz", **stored)


if __name__ == "__main__":
    main()
