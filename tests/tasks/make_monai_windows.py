"""Write tests/tasks/data/monai_windows.npz: what MONAI's sliding_window_inference answers, mode by mode.

Needs torch and monai: python -m tests.tasks.make_monai_windows
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

PLACE = Path(__file__).parent / "data" / "monai_windows.npz"
# name -> size of the study, roi, and MONAI's options.
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "constant": ((11, 13, 15), (6, 6, 6), {"overlap": 0.25, "mode": "constant"}),
    "gaussian": ((11, 13, 15), (6, 6, 6), {"overlap": 0.5, "mode": "gaussian"}),
    "each-axis": ((11, 13, 15), (6, 5, 8), {"overlap": (0.0, 0.3, 0.8), "mode": "gaussian"}),
    "sigma": ((11, 13, 15), (6, 5, 8), {"overlap": 0.5, "mode": "gaussian", "sigma_scale": (0.05, 0.125, 0.4)}),
    "padded": ((4, 13, 5), (6, 6, 6), {"overlap": 0.25, "mode": "gaussian", "padding_mode": "constant", "cval": 1.5}),
    "reflected": ((5, 13, 5), (6, 6, 8), {"overlap": 0.25, "mode": "constant", "padding_mode": "reflect"}),
    "replicated": ((1, 13, 4), (6, 6, 9), {"overlap": 0.25, "mode": "constant", "padding_mode": "replicate"}),
    "circular": ((4, 13, 5), (6, 6, 8), {"overlap": 0.25, "mode": "constant", "padding_mode": "circular"}),
    "planes": ((3, 13, 15), (6, 8), {"overlap": (0.5, 0.25), "mode": "gaussian"}),
    "one-window": ((6, 6, 6), (6, 6, 6), {"overlap": 0.9, "mode": "gaussian"}),
}


def study_of(name: str) -> np.ndarray:
    """(1, Z, Y, X) float32."""
    size = CASES[name][0]
    return np.random.default_rng(len(name) + size[0]).normal(size=(1, *size)).astype(np.float32)


def network(axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a convolution padded with zeros; a ReLU follows. So a voxel's answer depends on its window."""
    rng = np.random.default_rng(axes)
    return rng.normal(size=(2, 1, *(3,) * axes)).astype(np.float32), np.array([0.5, -0.5], np.float32)


def main() -> None:
    """Ask MONAI."""
    import torch
    from monai.inferers import sliding_window_inference

    answers = {}
    for name, (_, roi, options) in CASES.items():
        axes = len(roi)
        weight, bias = (torch.from_numpy(part) for part in network(axes))
        conv = torch.nn.functional.conv3d if axes == 3 else torch.nn.functional.conv2d

        def predictor(x: Any, conv: Any = conv, weight: Any = weight, bias: Any = bias) -> Any:
            return torch.relu(conv(x, weight, bias, padding=1))

        given = torch.from_numpy(study_of(name))
        # Planes are samples of a batch to a network of two axes.
        batch = given[None] if axes == 3 else given.transpose(0, 1)
        made = sliding_window_inference(batch, roi, 1, predictor, **options)
        answers[name] = made[0].numpy() if axes == 3 else made.transpose(0, 1).numpy()
    PLACE.parent.mkdir(exist_ok=True)
    np.savez_compressed(PLACE, **answers)


if __name__ == "__main__":
    main()
