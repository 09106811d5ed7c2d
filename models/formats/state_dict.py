"""Weights that ``torch.save`` wrote beside the name of one of our architectures, read without torch and without code.

torch.save({"voxelrt.architecture": "mlp", "voxelrt.arguments": {"widths": [5, 7, 3]}, "state_dict": {...}}, path)
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import onnx_ir as ir

from voxelrt.errors import ModelError
from voxelrt.models.architectures import named
from voxelrt.models.formats.safetensors import ARCHITECTURE, ARGUMENTS, network_of
from voxelrt.models.formats.torch_checkpoint import DAMAGE, Checkpoint, TensorPlace

SUFFIXES = (".pth", ".pt", ".ckpt")


def is_state_dict(path: Path) -> bool:
    """Whether a file is an archive of pickled tensors: TorchScript's has constants and code as well."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, *DAMAGE):
        return False
    return path.suffix in SUFFIXES and "data.pkl" in parts and "constants.pkl" not in parts


def load_state_dict(path: Path) -> ir.Model:
    """The network that a file names, with its weights.

    Raises
    ------
    ModelError : damaged; no architecture named, or one that these tensors do not fit; what is not a tensor among them.
    """
    with Checkpoint(path) as checkpoint:
        content = checkpoint.content if isinstance(checkpoint.content, dict) else {}
        architecture, weights = content.get(ARCHITECTURE), content.get("state_dict")
        if not isinstance(architecture, str) or not isinstance(weights, dict):
            raise ModelError(
                f"{path.name} holds weights and does not say of which network: it needs {ARCHITECTURE!r} (one of "
                f"{', '.join(named.ARCHITECTURES)}), {ARGUMENTS!r} and 'state_dict'. Save the module of another "
                "network with torch.export.save (.pt2), or export it to ONNX"
            )
        tensors = {}
        for name, place in weights.items():
            if not isinstance(name, str) or not isinstance(place, TensorPlace):
                raise ModelError(f"{path.name}: {str(name)[:80]!r} in the state dict is no tensor")
            tensors[name] = checkpoint.tensor(place, name)
        given = content.get(ARGUMENTS, {})
        arguments = (
            {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()} if isinstance(given, dict) else given
        )
    return network_of(path.name, architecture, arguments, tensors)
