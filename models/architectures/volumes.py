"""Networks on volumes with seeded weights that segment nothing: denoising, registration, window attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import UsageError
from voxelrt.models.architectures.layers import Layers, Parameters

Grid = tuple[int, int, int]
MAX_MASK_BYTES = 1 << 28


def build_dncnn3d(
    depth: int = 17,
    width: int = 64,
    grid: Grid = (32, 32, 32),
    *,
    batch: int = 1,
    channels: int = 1,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """DnCNN (Zhang et al., IEEE TIP 26, 2017) in three dimensions: ``noisy`` -> ``clean``, both (N, channels, Z, Y, X).

    Parameters
    ----------
    depth : convolutions, at least three: all but the first and last are followed by a batch norm.
    width : channels between them.
    """
    if depth < 3:
        raise UsageError(f"depth {depth}: a DnCNN has three convolutions at least")
    net = Layers(seed, parameters)
    noisy = net.input("noisy", batch, channels, *grid)
    x = net.activation(net.conv(noisy, channels, width, 3, axes=3), "Relu")
    for _ in range(depth - 2):
        x = net.batch_norm(net.conv(x, width, width, 3, axes=3, bias=False), width)
        x = net.activation(x, "Relu")
    noise = net.conv(x, width, channels, 3, axes=3, gain=0.01)
    return net.finish("dncnn3d", clean=(net.op("Sub", noisy, noise), (batch, channels, *grid)))


def build_registration(
    encoder: Sequence[int] = (16, 32, 32, 32),
    decoder: Sequence[int] = (32, 32, 32, 32),
    final: Sequence[int] = (32, 16, 16),
    grid: Grid = (64, 64, 64),
    *,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """The network of VoxelMorph (Balakrishnan et al., IEEE TMI 38, 2019) up to its stationary velocity field.

    ``moving`` and ``fixed`` (1, 1, Z, Y, X) -> ``velocity`` (1, 3, Z, Y, X) in voxels;
    ``build_deformable_registration`` goes on to the warped image.

    Raises
    ------
    UsageError : encoder and decoder differ in depth, or the grid does not halve so often.
    """
    net = Layers(seed, parameters)
    _, velocity = _velocity(net, encoder, decoder, final, grid)
    return net.finish("registration", velocity=(velocity, (1, 3, *grid)))


def build_deformable_registration(
    encoder: Sequence[int] = (16, 32, 32, 32),
    decoder: Sequence[int] = (32, 32, 32, 32),
    final: Sequence[int] = (32, 16, 16),
    grid: Grid = (64, 64, 64),
    *,
    steps: int = 7,
    gain: float = 1.0,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """``build_registration`` and what follows it in a whole registration network: integration and warp.

    ``moving`` and ``fixed`` (1, 1, Z, Y, X) -> ``moved`` of the same shape and ``displacement`` (1, 3, Z, Y, X) in
    voxels, components (z, y, x).

    Parameters
    ----------
    steps : of scaling and squaring.
    gain : the velocity's factor: how far a network with drawn weights moves voxels.

    Raises
    ------
    UsageError : encoder and decoder differ in depth, or the grid does not halve so often.
    """
    net = Layers(seed, parameters)
    moving, velocity = _velocity(net, encoder, decoder, final, grid)
    scaled = net.op("Mul", velocity, net.constant([gain])) if gain != 1.0 else velocity
    displacement = net.our_op("IntegrateVelocity", scaled, steps=steps, padding="border")
    moved = net.our_op("Warp", moving, displacement, mode="linear", padding="border")
    return net.finish(
        "deformable_registration", moved=(moved, (1, 1, *grid)), displacement=(displacement, (1, 3, *grid))
    )


def _velocity(
    net: Layers, encoder: Sequence[int], decoder: Sequence[int], final: Sequence[int], grid: Grid
) -> tuple[ir.Value, ir.Value]:
    """The moving image and the velocity that encoder and decoder find."""
    if len(encoder) != len(decoder) or any(size % (1 << len(encoder)) for size in grid):
        raise UsageError(f"grid {grid} halves {len(encoder)} times on the way down and {len(decoder)} times back")
    pair = [net.input(name, 1, 1, *grid) for name in ("moving", "fixed")]
    x, before = net.op("Concat", *pair, axis=1), 2
    skips = [(x, before)]
    for width in encoder:
        x = net.op("LeakyRelu", net.conv(x, before, width, 3, axes=3, stride=2), alpha=0.2)
        skips.append((x, width))
        before = width
    skips.pop()
    for width in decoder:
        x = net.op("LeakyRelu", net.conv(x, before, width, 3, axes=3), alpha=0.2)
        scales = net.constant([1, 1, 2, 2, 2])
        x = net.op(
            "Resize", x, None, scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        )
        skip, more = skips.pop()
        x, before = net.op("Concat", x, skip, axis=1), width + more
    for width in final:
        x = net.op("LeakyRelu", net.conv(x, before, width, 3, axes=3), alpha=0.2)
        before = width
    return pair[0], net.conv(x, before, 3, 3, axes=3, gain=0.1)


def build_window_attention(
    grid: Grid = (16, 16, 16),
    window: int = 4,
    width: int = 48,
    heads: int = 4,
    blocks: int = 2,
    *,
    channels: int = 1,
    classes: int = 4,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """Blocks of self-attention within windows, every second one shifted by half a window (Liu et al., ICCV 2021), 3-D.

    ``input`` (1, channels, Z, Y, X) -> ``logits`` (1, classes, Z, Y, X). A 1×1×1 convolution stands in front and
    behind; shifted windows wrap around and what does not belong together is masked.

    Raises
    ------
    UsageError : the grid is no multiple of the window, or the width none of the heads.
    """
    if any(size % window for size in grid) or width % heads:
        raise UsageError(f"grid {grid} and width {width} are multiples of the window {window} and of {heads} heads")
    if math.prod(grid) * window**3 > MAX_MASK_BYTES:
        raise UsageError(f"grid {grid}: the mask of shifted windows would have more than {MAX_MASK_BYTES} elements")
    net = Layers(seed, parameters)
    x = net.conv(net.input("input", 1, channels, *grid), channels, width, 1, axes=3, gain=1.0)
    x = net.transpose(x, 0, 2, 3, 4, 1)
    for block in range(blocks):
        shift = window // 2 if block % 2 else 0
        y = _windows(net, _rolled(net, net.layer_norm(x, width), -shift), grid, window, width)
        y = _attention(net, y, width, heads, window**3, _mask(grid, window, shift) if shift else None)
        x = net.op("Add", x, _rolled(net, _merged(net, y, grid, window, width), shift))
        y = net.activation(net.linear(net.layer_norm(x, width), width, 4 * width, gain=1.0), "Gelu")
        x = net.op("Add", x, net.linear(y, 4 * width, width))
    x = net.transpose(net.layer_norm(x, width), 0, 4, 1, 2, 3)
    logits = net.conv(x, width, classes, 1, axes=3, gain=1.0)
    return net.finish("window_attention", logits=(logits, (1, classes, *grid)))


def _attention(
    net: Layers,
    x: ir.Value,
    width: int,
    heads: int,
    tokens: int,
    mask: NDArray[np.bool_] | None,
) -> ir.Value:
    """Multi-head attention of (windows, tokens, width), with a bias for each pair of tokens and head."""
    depth = width // heads
    parts = net.reshape(net.linear(x, width, 3 * width, gain=1.0), -1, tokens, 3, heads, depth)
    parts = net.transpose(parts, 2, 0, 3, 1, 4)
    q, k, v = (net.op("Gather", parts, net.constant(i, np.int64), axis=0) for i in range(3))
    scores = net.op("MatMul", net.op("Mul", q, net.constant(1 / math.sqrt(depth))), net.transpose(k, 0, 1, 3, 2))
    scores = net.op("Add", scores, net.weight(heads, tokens, tokens, fan_in=4, gain=1.0))
    if mask is not None:
        scores = net.op("Where", net.constant(mask[:, None], np.bool_), net.constant(-1e4), scores)
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    mixed = net.reshape(net.transpose(mixed, 0, 2, 1, 3), -1, tokens, width)
    return net.linear(mixed, width, width, gain=1.0)


def _windows(net: Layers, x: ir.Value, grid: Grid, window: int, width: int) -> ir.Value:
    z, y, w = (size // window for size in grid)
    x = net.reshape(x, z, window, y, window, w, window, width)
    return net.reshape(net.transpose(x, 0, 2, 4, 1, 3, 5, 6), -1, window**3, width)


def _merged(net: Layers, x: ir.Value, grid: Grid, window: int, width: int) -> ir.Value:
    z, y, w = (size // window for size in grid)
    x = net.reshape(x, z, y, w, window, window, window, width)
    return net.reshape(net.transpose(x, 0, 3, 1, 4, 2, 5, 6), 1, *grid, width)


def _rolled(net: Layers, x: ir.Value, shift: int) -> ir.Value:
    """The volume moved along Z, Y and X, what leaves at one end entering at the other."""
    for axis in (1, 2, 3) if shift else ():
        ends = [net.constant([v], np.int64) for v in (-shift, np.iinfo(np.int64).max, 0, axis)]
        tail = net.op("Slice", x, ends[0], ends[1], ends[3])
        head = net.op("Slice", x, ends[2], ends[0], ends[3])
        x = net.op("Concat", tail, head, axis=axis)
    return x


def _mask(grid: Grid, window: int, shift: int) -> NDArray[np.bool_]:
    """(windows, tokens, tokens): True where two tokens of a shifted window were not neighbours before."""
    label = np.zeros(grid, np.int64)
    for axis, size in enumerate(grid):
        position = np.arange(size)
        part = np.where(position < size - window, 0, np.where(position < size - shift, 1, 2))
        label = label * 3 + part.reshape([-1 if a == axis else 1 for a in range(3)])
    z, y, x = (size // window for size in grid)
    tokens = label.reshape(z, window, y, window, x, window).transpose(0, 2, 4, 1, 3, 5).reshape(-1, window**3)
    apart: NDArray[np.bool_] = tokens[:, :, None] != tokens[:, None, :]
    return apart
