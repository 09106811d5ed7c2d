"""Write tests/models/data/nnunet_networks.npz: what torch answers for random networks of nnU-Net.

Run in an environment with torch==2.13.0 and nnunetv2==2.8.1:

    python tests/models/make_nnunet_networks.py

``names`` and ``shapes`` are those of each network's weights, whose values ``nnunet_networks.weight`` gives.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np

from tests.models.nnunet_networks import described
from tests.models.nnunet_torch import answer

SEEDS = range(16)


def main() -> None:
    kept = {}
    for seed in SEEDS:
        network = described(random.Random(seed))
        logits, shapes = answer(network)
        kept[f"{seed}.logits"] = logits
        kept[f"{seed}.shapes"] = np.array(json.dumps(shapes))
        kinds = network.config["architecture"]["arch_kwargs"]
        print(seed, network.patch, kinds["n_stages"], kinds["norm_op"], logits.shape, float(np.abs(logits).max()))
    target = Path(__file__).parent / "data" / "nnunet_networks.npz"
    np.savez_compressed(target, **kept)
    print(f"wrote {target.name}, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
