"""The networks that rows are about, as ONNX files with fixed shapes, and their seeded inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from voxelrt.graph import domain
from voxelrt.graph.edit import static_shape
from voxelrt.models.architectures import classifiers, nnunet, unet3d
from voxelrt.models.architectures.layers import Layers

Array = NDArray[Any]


@dataclass(frozen=True)
class Prepared:
    """A network ready for a contest."""

    title: str
    model: Path
    x: Path
    voxels: int
    flops: float


@dataclass(frozen=True)
class Network:
    """One row: ``make(seed, size)`` gives the graph and its input; ``size`` is the edge of a window in voxels.

    ``fixed`` is the size of a row that has no other. ``reference`` is the peer whose answer the others are compared
    with; ``only`` are the peers that take part, where not all have such a network.
    """

    name: str
    title: str
    make: Callable[[int, int], tuple[ir.Model, Array]]
    fixed: int = 0
    reference: str = "onnxruntime"  # shares no code with ours, and every environment here has it
    only: tuple[str, ...] = ()
    steps: bool = False  # VoxelRT's time is that of its convolution steps, without the layout changes around them

    def prepare(self, folder: Path, seed: int, size: int) -> Prepared:
        """Write the ONNX file and the input into ``folder``."""
        model, x = self.make(seed, size)
        _fix_shapes(model, x.shape)
        path = folder / "model.onnx"
        ir.save(model, path)
        np.save(folder / "x.npy", x)
        title = self.title.format(size=size)
        return Prepared(title, path, folder / "x.npy", math.prod(x.shape), count_flops(model))


def demo(seed: int, size: int) -> tuple[ir.Model, Array]:
    """deepbrain's trained network; its weights are its own, the seed draws the head-like volume it is fed.

    Raises
    ------
    ValueError
        The network takes 128³ and nothing else.
    """
    from voxelrt.models.load import load

    if size != 128:
        raise ValueError("models/demo is a trained network of 128³: it has no other size")
    volume = unet3d.draw_volume((1, 1, size, size, size), seed)
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32) ** 2
    radius = axis[:, None, None] + axis[None, :, None] + axis[None, None, :]
    head = np.where(radius < 0.6, 2.0 + 0.5 * volume, np.where(radius < 0.75, 0.5, 3.0)) * (radius < 0.85)
    head = np.clip(head, 0.0, None)
    x = (head / head.max()).astype(np.float32).reshape(1, size, size, size, 1)
    return load("brain-extraction").graph, x


def unet(seed: int, size: int) -> tuple[ir.Model, Array]:
    """The nnU-Net-class network; the seed draws weights and input."""
    patch = (size, size, size)
    return unet3d.build_unet3d(patch=patch, seed=seed), unet3d.draw_volume((1, 1, *patch), seed + 1)


def residual(seed: int, size: int) -> tuple[ir.Model, Array]:
    """nnU-Net's residual encoder network; the seed draws weights and input."""
    patch = (size, size, size)
    return nnunet.build_residual_unet3d(patch=patch, seed=seed), unet3d.draw_volume((1, 1, *patch), seed + 1)


def unet2d(seed: int, size: int) -> tuple[ir.Model, Array]:
    """nnU-Net's 2-D network on eight slices; the seed draws weights and input."""
    return nnunet.build_unet2d(patch=(size, size), seed=seed), unet3d.draw_volume((8, 1, size, size), seed + 1)


def layer(channels: int) -> Callable[[int, int], tuple[ir.Model, Array]]:
    """One 3 × 3 × 3 convolution with stride 1, as many channels out as in."""

    def make(seed: int, size: int) -> tuple[ir.Model, Array]:
        net, shape = Layers(seed, None), (1, channels, size, size, size)
        x = net.input("x", *shape)
        return net.finish("layer", y=(net.conv(x, channels, channels, 3, axes=3), shape)), unet3d.draw_volume(
            shape, seed + 1
        )

    return make


def images(build: Callable[..., ir.Model]) -> Callable[[int, int], tuple[ir.Model, Array]]:
    """A classifier on a batch of eight images of three channels; the seed draws weights and input."""

    def make(seed: int, size: int) -> tuple[ir.Model, Array]:
        model = build(size=(size, size), batch=8, classes=1000, seed=seed)
        return model, unet3d.draw_volume((8, 3, size, size), seed + 1)

    return make


def resnet(depth: int) -> Callable[[int, int], tuple[ir.Model, Array]]:
    """ResNet-18 or -50 on eight images."""
    return images(partial(classifiers.build_resnet, depth))


FEATURES, HIDDEN = 128, 256  # of the recurrent rows
RUNTIMES = ("onnxruntime", "openvino", "openvino-bf16")  # who takes any ONNX file; torch has twins of some operators


