"""A network in int8 or fp8: calibrated on a user's own inputs, written with QuantizeLinear and DequantizeLinear.

In int8 a network that gives labels keeps them: what it is too sensitive to round stays float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import InputError, UsageError
from voxelrt.graph.passes import quantize_convolutions
from voxelrt.graph.quantised import quantised_convolution
from voxelrt.graph.specialise import specialise
from voxelrt.models.load import Model
from voxelrt.plan.calibration import calibrate
from voxelrt.plan.parity import label_agreement, labels_of

if TYPE_CHECKING:
    from voxelrt.plan.plan import Plan

Array = NDArray[Any]
Inputs = Mapping[str, Array]
Compile = Callable[..., "Plan"]
LEAST_DICE = 0.9975  # on what is calibrated on: other inputs may lose as much again and be within 0.005 of float32


def quantised(
    model: Model,
    compile_exactly: Compile,
    shapes: Mapping[str, Sequence[int]],
    constants: Mapping[str, Array],
    calibration: Sequence[Inputs],
    method: str,
    form: str = quantize_convolutions.INT8,
    progress: Callable[[str], None] | None = None,
) -> Model:
    """The model with its convolutions quantised; one that is quantised already stays as it is.

    Parameters
    ----------
    compile_exactly : compiles the model in float32, without measuring it.
    shapes, constants : as for compile; the result is of these shapes alone.
    calibration : inputs as the network takes them. method : see ``calibrate``.
    form : of the codes, ``int8`` or ``fp8``.
    progress : called with a line of text before each long step.

    Raises
    ------
    UsageError : no inputs to calibrate on, or no convolution to quantise with the labels kept.
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
    if form != quantize_convolutions.INT8 or not model.is_segmentation:
        return replace(model, graph=quantize_convolutions.run(graph, steps, form))
    taken, kept = _mixed(model, graph, exact, steps, calibration, compile_exactly, progress)
    source = {**model.source, "int8": {"left in float32": sorted(set(steps) - set(taken)), "dice": kept}}
    return replace(model, graph=quantize_convolutions.run(graph, taken), source=source)


def _mixed(
    model: Model,
    graph: ir.Model,
    exact: Plan,
    steps: Mapping[str, float],
    inputs: Sequence[Inputs],
    compile_exactly: Compile,
    progress: Callable[[str], None] | None,
) -> tuple[dict[str, float], float]:
    """The values to round such that labels stay, and the least Dice then: the most sensitive ones are left.

    How sensitive the network is to each value is what rounding it alone does to the output. Then the longest run of
    the least sensitive ones is found whose rounding keeps every class.

    Raises
    ------
    UsageError : not one can be rounded.
    """
    say = progress or (lambda text: None)
    answers = [exact.run(one) for one in inputs]
    name = next(iter(answers[0]))

    def rounded(values: Sequence[str]) -> Iterator[tuple[Array, Array]]:
        some = quantize_convolutions.run(graph.clone(), {value: steps[value] for value in values})
        plan = compile_exactly(replace(model, graph=some, parts=()))
        for one, answer in zip(inputs, answers, strict=True):
            yield plan.run(one)[name], answer[name]

    def error(value: str) -> float:
        say(f"rounding {value} alone")
        answer, expected = next(rounded([value]))
        return float(np.linalg.norm((answer - expected).ravel()))

    def overlap(count: int) -> float:
        say(f"rounding {count} of {len(ordered)} values")
        return min(_least_dice(model, *pair) for pair in rounded(ordered[:count]))

    ordered = sorted(steps, key=error)
    low, high, found = 0, len(ordered), 1.0
    while low < high:
        middle = (low + high + 1) // 2
        reached = overlap(middle)
        if reached >= LEAST_DICE:
            low, found = middle, reached
        else:
            high = middle - 1
    if low == 0:
        raise UsageError(
            f"no convolution of this network can be computed in int8 with its labels kept (Dice {LEAST_DICE:g} on what "
            "it was calibrated on): choose another precision"
        )
    return {value: steps[value] for value in ordered[:low]}, found


def _least_dice(model: Model, answer: Array, expected: Array) -> float:
    both = [labels_of(array, model.threshold, model.channel_axis) for array in (answer, expected)]
    return min(label_agreement(*both)["dice"].values(), default=1.0)


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
