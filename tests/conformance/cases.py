"""The ONNX backend tests as cases: a model, inputs and expected outputs by name, and which inputs are constants.

A plan is compiled for fixed shapes. Node tests hand everything to an operator as a graph input, also what determines
shapes (the target of a Reshape, the starts of a Slice); in a trained network those are constants or follow from shapes.
``SHAPE_INPUTS`` says which inputs of which operator are given to ``compile`` as ``constants``; all others stay run-time
inputs. The expanded form of a test (``…_expanded``: the operator as its function body) takes its test's own choice.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")

REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    **{f"Reduce{name}": (1,) for name in REDUCTIONS},  # axes
    # Weights: a plan packs them when it is compiled.
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "BatchNormalization": (1, 2, 3, 4),
    "GRU": (1, 2, 3),
    "LSTM": (1, 2, 3, 7),
    "RNN": (1, 2, 3),
    "AffineGrid": (1,),  # size
    "BlackmanWindow": (0,),  # size
    "CenterCropPad": (1,),  # shape
    "Col2Im": (1, 2),  # image shape, block shape
    "ConstantOfShape": (0,),  # shape
    "CumProd": (1,),  # axis
    "CumSum": (1,),  # axis
    "DFT": (1, 2),  # length, axis
    "Dropout": (1, 2),  # ratio, training mode
    "Expand": (1,),  # shape
    "HammingWindow": (0,),  # size
    "HannWindow": (0,),  # size
    "MaxUnpool": (2,),  # output shape
    "MelWeightMatrix": (0, 1, 2, 3, 4),  # bins, length, rate, edges
    "OneHot": (1,),  # depth
    "Pad": (1, 3),  # pads, axes
    "Range": (0, 1, 2),  # start, limit, delta
    "Reshape": (1,),  # shape
    "Resize": (1, 2, 3),  # region, scales, sizes
    "STFT": (1, 3),  # frame step, frame length
    "Slice": (1, 2, 3, 4),  # starts, ends, axes, steps
    "Split": (1,),  # split
    "SplitToSequence": (1,),  # split
    "Squeeze": (1,),  # axes
    "TensorScatter": (),
    "Tile": (1,),  # repeats
    "TopK": (1,),  # k
    "Trilu": (1,),  # k
    "Unsqueeze": (1,),  # axes
    "Upsample": (1,),  # scales
}


@dataclass(frozen=True)
class Case:
    """One test. ``name`` is ``kind/test_name``; values are arrays, lists (sequences) or None (empty optionals)."""

    name: str
    model: bytes
    data: tuple[tuple[dict[str, Any], dict[str, Any]], ...]
    constant_names: tuple[str, ...]
    op: str
    rtol: float
    atol: float

    @property
    def constants(self) -> dict[str, Any]:
        """The inputs that ``compile`` gets."""
        return {name: self.data[0][0][name] for name in self.constant_names if name in self.data[0][0]}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the other inputs, as far as they are tensors."""
        inputs = self.data[0][0]
        return {n: v.shape for n, v in inputs.items() if n not in self.constant_names and hasattr(v, "shape")}

    def runtime(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs that ``run`` gets."""
        return {n: v for n, v in inputs.items() if n not in self.constant_names}


@functools.cache
def cases() -> dict[str, Case]:
    """All cases by name, in the order of the ONNX package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = [(kind, test) for kind in KINDS for test in sorted(load_model_tests(kind=kind), key=lambda t: t.name)]
    found: dict[str, Case] = {}
    for kind, test in tests:
        found[f"{kind}/{test.name}"] = _case(kind, test)
    for name, case in found.items():
        original = found.get(name.removesuffix("_expanded").removesuffix("_expanded_ver18"))
        if original is not None and original is not case:
            inputs = set(case.data[0][0]) if case.data else set()
            names = tuple(n for n in original.constant_names if n in inputs)
            found[name] = Case(name, case.model, case.data, names, original.op, case.rtol, case.atol)
    return found


def _case(kind: str, test: TestCase) -> Case:
    model = test.model if test.model is not None else onnx.load(str(Path(test.model_dir or "") / "model.onnx"))
    given = [info for info in model.graph.input if info.name not in {t.name for t in model.graph.initializer}]
    if test.data_sets is not None:
        data = [([_value(v) for v in ins], [_value(v) for v in outs]) for ins, outs in test.data_sets]
    else:
        folders = sorted(Path(test.model_dir or "").glob("test_data_set_*"))
        data = [(_stored(f, "input", given), _stored(f, "output", model.graph.output)) for f in folders]
    named = tuple(
        (
            {info.name: value for info, value in zip(given, inputs, strict=False)},
            {info.name: value for info, value in zip(model.graph.output, outputs, strict=False)},
        )
        for inputs, outputs in data
    )
    names = {info.name for info in given}
    constants = tuple(
        node.input[index]
        for node in model.graph.node
        for index in SHAPE_INPUTS.get(node.op_type, ())
        if not node.domain
        if index < len(node.input) and node.input[index] in names
    )
    ops = [node.op_type for node in model.graph.node]
    op = ops[0] if len(set(ops)) == 1 else "several"
    return Case(f"{kind}/{test.name}", model.SerializeToString(), named, constants, op, test.rtol, test.atol)


def _stored(folder: Path, stem: str, infos: Any) -> list[Any]:
    kinds = {
        "tensor_type": onnx.TensorProto,
        "sequence_type": onnx.SequenceProto,
        "optional_type": onnx.OptionalProto,
    }
    values = []
    for index, info in enumerate(infos):
        path = folder / f"{stem}_{index}.pb"
        if path.exists():
            proto = kinds[info.type.WhichOneof("value")]()
            proto.ParseFromString(path.read_bytes())
            values.append(_value(proto))
    return values


def _value(item: Any) -> Any:
    if isinstance(item, onnx.TensorProto):
        return numpy_helper.to_array(item)
    if isinstance(item, onnx.SequenceProto):
        return numpy_helper.to_list(item)
    if isinstance(item, onnx.OptionalProto):
        return numpy_helper.to_optional(item)
    return item