def recurrent(direction: str, batch: int) -> Callable[[int, int], tuple[ir.Model, Array]]:
    """Two stacked LSTM layers on (steps, batch, features); ``size`` is the number of steps."""

    def make(seed: int, size: int) -> tuple[ir.Model, Array]:
        net, directions = Layers(seed, None), 2 if direction == "bidirectional" else 1
        x, width = net.input("steps", size, batch, FEATURES), FEATURES
        for _ in range(2):
            name = net.layer("lstm")
            y = net.op(
                "LSTM",
                x,
                net.weight(directions, 4 * HIDDEN, width, fan_in=width, gain=1.0, name=f"{name}.w"),
                net.weight(directions, 4 * HIDDEN, HIDDEN, fan_in=HIDDEN, gain=1.0, name=f"{name}.r"),
                net.scattered(np.zeros(1), (directions, 8 * HIDDEN), 0.1, f"{name}.b"),
                hidden_size=HIDDEN,
                direction=direction,
            )
            width = directions * HIDDEN
            x = net.reshape(net.transpose(y, 0, 2, 1, 3), size, batch, width)
        model = net.finish(f"{direction}_lstm", states=(x, (size, batch, width)))
        return model, unet3d.draw_volume((size, batch, FEATURES), seed + 1)

    return make


def mdlstm(seed: int, size: int) -> tuple[ir.Model, Array]:
    """One MDLSTM layer on a square grid of cells."""
    net, inputs, hidden = Layers(seed, None), 16, 32
    x = net.input("cells", size, size, 1, inputs)
    y = net.our_op(
        "MDLSTM",
        x,
        net.weight(4, 5 * hidden, inputs, fan_in=inputs, gain=1.0, name="w"),
        net.weight(4, 5 * hidden, 2 * hidden, fan_in=2 * hidden, gain=0.5, name="r"),
        net.scattered(np.zeros(1), (4, 5 * hidden), 0.1, "b"),
    )
    model = net.finish("mdlstm", states=(y, (size, size, 4, 1, hidden)))
    return model, unet3d.draw_volume((size, size, 1, inputs), seed + 1)


NETWORKS = {
    network.name: network
    for network in (
        Network("models/demo", "deepbrain's 3-D U-Net, {size}³", demo, fixed=128),
        Network("models/unet3d", "nnU-Net-class 3-D U-Net 32…320, {size}³, 5 classes", unet),
        Network("models/resenc", "nnU-Net ResEnc M, {size}³, 5 classes", residual),
        Network("models/unet2d", "nnU-Net 2-D U-Net 32…512, 8 slices of {size}², 5 classes", unet2d, fixed=512),
        Network("models/resnet18", "ResNet-18, 8 images of {size}²", resnet(18), fixed=512),
        Network("models/resnet50", "ResNet-50, 8 images of {size}²", resnet(50), fixed=512),
        *(
            Network(f"models/{name}", f"{title}, 8 images of {{size}}²", images(build), 224, only=RUNTIMES)
            for name, title, build in (
                ("efficientnet", "EfficientNet-B0", classifiers.build_efficientnet),
                ("convnext", "ConvNeXt-T", classifiers.build_convnext),
            )
        ),
        *(
            Network(
                f"layers/{channels}",
                f"3×3×3 convolution, {channels} → {channels} channels at {{size}}³",
                layer(channels),
                fixed=size,
                only=("torch", "torch-bf16"),
                steps=True,
            )
            for channels, size in ((32, 128), (64, 64), (128, 32), (256, 16), (320, 8))
        ),
        *(
            Network(
                f"models/{name}-{batch}",
                f"{title}, 2 layers of {HIDDEN}, {{size}} steps of {FEATURES}, batch {batch}",
                recurrent(direction, batch),
                fixed=128,
            )
            for name, title, direction in (("lstm", "LSTM", "forward"), ("bilstm", "BiLSTM", "bidirectional"))
            for batch in (1, 16)
        ),
        Network(
            "models/mdlstm",
            "MDLSTM in 4 directions, {size}² cells, 16 → 32 units",
            mdlstm,
            32,
            "torch",
            only=("torch",),
        ),
    )
}


def _fix_shapes(model: ir.Model, shape: tuple[int, ...]) -> None:
    """Give the input its shape and let it follow through the graph: peers are at their best with fixed shapes."""
    (start,) = model.graph.inputs
    start.shape = ir.Shape(shape)
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    passes.ShapeInferencePass()(model)
    domain.run(model)


def count_flops(model: ir.Model) -> float:
    """Multiplications and additions of convolutions and recurrent layers; what a direct algorithm has to do."""
    total = 0.0
    for node in model.graph:
        if node.op_type in ("LSTM", "GRU", "RNN", "MDLSTM"):
            total += _recurrent_flops(node)
            continue
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        weight = node.inputs[1]
        grid = node.outputs[0] if node.op_type == "Conv" else node.inputs[0]
        if weight is None or weight.shape is None or grid is None or grid.shape is None:
            return 0.0
        dims = [d for d in grid.shape if isinstance(d, int)]
        windows = math.prod(dims) / dims[1]  # batch times voxels; of the input where the convolution is transposed
        total += 2.0 * math.prod(int(d) for d in weight.shape if isinstance(d, int)) * windows
    return total


def _recurrent_flops(node: ir.Node) -> float:
    """Of the products with the input and with the states: every number of W and R serves each row of each step."""
    x, w, r = (static_shape(value) for value in node.inputs[:3])
    if x is None or w is None or r is None:
        return 0.0
    return 2.0 * (math.prod(w) + math.prod(r)) * math.prod(x[:-1])
