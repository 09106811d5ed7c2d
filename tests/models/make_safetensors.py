"""Write ``data/peer.safetensors`` with the safetensors package 0.8.0: ``python -m tests.models.make_safetensors``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from voxelrt.models.architectures import dense, named

ARGUMENTS = '{"widths": [5, 7, 3], "batch": 2}'


def main() -> None:
    """See the module's text."""
    tensors = named.parameters_of(dense.build_mlp((5, 7, 3), batch=2, seed=11))
    metadata = {"voxelrt.architecture": "mlp", "voxelrt.arguments": ARGUMENTS, "format": "np"}
    path = Path(__file__).parent / "data" / "peer.safetensors"
    save_file({n: np.ascontiguousarray(a) for n, a in tensors.items()}, path, metadata)


if __name__ == "__main__":
    main()
