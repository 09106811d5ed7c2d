"""A plain 3-D U-Net in nnU-Net's topology, with seeded weights: what tests and benches call "an nnU-Net-class network".

Every stage is two 3×3×3 convolutions, each followed by instance norm (affine, eps 1e-5) and LeakyReLU 0.01; the first
convolution of a stage halves the grid; a 2×2×2 transposed convolution doubles it again, the skip is concatenated behind
it, and a 1×1×1 convolution gives the classes. Source: PlainConvUNet of Isensee et al., "nnU-Net", Nature Methods 18,
2021.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from voxelrt.errors import UsageError
from voxelrt.models.architectures.layers import checked_parameter

OPSET = 18
IR_VERSION = 10
FEATURES = (32, 64, 128, 256, 320, 320)
FEATURES_SMALL = (8, 16, 24)
PATCH = (128, 128, 128)
SLOPE = 0.01
EPSILON = 1e-5

Array = NDArray[Any]


@dataclass(frozen=True)
class Convolution:
    """One convolution of the network: where it is, what it does, and on which grid its output lies.

    ``kind`` is ``conv`` (3×3×3, a norm and LeakyReLU follow), ``up`` (transposed 2×2×2) or ``head`` (1×1×1).
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    stride: int
    grid: tuple[int, int, int]
    skip: str = ""  # up: the convolution whose output is concatenated behind this one's

    @property
    def kernel(self) -> int:
        """Edge length of the kernel."""
        return {"conv": 3, "up": 2, "head": 1}[self.kind]

    @property
    def flops(self) -> float:
        """Multiplications and additions for one window."""
        taps = 1 if self.kind == "up" else self.kernel**3  # each output voxel of an up sees one tap
        return 2.0 * self.inputs * self.outputs * taps * math.prod(self.grid)


def convolutions(
    features: Sequence[int] = FEATURES, patch: Sequence[int] = PATCH, classes: int = 5, channels: int = 1
) -> Iterator[Convolution]:
    """Every convolution of the network, in the order they run.

    Parameters
    ----------
    features
        Channels of each stage, from the finest to the coarsest; at least two stages.
    patch
        Voxels (Z, Y, X) of the input; each a multiple of 2 ** (stages - 1).
    classes
        Channels of the output.
    channels
        Channels of the input.

    Raises
    ------
    UsageError
        The patch does not divide, or a number is not positive.
    """
    stages = len(features)
    step = 2 ** (stages - 1)
    if stages < 2 or min(*features, classes, channels) < 1:
        raise UsageError(f"a U-Net needs two stages and positive numbers of channels, not features={tuple(features)}")
    if len(patch) != 3 or any(p < step or p % step for p in patch):
        raise UsageError(f"patch={tuple(patch)}: with {stages} stages each of Z, Y, X is a multiple of {step}")

    def grid(stage: int) -> tuple[int, int, int]:
        return (patch[0] >> stage, patch[1] >> stage, patch[2] >> stage)

    before = channels
    for stage, width in enumerate(features):
        yield Convolution(f"encoder.{stage}.0", "conv", before, width, 1 if stage == 0 else 2, grid(stage))
        yield Convolution(f"encoder.{stage}.1", "conv", width, width, 1, grid(stage))
        before = width
    for stage in reversed(range(stages - 1)):
        width = features[stage]
        yield Convolution(f"decoder.{stage}.up", "up", before, width, 2, grid(stage), f"encoder.{stage}.1")
        yield Convolution(f"decoder.{stage}.0", "conv", 2 * width, width, 1, grid(stage))
        yield Convolution(f"decoder.{stage}.1", "conv", width, width, 1, grid(stage))
        before = width
    yield Convolution("head", "head", before, classes, 1, grid(0))


def draw_parameters(layers: Sequence[Convolution], seed: int) -> dict[str, Array]:
    """Weights, biases, gammas and betas by name, float32, the same for the same seed on every machine.

    Convolutions follow He et al. (2015) for LeakyReLU; gammas and betas scatter as training leaves them. The head's
    rows are orthogonal, of one length, and its bias takes away each class's expected logit, so that no class starves:
    behind an instance norm a channel's mean and deviation are known (beta, gamma) whatever the input is.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, Array] = {}
    for layer in layers:
        if layer.kind == "head":
            last = layers[layers.index(layer) - 1].name
            weight, bias = _head(rng, layer, drawn[f"{last}.gamma"], drawn[f"{last}.beta"])
        else:
            fan_in = layer.inputs * (1 if layer.kind == "up" else layer.kernel**3)
            gain = 1.0 if layer.kind == "up" else math.sqrt(2.0 / (1.0 + SLOPE**2))
            pair = (layer.inputs, layer.outputs) if layer.kind == "up" else (layer.outputs, layer.inputs)
            weight = rng.standard_normal((*pair, *(layer.kernel,) * 3)) * (gain / math.sqrt(fan_in))
            bias = rng.normal(0.0, 0.05, layer.outputs)
        drawn[f"{layer.name}.weight"] = weight
        drawn[f"{layer.name}.bias"] = bias
        if layer.kind == "conv":
            drawn[f"{layer.name}.gamma"] = np.exp(rng.normal(0.0, 0.25, layer.outputs))
            drawn[f"{layer.name}.beta"] = rng.normal(0.0, 0.2, layer.outputs)
    return {name: np.ascontiguousarray(values, np.float32) for name, values in drawn.items()}


def _head(rng: np.random.Generator, layer: Convolution, gamma: Array, beta: Array) -> tuple[Array, Array]:
    """Weights and bias of the head: orthogonal directions in the units of the activations behind it."""
    mean, deviation = _leaky_moments(gamma, beta)
    rows = rng.standard_normal((layer.outputs, layer.inputs))
    if layer.outputs <= layer.inputs:
        rows = np.linalg.qr(rows.T)[0].T
    weight = 2.0 * rows / np.linalg.norm(rows, axis=1, keepdims=True) / deviation
    return weight.reshape(layer.outputs, layer.inputs, 1, 1, 1), -weight @ mean


def _leaky_moments(gamma: Array, beta: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of LeakyReLU(gamma·z + beta) for a normal z."""
    z = (np.arange(4096) + 0.5) / 4096 * 16.0 - 8.0
    density = np.exp(-0.5 * z * z)
    density /= density.sum()
    x = gamma[:, None] * z + beta[:, None]
    y = np.where(x < 0, SLOPE * x, x)
    mean = y @ density
    deviation: Array = np.sqrt(((y - mean[:, None]) ** 2) @ density)
    return mean, deviation


