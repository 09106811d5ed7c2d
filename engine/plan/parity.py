"""The parity report: how far a plan's answers are from the network's own, measured, in three lines.

*import*: the source framework's stored output against the imported graph. *plan*: the graph in ONNX Runtime, or in the
reference evaluator with our float64 oracles, against the plan. *labels*: the same on real input, as labels. The words
are "measured on N inputs", never more.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import ParityError
from voxelrt.graph.edit import constant_of, static_shape
from voxelrt.graph.passes import spell_domain
from voxelrt.graph.spec import OUR_DOMAIN
from voxelrt.kernels.common.kernel import compare
from voxelrt.plan.info import ParityLine

if TYPE_CHECKING:
    from voxelrt.plan.plan import Plan

Array = NDArray[Any]
Arrays = Mapping[str, Array]
# What is asked of int8 is labels; its tolerance is of the plan against the same quantised graph elsewhere: numbers
# that lie between two codes may go to either.
TOLERANCES = {"fp32": 5e-5, "tf32": 5e-3, "fp16": 5e-3, "bf16": 3e-2, "int8": 1e-1}
LABEL_AGREEMENT = {"fp32": 0.9999, "tf32": 0.999, "fp16": 0.999, "bf16": 0.99, "int8": 0.98}
DICE = 0.995  # of every class, for int8
# Where a network answers next to nothing (a probability of 1e-4 everywhere), ‖ref‖ is smaller than what float32 can
# resolve in the executor that serves as reference: an absolute error within one unit at 1.0 is then no departure.
ROUNDING = 2.0**-23


class ReferenceRunner:
    """The graph in another executor: ONNX Runtime where it is installed and the graph has a form in plain ONNX, else
    the ONNX reference evaluator."""

    def __init__(self, model: ir.Model) -> None:
        self.outputs = [str(v.name) for v in model.graph.outputs]
        plain = spell_domain.spells(model)
        if plain and importlib.util.find_spec("onnxruntime") is not None:
            model = spell_domain.run(model.clone())
            proto = ir.serde.serialize_model(model)
            from voxelrt.backends.onnxruntime import reference_session
            from voxelrt.plan.reference_norms import spell_norms

            values = (v for node in model.graph for v in node.inputs if v is not None and v.dtype == ir.DataType.FLOAT)
            spell_norms(proto, {str(v.name): static_shape(v) or () for v in values})
            self.name = "ONNX Runtime"
            self.share = 2.0  # it computes in float32 too: both may be a tolerance off, on either side
            self._run = reference_session(proto.SerializeToString())
        else:
            from voxelrt.plan.oracle_run import reference_evaluator

            self.name = "float64 oracles"
            self.share = 1.0
            self._run = reference_evaluator(ir.serde.serialize_model(model))

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Name -> array for all outputs."""
        return dict(zip(self.outputs, self._run(dict(inputs)), strict=True))


def sample_inputs(plan: Plan, model: ir.Model | None = None) -> list[dict[str, Array]]:
    """A smooth phantom and noise, for the inputs of the plan's first variant; none where some are no tensors.

    Inputs that branches of the model hang on get values that take each branch that can run.
    """
    deciding = _deciding(model.graph) if model is not None else {}
    if plan.host_inputs or deciding is None:
        return []
    rng = np.random.default_rng(20240)
    made = [{io.name: _sample(io.dims, io.dtype, kind, rng) for io in plan.inputs} for kind in ("phantom", "noise")]
    for index, sample in enumerate(made):
        for name, values in deciding.items():
            if name in sample:
                sample[name] = np.broadcast_to(values[index % len(values)], sample[name].shape).astype(
                    sample[name].dtype
                )
    return made


