"""One node of a TensorFlow graph as its importer sees it, and the table of importers by op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from voxelrt.errors import ModelError
from voxelrt.models.formats.tensorflow_schema import DTYPES
from voxelrt.models.formats.tensorflow_values import Array, Builder, Cannot, Order, Value


@dataclass
class Node:
    """A node with its attributes and the values of its data inputs.

    ``sole_reader`` says that no other node reads its first input, so that it may be folded into the node before it.
    """

    name: str
    op: str
    attributes: dict[str, Any]
    inputs: list[Value] = field(default_factory=list)
    sole_reader: bool = False

    def input(self, index: int) -> Value:
        """The value of a data input; ModelError if the node has no such input."""
        if not -len(self.inputs) <= index < len(self.inputs):
            raise ModelError(f"node {self.name} ({self.op}) has {len(self.inputs)} inputs, one more is needed")
        return self.inputs[index]

    def array(self, index: int) -> Array:
        """The constant at a data input; Cannot if it is known only at run time."""
        array = self.input(index).array
        if array is None or array.dtype == object:
            raise Cannot(f"input {index} is not a constant")
        return array

    def integers(self, index: int) -> list[int]:
        """The constant at a data input as a flat list of ints."""
        return [int(v) for v in self.array(index).ravel().tolist()]

    def partial(self, index: int) -> Array:
        """The constant at a data input, where Symbols may stand for dims that are not fixed."""
        array = self.input(index).array
        if array is None:
            raise Cannot(f"input {index} is known only at run time")
        return array

    def text(self, key: str, default: str) -> str:
        """A string attribute."""
        return bytes(self.attributes[key].s).decode("utf-8", "replace") if key in self.attributes else default

    def ints(self, key: str, default: Sequence[int]) -> list[int]:
        """A list-of-ints attribute."""
        found = [int(v) for v in self.attributes[key].list.i] if key in self.attributes else []
        return found or list(default)

    def integer(self, key: str, default: int) -> int:
        """An int attribute."""
        return int(self.attributes[key].i) if key in self.attributes else default

    def number(self, key: str, default: float) -> float:
        """A float attribute."""
        return float(self.attributes[key].f) if key in self.attributes else default

    def flag(self, key: str, default: bool = False) -> bool:
        """A bool attribute."""
        return bool(self.attributes[key].b) if key in self.attributes else default

    def dtype(self, key: str, default: str = "float32") -> np.dtype[Any]:
        """A type attribute as NumPy's; Cannot if it is not a number type."""
        if key not in self.attributes:
            return np.dtype(default)
        code = int(self.attributes[key].type)
        if code not in DTYPES:
            raise Cannot(f"TensorFlow dtype {code} is not a number type")
        return DTYPES[code][0]


@dataclass(frozen=True)
class Axes:
    """Where batch, channel and space lie in a tensor with a ``data_format``, and how ONNX wants them stored."""

    channel: int
    space: tuple[int, ...]

    @property
    def order(self) -> Order:
        return (0, self.channel, *self.space)


def axes_of(node: Node, rank: int) -> Axes:
    """The axes of a convolution-like node's input from its ``data_format`` (default: channels last)."""
    text = node.text("data_format", "")
    if rank < 3 or len(text) not in (0, rank):
        raise ModelError(f"node {node.name} ({node.op}): data_format {text!r} on a tensor with {rank} dims")
    if text.startswith("NC") and text != "NC":
        return Axes(1, tuple(range(2, rank)))
    if text and not (text.startswith("N") and text.endswith("C")):
        raise Cannot(f"data_format {text} is not known")
    return Axes(rank - 1, tuple(range(1, rank - 1)))


Importer: TypeAlias = Callable[[Builder, Node], Value]
IMPORTERS: dict[str, Importer] = {}


def importer(*ops: str) -> Callable[[Importer], Importer]:
    """Register a function as the importer of these TensorFlow ops."""

    def register(function: Importer) -> Importer:
        for op in ops:
            IMPORTERS[op] = function
        return function

    return register