def build_unet3d(
    features: Sequence[int] = FEATURES,
    patch: Sequence[int] = PATCH,
    classes: int = 5,
    channels: int = 1,
    seed: int = 0,
    parameters: Mapping[str, Array] | None = None,
) -> ir.Model:
    """Build the network as ONNX: ``input`` (1, channels, Z, Y, X) float32 -> ``logits`` (1, classes, Z, Y, X).

    The defaults are the network that benches use (955 GFLOP a window); ``FEATURES_SMALL`` with a patch of 16³ is made
    for tests.

    Parameters
    ----------
    features, patch, classes, channels
        As in :func:`convolutions`.
    seed
        Of :func:`draw_parameters`.
    parameters
        The weights by name instead, as :func:`draw_parameters` names them.

    Raises
    ------
    UsageError
        As :func:`convolutions`; or weights that are missing or of another shape.
    """
    layers = list(convolutions(features, patch, classes, channels))
    weights = draw_parameters(layers, seed) if parameters is None else _given(layers, parameters)
    tape = Tape()
    tensor_type = ir.TensorType(ir.DataType.FLOAT)
    start = ir.Value(name="input", shape=ir.Shape((1, channels, *patch)), type=tensor_type)
    ends: dict[str, ir.Value] = {}
    value = start
    for layer in layers:
        value = _add(tape, layer, value, weights)
        if layer.skip:
            skip = ends[layer.skip]
            value = tape.op("Concat", [value, skip], {"axis": 1}, name=f"{layer.name}.concat")
        ends[layer.name] = value
    value.name, value.type, value.shape = "logits", tensor_type, ir.Shape((1, classes, *patch))
    graph = ir.Graph(
        [start],
        [value],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": OPSET},
        name="unet3d",
    )
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="voxelrt")


def _given(layers: Sequence[Convolution], parameters: Mapping[str, Array]) -> dict[str, Array]:
    """The weights of these layers, each of the shape that its layer needs."""
    found: dict[str, Array] = {}
    for layer in layers:
        pair = (layer.inputs, layer.outputs) if layer.kind == "up" else (layer.outputs, layer.inputs)
        shapes = {"weight": (*pair, *(layer.kernel,) * 3), "bias": (layer.outputs,)}
        if layer.kind == "conv":
            shapes |= {"gamma": (layer.outputs,), "beta": (layer.outputs,)}
        for name, shape in shapes.items():
            found[f"{layer.name}.{name}"] = checked_parameter(parameters, f"{layer.name}.{name}", shape)
    return found


def _add(tape: Tape, layer: Convolution, value: ir.Value, parameters: Mapping[str, Array]) -> ir.Value:
    """Append one convolution with what follows it; returns the value behind it."""

    def constants(*names: str) -> list[ir.Value]:
        full = [f"{layer.name}.{name}" for name in names]
        return [tape.initializer(ir.tensor(parameters[name], name=name)) for name in full]

    attributes: dict[str, tuple[int, ...]] = {"kernel_shape": (layer.kernel,) * 3, "strides": (layer.stride,) * 3}
    if layer.kind == "conv":
        attributes["pads"] = (1,) * 6
    op = "ConvTranspose" if layer.kind == "up" else "Conv"
    value = tape.op(op, [value, *constants("weight", "bias")], attributes, name=layer.name)
    if layer.kind == "conv":
        value = tape.op(
            "InstanceNormalization",
            [value, *constants("gamma", "beta")],
            {"epsilon": EPSILON},
            name=f"{layer.name}.norm",
        )
        value = tape.op("LeakyRelu", [value], {"alpha": SLOPE}, name=f"{layer.name}.activation")
    return value


def draw_volume(shape: Sequence[int], seed: int) -> Array:
    """A volume to feed it: blobs of several sizes and noise, standardised, float32.

    Parameters
    ----------
    shape
        (N, C, Z, Y, X).
    seed
        Of the drawing.

    Returns
    -------
    Array of that shape with mean 0 and standard deviation 1.
    """
    rng = np.random.default_rng(seed)
    volume = 0.3 * rng.standard_normal(tuple(shape), np.float32)
    grid = tuple(shape[2:])
    for block in (32, 16, 8, 4):
        coarse = rng.standard_normal((*shape[:2], *(max(1, -(-g // block)) for g in grid)), np.float32)
        for axis, size in enumerate(grid, start=2):
            coarse = _stretch(coarse, axis, size)
        volume += coarse
    volume -= volume.mean()
    volume /= volume.std()
    return volume


def _stretch(volume: Array, axis: int, size: int) -> Array:
    """Linear interpolation of one axis to another size, voxel edges aligned."""
    old = volume.shape[axis]
    position = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, old - 1)
    fraction = (position - low).astype(np.float32).reshape((-1,) + (1,) * (volume.ndim - axis - 1))
    stretched: Array = volume.take(low, axis) * (1 - fraction) + volume.take(high, axis) * fraction
    return stretched