def _deciding(graph: ir.Graph) -> dict[str, list[Array]] | None:
    """Input -> values that take one branch, or each. None where a branch must not be taken and nobody knows how."""
    found: dict[str, list[Array]] = {}
    for node in graph:
        needed = node.op_type == "Require" and node.domain == OUR_DOMAIN
        if not needed and node.op_type != "Where":
            continue
        condition = node.inputs[1 if needed else 0]
        maker = condition.producer() if condition is not None else None
        constants = [constant_of(v) for v in maker.inputs] if maker is not None and maker.op_type == "Equal" else []
        given = next((v for v in maker.inputs if v is not None and v.is_graph_input()), None) if maker else None
        array = next((c for c in constants if c is not None and c.size == 1), None)
        if given is None or array is None:
            if needed:
                return None
            continue
        other = (array == 0).astype(array.dtype)
        wanted = node.attributes["wanted"].as_int() if needed else None
        both = [v for v, taken in ((array, 1), (other, 0)) if wanted in (None, taken)]
        known = [v for v in found.get(str(given.name), both) if any(np.array_equal(v, b) for b in both)]
        if not known:
            return None
        found[str(given.name)] = known
    return found


def _sample(dims: Sequence[int], dtype: int, kind: str, rng: np.random.Generator) -> Array:
    from voxelrt.kernels.common.capi import numpy_dtype

    target = numpy_dtype(dtype)
    if target.kind == "b":
        return rng.integers(0, 2, dims).astype(bool)
    if target.kind in "iu":
        return rng.integers(0, 2, dims).astype(target)
    if kind == "noise":
        return rng.random(dims).astype(target)
    axes = [np.linspace(-1, 1, max(1, d)) for d in dims[2:]] if len(dims) > 2 else [np.linspace(-1, 1, d) for d in dims]
    radius = sum(np.meshgrid(*[a**2 for a in axes], indexing="ij"), start=np.zeros(()))
    return np.broadcast_to(np.exp(-2.0 * np.asarray(radius)), dims).astype(target)


def measure_plan(plan: Plan, model: ir.Model, inputs: Sequence[Arrays], precision: str) -> ParityLine:
    """The *plan* line. Raises ParityError past the tolerance of the precision, naming the first node that departs."""
    if not inputs:
        return ParityLine(
            "plan", "not applicable", "no input was given, and inputs that are no tensors cannot be made up"
        )
    runner = ReferenceRunner(model)
    tolerance = TOLERANCES[precision] * runner.share
    line = ParityLine("plan", f"measured on {len(inputs)} inputs", runner.name, 0.0, 0.0, tolerance)
    for arrays in inputs:
        expected, answer = runner.run(arrays), plan.run(arrays)
        for name, reference in expected.items():
            if not isinstance(reference, np.ndarray) or reference.dtype.kind in "OSU":
                continue  # sequences and strings have no distance
            if np.shape(answer[name]) != reference.shape:  # a score beside its threshold may add or drop a find
                line.details.setdefault("other shape", []).append(name)
                continue
            difference = compare(answer[name], reference)
            counted = difference.relative if difference.maximum > ROUNDING else 0.0
            line.relative = max(line.relative or 0.0, counted)
            line.maximum = max(line.maximum or 0.0, difference.maximum)
            if counted > tolerance:
                where = first_departure(plan, model, arrays, tolerance)
                raise ParityError(
                    f"the plan's output {name!r} departs from {runner.name}: {difference}; {precision} allows "
                    f"{tolerance:g}. {where}"
                )
    return line


def check_trunk(plan: Plan, inputs: Arrays, precision: str) -> None:
    """The plan without its head, and the head of what it gives, against its own logits. Raises ParityError."""
    assert plan.trunk is not None
    output, head = plan.trunk
    (logits,) = plan.run(inputs).values()
    features = np.empty((len(logits), *output.dims[1:]), np.float32)
    plan.run(inputs, {output.name: features})
    for one, expected in zip(features, logits, strict=True):
        difference = compare(head.logits(one), expected)
        if difference.relative > TOLERANCES[precision]:
            raise ParityError(f"the plan without its head departs from the plan: {difference}")


def measure_import(plan: Plan, reference: Sequence[tuple[Arrays, Arrays]], precision: str) -> ParityLine:
    """The *import* line against outputs that the source framework stored."""
    line = ParityLine("import", f"measured on {len(reference)} inputs", "the source framework's stored output")
    line.relative = line.maximum = 0.0
    line.tolerance = TOLERANCES[precision]
    for inputs, outputs in reference:
        answer = plan.run(inputs)
        for name, expected in outputs.items():
            difference = compare(answer[name], expected)
            line.relative = max(line.relative, difference.relative)
            line.maximum = max(line.maximum, difference.maximum)
    if line.relative > line.tolerance:
        raise ParityError(f"the plan departs from the source framework's stored output: relative {line.relative:.3g}")
    return line


