"""Weights that ``torch.save`` wrote beside the name of one of our architectures, read without torch and without code.

torch.save({"voxelrt.architecture": "mlp", "voxelrt.arguments": {"widths": [5, 7, 3]}, "state_dict": {...}}, path)
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

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
            if not isinstance(name, str):
                raise ModelError(f"{path.name}: a name in the state dict is no text")
            if not isinstance(place, TensorPlace):
                raise ModelError(f"{path.name}: {name[:80]!r} in the state dict is no tensor")
            tensors[name] = checkpoint.tensor(place, name)
        arguments = _as_json(content.get(ARGUMENTS, {}), path)
    return network_of(path.name, architecture, arguments, tensors)


def _as_json(value: Any, path: Path) -> Any:
    """The arguments as the other formats have them: a pickle can nest deeper, and hold what has no text."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{path.name}: {ARGUMENTS!r} holds other things than numbers, texts and lists") from error
