"""nnU-Net's networks as graphs: PlainConvUNet and ResidualEncoderUNet with the weights of a checkpoint.

Names of weights are those of ``dynamic_network_architectures``; deep-supervision heads other than the last are not used
at inference. Source: Isensee et al., "nnU-Net", Nature Methods 18, 2021, and "nnU-Net Revisited", MICCAI 2024 (ResEnc).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from voxelrt.errors import ModelError
from voxelrt.models.nnunet_settings import INPUT, OUTPUT, fold_outputs

OPSET = 18
IR_VERSION = 10
Array = NDArray[Any]
Weights = Callable[[str, tuple[int, ...]], Array | None]  # (name, shape asked for) -> float32, None where there is none


@dataclass(frozen=True)
class Architecture:
    """What ``plans.json`` says of a network.

    Parameters
    ----------
    kind : PlainConvUNet or ResidualEncoderUNet.
    dimensions : 2 or 3.
    features : channels of each stage, from the finest.
    kernels, strides : of each stage, one number an axis.
    encoder, decoder : convolutions (or residual blocks) of each stage; the decoder's from the coarsest, one less.
    norm : instance, batch, or none.
    epsilon : of the norms.
    affine : whether the norms have weights.
    slope : of LeakyReLU; 0 is ReLU.
    """

    kind: Literal["PlainConvUNet", "ResidualEncoderUNet"]
    dimensions: int
    features: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    norm: Literal["instance", "batch", "none"] = "instance"
    epsilon: float = 1e-5
    affine: bool = True
    slope: float = 0.01


def network(
    architecture: Architecture, weights: Sequence[Weights], channels: int, outputs: int, patch: Sequence[int]
) -> ir.Model:
    """A network, or the mean of the logits of several with the same architecture.

    Parameters
    ----------
    architecture : see there.
    weights : for each fold, what gives a weight by its name.
    channels, outputs : of the input and the logits.
    patch : voxels of the input; the batch is 1.

    Returns
    -------
    model : input "image" (1, channels, *patch) float32, output "logits" (1, outputs, *patch).

    Raises
    ------
    ModelError : a weight is missing or has not the shape that the plans ask for.
    """
    image = ir.Value(name=INPUT, shape=ir.Shape([1, channels, *patch]), type=ir.TensorType(ir.DataType.FLOAT))
    tape = Tape()
    initializers: list[ir.Value] = []
    answers = []
    for fold, source in enumerate(weights):
        prefix = f"fold{fold}." if len(weights) > 1 else ""
        answers.append(_Unet(architecture, source, tape, initializers, prefix).build(image, channels, outputs))
    logits = answers[0]
    if len(answers) > 1:
        for name, answer in zip(fold_outputs(len(answers)), answers, strict=True):
            answer.name = name
        count = _constant("folds", np.array(len(answers), np.float32))
        initializers.append(count)
        total = tape.op("Sum", answers, name="ensemble.sum")
        logits = tape.op("Div", [total, count], name="ensemble.mean")
    logits.name = OUTPUT
    logits.shape = ir.Shape([1, outputs, *patch])
    logits.type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [image],
        [logits],
        nodes=tape.nodes,
        initializers=initializers,
        opset_imports={"": OPSET},
        name=architecture.kind,
    )
    return ir.Model(graph, ir_version=IR_VERSION)


def _constant(name: str, array: Array) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    return ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)


class _Unet:
    """Builds one network node by node."""

    def __init__(
        self, architecture: Architecture, weights: Weights, tape: Tape, initializers: list[ir.Value], prefix: str
    ) -> None:
        self.a, self.weights, self.tape = architecture, weights, tape
        self.initializers, self.prefix = initializers, prefix

    def build(self, image: ir.Value, channels: int, outputs: int) -> ir.Value:
        a, x, skips = self.a, image, []
        if a.kind == "ResidualEncoderUNet":
            x = self._conv("encoder.stem.convs.0", x, channels, a.features[0], a.kernels[0], None)
            channels = a.features[0]
        for stage, (features, kernel, stride) in enumerate(zip(a.features, a.kernels, a.strides, strict=True)):
            for index in range(a.encoder[stage]):
                step = stride if index == 0 else None
                if a.kind == "PlainConvUNet":
                    name = f"encoder.stages.{stage}.0.convs.{index}"
                    x = self._conv(name, x, channels, features, kernel, step)
                else:
                    x = self._block(f"encoder.stages.{stage}.blocks.{index}", x, channels, features, kernel, step)
                channels = features
            skips.append(x)
        for level in range(len(a.features) - 1):
            stage = len(a.features) - 2 - level
            features, kernel = a.features[stage], a.kernels[stage]
            x = self._up(f"decoder.transpconvs.{level}", x, channels, features, a.strides[stage + 1])
            x = self.tape.op("Concat", [x, skips[stage]], {"axis": 1}, name=f"{self.prefix}decoder.concat.{level}")
            channels = 2 * features
            for index in range(a.decoder[level]):
                x = self._conv(f"decoder.stages.{level}.convs.{index}", x, channels, features, kernel, None)
                channels = features
        last = f"decoder.seg_layers.{len(a.features) - 2}"
        ones = (1,) * a.dimensions
        return self._plain(last, x, channels, outputs, ones, None)

    def _weight(self, name: str, shape: tuple[int, ...]) -> ir.Value:
        array = self.weights(name, shape)
        if array is None:
            raise ModelError(f"the checkpoint has no weight {name!r}, which the plans ask for")
        if array.shape != shape:
            raise ModelError(f"the weight {name!r} has shape {array.shape}; the plans ask for {shape}")
        value = _constant(self.prefix + name, array)
        self.initializers.append(value)
        return value

    def _fixed(self, name: str, value: float, count: int) -> ir.Value:
        made = _constant(self.prefix + name, np.full(count, value, np.float32))
        self.initializers.append(made)
        return made

    def _plain(
        self,
        name: str,
        x: ir.Value,
        inputs: int,
        outputs: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...] | None,
    ) -> ir.Value:
        operands = [x, self._weight(f"{name}.weight", (outputs, inputs, *kernel))]
        if self.weights(f"{name}.bias", (outputs,)) is not None:
            operands.append(self._weight(f"{name}.bias", (outputs,)))
        half = [(k - 1) // 2 for k in kernel]
        attributes = {"kernel_shape": list(kernel), "pads": half + half, "strides": list(stride or (1,) * len(kernel))}
        return self.tape.op("Conv", operands, attributes, name=self.prefix + name)

    def _conv(
        self,
        name: str,
        x: ir.Value,
        inputs: int,
        outputs: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...] | None,
        activate: bool = True,
    ) -> ir.Value:
        """Convolution, norm, activation."""
        x = self._norm(f"{name}.norm", self._plain(f"{name}.conv", x, inputs, outputs, kernel, stride), outputs)
        return self._activation(f"{name}.nonlin", x) if activate else x

    def _norm(self, name: str, x: ir.Value, channels: int) -> ir.Value:
        if self.a.norm == "none":
            return x
        given = ["running_mean", "running_var"] * (self.a.norm == "batch")
        operands = [x]
        if self.a.affine:
            given = ["weight", "bias", *given]
        else:
            operands += [self._fixed(f"{name}.{what}", value, channels) for what, value in (("ones", 1), ("zeros", 0))]
        operands += [self._weight(f"{name}.{suffix}", (channels,)) for suffix in given]
        kind = "BatchNormalization" if self.a.norm == "batch" else "InstanceNormalization"
        return self.tape.op(kind, operands, {"epsilon": self.a.epsilon}, name=self.prefix + name)

    def _activation(self, name: str, x: ir.Value) -> ir.Value:
        if self.a.slope == 0:
            return self.tape.op("Relu", [x], name=self.prefix + name)
        return self.tape.op("LeakyRelu", [x], {"alpha": self.a.slope}, name=self.prefix + name)

    def _block(
        self, name: str, x: ir.Value, inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...] | None
    ) -> ir.Value:
        """A residual block (BasicBlockD): the skip is pooled by the mean, then projected where the channels differ."""
        inner = self._conv(f"{name}.conv1", x, inputs, outputs, kernel, stride)
        inner = self._conv(f"{name}.conv2", inner, outputs, outputs, kernel, None, activate=False)
        strided = stride is not None and any(s != 1 for s in stride)
        if strided and stride is not None:
            pool = {"kernel_shape": list(stride), "strides": list(stride)}
            x = self.tape.op("AveragePool", [x], pool, name=f"{self.prefix}{name}.skip.pool")
        if inputs != outputs:
            ones = (1,) * self.a.dimensions
            x = self._conv(f"{name}.skip.{int(strided)}", x, inputs, outputs, ones, None, activate=False)
        total = self.tape.op("Add", [inner, x], name=f"{self.prefix}{name}.add")
        return self._activation(f"{name}.nonlin2", total)

    def _up(self, name: str, x: ir.Value, inputs: int, outputs: int, stride: tuple[int, ...]) -> ir.Value:
        operands = [x, self._weight(f"{name}.weight", (inputs, outputs, *stride))]
        if self.weights(f"{name}.bias", (outputs,)) is not None:
            operands.append(self._weight(f"{name}.bias", (outputs,)))
        attributes = {"kernel_shape": list(stride), "strides": list(stride)}
        return self.tape.op("ConvTranspose", operands, attributes, name=self.prefix + name)
