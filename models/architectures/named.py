"""The architectures by name: built from arguments that a file gives, with the weights that a file gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import UsageError
from voxelrt.models.architectures import classifiers, dense, recurrent, tasks, unet3d, volumes

ARCHITECTURES: dict[str, Callable[..., ir.Model]] = {
    "attention_pooling": dense.build_attention_pooling,
    "autoencoder": dense.build_autoencoder,
    "autoencoder3d": tasks.build_autoencoder3d,
    "cine": tasks.build_cine,
    "classifier3d": tasks.build_classifier3d,
    "conv_lstm": recurrent.build_conv_lstm,
    "convnext": classifiers.build_convnext,
    "deformable_registration": volumes.build_deformable_registration,
    "densenet": classifiers.build_densenet,
    "detector3d": tasks.build_detector3d,
    "dncnn3d": volumes.build_dncnn3d,
    "efficientnet": classifiers.build_efficientnet,
    "hierarchical_lstm": recurrent.build_hierarchical_lstm,
    "mdlstm": recurrent.build_mdlstm,
    "mlp": dense.build_mlp,
    "patch_denoiser": dense.build_patch_denoiser,
    "registration": volumes.build_registration,
    "resnet": classifiers.build_resnet,
    "unet3d": unet3d.build_unet3d,
    "window_attention": volumes.build_window_attention,
}


def build_seeded(name: str, arguments: Mapping[str, Any]) -> ir.Model:
    """Build an architecture with drawn weights; the same arguments, ``seed`` among them, give the same bytes.

    Raises
    ------
    UsageError : no such architecture or argument, or a value of another kind.
    """
    function = _known(name)
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()}
    seed = given.pop("seed", 0)
    _check_arguments(name, function, given)
    if type(seed) is not int or seed < 0:
        raise UsageError(f"{name}: seed is {str(seed)[:60]}; it is a whole number")
    return function(**given, seed=seed)


def parameters_of(model: ir.Model) -> dict[str, NDArray[Any]]:
    """The weights of one of these networks by name: what ``build`` takes."""
    floats = {n: v.const_value for n, v in model.graph.initializers.items() if v.dtype == ir.DataType.FLOAT}
    return {n: tensor.numpy() for n, tensor in floats.items() if tensor is not None and not n.startswith("constant_")}


def build(name: str, arguments: Any, parameters: Mapping[str, NDArray[Any]]) -> ir.Model:
    """Build an architecture from data: nothing is drawn, and every weight is one of ``parameters``.

    Parameters
    ----------
    name : one of ``ARCHITECTURES``.
    arguments : by name, as JSON has them: whole numbers, texts, booleans, lists of numbers.
    parameters : weights by name; all of them are used.

    Raises
    ------
    UsageError : no such architecture or argument, or weights that are missing, of another shape, or left over.
    """
    function = _known(name)
    if not isinstance(arguments, dict):
        raise UsageError(f"the arguments of {name} are an object of names and values")
    _check_arguments(name, function, arguments)
    model = function(**arguments, parameters=parameters)
    left = sorted(set(parameters) - set(parameters_of(model)))
    if left:
        raise UsageError(f"{name} has no weights named {', '.join(left[:5])}{' …' if len(left) > 5 else ''}")
    return model


def _known(name: str) -> Callable[..., ir.Model]:
    if name not in ARCHITECTURES:
        raise UsageError(f"architecture {name[:40]!r} is unknown; choose from {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def _check_arguments(name: str, function: Callable[..., ir.Model], arguments: Mapping[str, Any]) -> None:
    known = inspect.signature(function).parameters
    for key, value in arguments.items():
        if key not in known or key in ("seed", "parameters"):
            choices = ", ".join(k for k in known if k not in ("seed", "parameters"))
            raise UsageError(f"{name} has no argument {key[:40]!r}; it has {choices}")
        if not _alike(value, known[key].default):
            raise UsageError(f"{name}: {key} is {str(value)[:60]}; it is written like {known[key].default!r}")


def _alike(value: Any, default: Any) -> bool:
    """Whether a JSON value is of the kind of an argument's default."""
    if isinstance(default, tuple):
        inner = default[0]
        return isinstance(value, list) and 0 < len(value) <= 1000 and all(_alike(item, inner) for item in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return type(value) is type(default) and (not isinstance(value, int) or 0 < value < 1 << 31)
