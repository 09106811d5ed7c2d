"""Layers with seeded weights, put one behind the other into an ONNX graph: what the small networks here are built of.

Weights follow He et al. (2015), so that activations keep their scale through any depth; norms scatter as training
leaves them. The same seed gives the same bytes on every machine.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from voxelrt.errors import UsageError
from voxelrt.graph.spec import OUR_DOMAIN

OPSET = 20
IR_VERSION = 10
ACTIVATIONS = ("", "Relu", "LeakyRelu", "Silu", "Gelu", "Tanh", "Sigmoid")

Array = NDArray[Any]
Parameters = Mapping[str, Array]


class Layers:
    """One network in the making.

    Parameters
    ----------
    seed : of all weights.
    parameters : the weights by name instead; nothing is drawn then, and one that is missing or of another shape is an
        error (UsageError).
    """

    def __init__(self, seed: int, parameters: Parameters | None = None) -> None:
        self._rng = np.random.default_rng(seed)
        self._parameters = parameters
        self._kinds: Counter[str] = Counter()
        self._tape = Tape()
        self._count = 0
        self._inputs: list[ir.Value] = []
        self._ours = False

    def input(self, name: str, *shape: int) -> ir.Value:
        """A float32 input; sizes below one are refused (UsageError)."""
        if any(size < 1 for size in shape):
            raise UsageError(f"{name} {shape}: every size is at least one")
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
        self._inputs.append(value)
        return value

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """A node of one output; attributes as ONNX names them."""
        self._count += 1
        return self._tape.op(kind, list(inputs), attributes or None, name=f"{kind.lower()}_{self._count}")

    def ops(self, kind: str, outputs: int, *inputs: ir.Value | None, **attributes: Any) -> Sequence[ir.Value]:
        """A node of several outputs."""
        self._count += 1
        name = f"{kind.lower()}_{self._count}"
        return self._tape.op_multi_out(kind, list(inputs), attributes or None, num_outputs=outputs, name=name)

    def our_op(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """A node of one output of the project's own domain (``engine/graph/domain.py``)."""
        self._count += 1
        self._ours = True
        name = f"{kind.lower()}_{self._count}"
        return self._tape.op(kind, list(inputs), attributes or None, name=name, domain=OUR_DOMAIN)

    def constant(self, values: Any, dtype: Any = np.float32) -> ir.Value:
        """An initializer."""
        self._count += 1
        array = np.array(values, dtype, order="C")
        return self._tape.initializer(ir.tensor(array, name=f"constant_{self._count}"))

    def layer(self, kind: str) -> str:
        """The name of the next layer of a kind; its weights are named behind it."""
        self._kinds[kind] += 1
        return f"{kind}_{self._kinds[kind]}"

    def parameter(self, name: str, shape: Sequence[int], draw: Callable[[], Array]) -> ir.Value:
        """A weight by its name: one that was given, or drawn."""
        if self._parameters is None:
            array = np.array(draw(), np.float32, order="C")
        else:
            array = checked_parameter(self._parameters, name, shape)
        return self._tape.initializer(ir.tensor(array, name=name))

    def weight(self, *shape: int, fan_in: int, gain: float = 2.0, name: str = "") -> ir.Value:
        """Normal numbers of variance gain / fan_in; ``gain`` is 2 in front of a rectifier, 1 elsewhere."""
        scale = math.sqrt(gain / fan_in)
        name = name or f"{self.layer('weight')}.weight"
        return self.parameter(name, shape, lambda: self._rng.standard_normal(shape) * scale)

    def near(self, value: float, count: int, spread: float = 0.1, name: str = "") -> ir.Value:
        """A vector that scatters around a value."""
        name = name or f"{self.layer('vector')}.values"
        return self.parameter(name, (count,), lambda: value + spread * self._rng.standard_normal(count))

    def scattered(self, centre: Array, shape: Sequence[int], spread: float, name: str) -> ir.Value:
        """Numbers that scatter around others, which are repeated to the shape."""
        return self.parameter(name, shape, lambda: centre + spread * self._rng.standard_normal(shape))

    def conv(
        self,
        x: ir.Value,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        axes: int = 2,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        gain: float = 2.0,
    ) -> ir.Value:
        """A convolution padded by half its kernel."""
        per_group, name = inputs // groups, self.layer("conv")
        fan_in = per_group * kernel**axes
        weight = self.weight(outputs, per_group, *(kernel,) * axes, fan_in=fan_in, gain=gain, name=f"{name}.weight")
        return self.op(
            "Conv",
            x,
            weight,
            *([self.near(0.0, outputs, 0.05, f"{name}.bias")] if bias else []),
            kernel_shape=(kernel,) * axes,
            strides=(stride,) * axes,
            pads=(kernel // 2,) * (2 * axes),
            group=groups,
        )

    def batch_norm(self, x: ir.Value, channels: int, scale: float = 1.0) -> ir.Value:
        """BatchNormalization with the statistics that training would have left."""
        name = self.layer("norm")
        parts = [
            self.near(scale, channels, 0.1 * scale, f"{name}.weight"),
            self.near(0.0, channels, name=f"{name}.bias"),
            self.near(0.0, channels, name=f"{name}.running_mean"),
            self.parameter(
                f"{name}.running_var", (channels,), lambda: np.exp(0.2 * self._rng.standard_normal(channels))
            ),
        ]
        return self.op("BatchNormalization", x, *parts, epsilon=1e-5)

    def layer_norm(self, x: ir.Value, channels: int) -> ir.Value:
        """LayerNormalization over the last axis."""
        name = self.layer("layer_norm")
        parts = (self.near(1.0, channels, name=f"{name}.weight"), self.near(0.0, channels, name=f"{name}.bias"))
        return self.op("LayerNormalization", x, *parts, axis=-1, epsilon=1e-6)

    def linear(self, x: ir.Value, inputs: int, outputs: int, gain: float = 2.0) -> ir.Value:
        """A product with a matrix and a bias, over the last axis of any number of axes."""
        name = self.layer("linear")
        weight = self.weight(inputs, outputs, fan_in=inputs, gain=gain, name=f"{name}.weight")
        return self.op("Add", self.op("MatMul", x, weight), self.near(0.0, outputs, 0.05, f"{name}.bias"))

    def activation(self, x: ir.Value, kind: str) -> ir.Value:
        """One of ``ACTIVATIONS``; Silu is x·sigmoid(x), as exporters write it."""
        if kind not in ACTIVATIONS:
            raise UsageError(f"activation {kind!r} is unknown; choose from {', '.join(ACTIVATIONS[1:])}")
        if kind == "Silu":
            return self.op("Mul", x, self.op("Sigmoid", x))
        return self.op(kind, x) if kind else x

    def reshape(self, x: ir.Value, *shape: int) -> ir.Value:
        """Another shape; one size may be -1."""
        return self.op("Reshape", x, self.constant(shape, np.int64))

    def transpose(self, x: ir.Value, *order: int) -> ir.Value:
        """Axes in another order."""
        return self.op("Transpose", x, perm=order)

    def mean(self, x: ir.Value, axes: Sequence[int], keep: bool = False) -> ir.Value:
        """Mean over axes."""
        return self.op("ReduceMean", x, self.constant(axes, np.int64), keepdims=int(keep))

    def finish(self, name: str, **outputs: tuple[ir.Value, Sequence[int]]) -> ir.Model:
        """The network: outputs by name, each a value and its shape."""
        for label, (value, shape) in outputs.items():
            value.name, value.shape, value.type = label, ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
        graph = ir.Graph(
            self._inputs,
            [value for value, _ in outputs.values()],
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports={"": OPSET, **({OUR_DOMAIN: 1} if self._ours else {})},
            name=name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="voxelrt")


def checked_parameter(parameters: Parameters, name: str, shape: Sequence[int]) -> Array:
    """A weight that was given, as float32. Raises UsageError if it is missing, of another shape, or no numbers."""
    given = parameters.get(name)
    if given is None:
        raise UsageError(f"the weights have none named {name!r}, {' × '.join(map(str, shape))}")
    if given.shape != tuple(shape):
        raise UsageError(f"the weight {name!r} is {given.shape}; the network takes {tuple(shape)}")
    if given.dtype.kind not in "fV":  # the small floats of ml_dtypes are of kind V
        raise UsageError(f"the weight {name!r} is {given.dtype}, no floating-point numbers")
    return np.ascontiguousarray(given, np.float32).reshape(tuple(shape))