def label_agreement(a: Array, b: Array) -> dict[str, Any]:
    """How far two label maps agree: over the union of foregrounds and for every class, never the background."""
    foreground = (a > 0) | (b > 0)
    union = int(foreground.sum())
    classes = sorted({int(c) for c in np.union1d(np.unique(a), np.unique(b))} - {0})
    dice = {}
    for c in classes:
        x, y = a == c, b == c
        dice[str(c)] = 2.0 * float((x & y).sum()) / float(x.sum() + y.sum())
    equal = float((a == b)[foreground].mean()) if union else 1.0
    counts = np.unique(b, return_counts=True)
    histogram = {str(int(v)): int(n) for v, n in zip(*counts, strict=True)}
    return {"agreement": equal, "union_voxels": union, "dice": dice, "histogram": histogram}


def labels_of(output: Array, threshold: float | None, channel_axis: int = 1) -> NDArray[np.int32]:
    """Labels of a network's output: over a threshold for one channel, else the largest channel."""
    if output.shape[channel_axis] == 1:
        return np.asarray(output > (0.5 if threshold is None else threshold), np.int32)
    return np.asarray(np.argmax(output, axis=channel_axis), np.int32)


def measure_labels(
    plan: Plan, model: ir.Model, inputs: Sequence[Arrays], threshold: float | None, channel_axis: int, precision: str
) -> ParityLine:
    """The *labels* line: label agreement with the reference executor on real input."""
    runner = ReferenceRunner(model)
    line = ParityLine("labels", f"measured on {len(inputs)} inputs", runner.name, tolerance=LABEL_AGREEMENT[precision])
    for arrays in inputs:
        expected, answer = runner.run(arrays), plan.run(arrays)
        name = next(iter(expected))
        found = label_agreement(
            labels_of(answer[name], threshold, channel_axis), labels_of(expected[name], threshold, channel_axis)
        )
        total = sum(found["histogram"].values())
        if max(found["histogram"].values()) > 0.99 * total:
            line.status = "not applicable: one class has over 99 % of the voxels"
        line.details = found
        worst = min(found["dice"].values(), default=1.0)
        if precision == "int8" and worst < DICE and not line.status.startswith("not"):
            raise ParityError(f"the Dice of a class with {runner.name}'s labels is {worst:.4f}; int8 allows {DICE}")
        if found["agreement"] < LABEL_AGREEMENT[precision] and not line.status.startswith("not"):
            raise ParityError(f"the plan's labels agree with {runner.name} on only {found['agreement']:.4%}")
    return line


def first_departure(plan: Plan, model: ir.Model, inputs: Arrays, tolerance: float) -> str:
    """Which node departs first: the graph compiled anew with every value as an output, unfused and unaliased."""
    names = [str(o.name) for node in model.graph for o in node.outputs if o.name]
    try:
        answer = plan.run(inputs, taps=names)
    except Exception as error:  # noqa: BLE001 - this explains another error and must not replace it
        return f"(the first departing node could not be found: {error})"
    expected = ReferenceRunner(with_outputs(model, names)).run(inputs)
    for node in model.graph:
        for value in node.outputs:
            name = str(value.name)
            if name in answer and name in expected and expected[name].dtype.kind == "f":
                difference = compare(answer[name], expected[name])
                if difference.relative > tolerance and difference.maximum > ROUNDING:
                    return f"The first node that departs is {node.name or name} ({node.op_type}): {difference}."
    return "No single node departs when each runs on its own: a fusion or shared memory is at fault."


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy of the model whose outputs are its own and the values named."""
    copy = model.clone() if hasattr(model, "clone") else ir.from_proto(ir.to_proto(model))
    values = {str(o.name): o for node in copy.graph for o in node.outputs}
    present = {str(v.name) for v in copy.graph.outputs}
    for name in names:
        if name not in present and name in values:
            copy.graph.outputs.append(values[name])
    return copy


def onnx_bytes(model: ir.Model) -> bytes:
    """The model as ONNX bytes, checked."""
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())
