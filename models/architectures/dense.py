"""Fully connected networks with seeded weights: MLP, autoencoder, patch denoiser, attention over bags of instances."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import onnx_ir as ir

from voxelrt.errors import UsageError
from voxelrt.models.architectures.layers import Layers, Parameters


def build_mlp(
    widths: Sequence[int] = (30, 64, 32, 2),
    *,
    batch: int = 1,
    activation: str = "Relu",
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """Layers of these widths: ``features`` (N, first) -> ``logits`` (N, last).

    Raises
    ------
    UsageError : fewer than two widths, or an activation that is not known.
    """
    net = Layers(seed, parameters)
    x = _stack(net, net.input("features", batch, _checked(widths)[0]), widths, activation)
    return net.finish("mlp", logits=(x, (batch, widths[-1])))


def build_autoencoder(
    widths: Sequence[int] = (784, 256, 64, 16),
    *,
    batch: int = 1,
    activation: str = "Tanh",
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """An encoder of these widths and its mirror: ``input`` -> ``code`` (N, last) and ``output`` (N, first)."""
    net = Layers(seed, parameters)
    code = _stack(net, net.input("input", batch, _checked(widths)[0]), widths, activation)
    output = _stack(net, code, list(reversed(widths)), activation)
    return net.finish("autoencoder", code=(code, (batch, widths[-1])), output=(output, (batch, widths[0])))


def build_patch_denoiser(
    patch: int = 13,
    hidden: Sequence[int] = (511, 511, 511),
    *,
    batch: int = 64,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """A plain neural network that maps a noisy patch to a clean one (Burger et al., CVPR 2012).

    ``noisy`` (N, patch²) -> ``clean`` (N, patch²). The network gives what is to be taken away from the patch.
    """
    net = Layers(seed, parameters)
    noisy = net.input("noisy", batch, patch * patch)
    residual = _stack(net, noisy, (patch * patch, *hidden, patch * patch), "Tanh")
    return net.finish("patch_denoiser", clean=(net.op("Sub", noisy, residual), (batch, patch * patch)))


def build_attention_pooling(
    instances: int = 64,
    features: int = 128,
    *,
    batch: int = 1,
    hidden: int = 64,
    classes: int = 2,
    gated: bool = True,
    seed: int = 0,
    parameters: Parameters | None = None,
) -> ir.Model:
    """Attention over a bag of instances (Ilse et al., ICML 2018), gated or not.

    ``bag`` (N, instances, features) -> ``logits`` (N, classes) and ``attention`` (N, instances), which sums to one.
    """
    net = Layers(seed, parameters)
    bag = net.input("bag", batch, instances, features)
    h = net.activation(net.linear(bag, features, features), "Relu")
    score = net.activation(net.linear(h, features, hidden, gain=1.0), "Tanh")
    if gated:
        score = net.op("Mul", score, net.activation(net.linear(h, features, hidden, gain=1.0), "Sigmoid"))
    score = net.op("Squeeze", net.linear(score, hidden, 1, gain=8.0), net.constant([2], "int64"))
    attention = net.op("Softmax", score, axis=1)
    pooled = net.op("Einsum", attention, h, equation="bi,bif->bf")
    logits = net.linear(pooled, features, classes, gain=1.0)
    return net.finish("attention_pooling", logits=(logits, (batch, classes)), attention=(attention, (batch, instances)))


def _checked(widths: Sequence[int]) -> Sequence[int]:
    if len(widths) < 2:
        raise UsageError(f"widths {tuple(widths)}: a network has at least an input and an output")
    return widths


def _stack(net: Layers, x: ir.Value, widths: Sequence[int], activation: str) -> ir.Value:
    pairs = list(itertools.pairwise(widths))
    for index, (before, after) in enumerate(pairs):
        x = net.linear(x, before, after, gain=1.0)
        x = net.activation(x, activation if index < len(pairs) - 1 else "")
    return x
