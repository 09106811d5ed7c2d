"""A network in int8 or fp8: calibrated on a user's own inputs, written with QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError, UsageError
from voxelrt.graph.passes import quantize_convolutions
from voxelrt.graph.quantised import quantised_convolution
from voxelrt.graph.specialise import specialise
from voxelrt.models.load import Model
from voxelrt.plan.calibration import calibrate

if TYPE_CHECKING:
    from voxelrt.plan.plan import Plan

Array = NDArray[Any]
Inputs = Mapping[str, Array]
Compile = Callable[..., "Plan"]


def quantised(
    model: Model,
    compile_exactly: Compile,
    shapes: Mapping[str, Sequence[int]],
    constants: Mapping[str, Array],
    calibration: Sequence[Inputs],
    method: str,
    form: str = quantize_convolutions.INT8,
) -> Model:
    """The model with its convolutions quantised; one that is quantised already stays as it is.

    Parameters
    ----------
    compile_exactly : compiles the model in float32, without measuring it.
    shapes, constants : as for compile; the result is of these shapes alone.
    calibration : inputs as the network takes them. method : see ``calibrate``.
    form : of the codes, ``int8`` or ``fp8``.

    Raises
    ------
    UsageError : no inputs to calibrate on, or no convolution to quantise.
    """
    graph = specialise(model.graph, shapes, constants)
    if any(quantised_convolution(node) is not None for node in graph.graph):
        return model
    if not calibration:
        raise UsageError(f"{form} needs inputs to calibrate on: give real ones as calibration= (--calibration PATH)")
    names = sorted({str(node.inputs[0].name) for node in quantize_convolutions.candidates(graph) if node.inputs[0]})
    if not names:
        raise UsageError("this network has no convolution that could be quantised: choose another precision")
    exact = compile_exactly(replace(model, graph=graph, parts=()))
    steps = calibrate(exact, calibration, names, method)
    return replace(model, graph=quantize_convolutions.run(graph, steps, form))


def read_calibration(paths: Sequence[Path], model: Model, compile_exactly: Compile) -> list[Inputs]:
    """Inputs from files: .npz by names, .npy for a network with one input, else studies, where a recipe says how.

    Raises
    ------
    InputError : a file that cannot be read. UsageError : a study, but no recipe.
    """
    found: list[Inputs] = []
    plan: Plan | None = None
    for path in paths:
        if path.suffix in (".npy", ".npz"):
            try:
                loaded = np.load(path, allow_pickle=False)
                names = [str(v.name) for v in model.graph.graph.inputs]
                found.append(dict(loaded) if path.suffix == ".npz" else {names[0]: loaded})
            except (OSError, ValueError) as error:
                raise InputError(f"{path.name!r} cannot be read as a NumPy file: {error}") from error
            continue
        if model.recipe is None:
            raise UsageError(f"{path.name!r}: without a recipe only .npy and .npz files can be calibrated on")
        from voxelrt.pipeline import prepare  # compile is imported by the pipeline
        from voxelrt.request import Request

        plan = plan or compile_exactly(model)
        found.append({model.recipe.input.name: prepare(plan, Request(path), lambda stage, step, steps: None).tensor})
    return found
