"""What an edge of a TensorFlow graph becomes: a constant, a partly known shape, or an ONNX value with its axis order.

A value remembers in which order its axes are *stored*. TensorFlow's ``Transpose`` and its channels-last convolutions
then cost nothing: the order is carried along, and a real Transpose appears only where somebody needs another one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from voxelrt.errors import ModelError

# A constant that folding makes may take this much; past it a few bytes of file could ask for any amount of memory.
FOLD_LIMIT = 1 << 26
MAX_DIM = (1 << 31) - 1
MAX_ELEMENTS = 1 << 36

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Dim: TypeAlias = "int | Symbol"
Shape: TypeAlias = "tuple[Dim, ...]"
Order: TypeAlias = tuple[int, ...]


class Cannot(Exception):  # noqa: N818 - control flow of the importer, collected into one UnsupportedError
    """This node is sound but is outside of what can be imported; the text is the reason."""


class Symbol:
    """A dimension that the file leaves open. Arithmetic on it is kept as text, so that equal results are seen.

    ``named`` is false for a dim that merely is unknown: its text is made up.
    """

    _numbers = itertools.count()

    def __init__(self, text: str | None = None, named: bool = True) -> None:
        # The text is cut off because x + x, repeated, doubles its length each time.
        self.named = named and text is not None and len(text) < 120
        self.text = text if text is not None and len(text) < 120 else f"dim_{next(self._numbers)}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Symbol) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return self.text

    def _join(self, sign: str, left: object, right: object) -> Symbol:
        named = all(side.named for side in (left, right) if isinstance(side, Symbol))
        return Symbol(f"({left}{sign}{right})", named)

    def __add__(self, other: object) -> Dim:
        return self if _is(other, 0) else self._join("+", self, other)

    def __radd__(self, other: object) -> Dim:
        return self + other

    def __sub__(self, other: object) -> Dim:
        return self if _is(other, 0) else self._join("-", self, other)

    def __rsub__(self, other: object) -> Dim:
        return self._join("-", other, self)

    def __mul__(self, other: object) -> Dim:
        if _is(other, 0):
            return 0
        return self if _is(other, 1) else self._join("*", self, other)

    def __rmul__(self, other: object) -> Dim:
        return self * other

    def __floordiv__(self, other: object) -> Dim:
        return self if _is(other, 1) else self._join("//", self, other)


def _is(value: object, number: int) -> bool:
    return not isinstance(value, Symbol) and value == number


@dataclass(eq=False)
class Value:
    """One edge of the TensorFlow graph.

    Exactly one of ``array`` and ``stored`` is set. An ``array`` of dtype object holds a partly known shape: Python ints
    and Symbols. ``shape`` is in TensorFlow's axis order; axis ``i`` of ``stored`` holds TensorFlow's axis ``order[i]``.
    """

    name: str
    dtype: np.dtype[Any]
    shape: Shape
    array: Array | None = None
    stored: ir.Value | None = None
    order: Order = ()
    arranged: dict[Order, ir.Value] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        return len(self.shape)


def constant(name: str, array: Array) -> Value:
    """A constant; an object array whose elements are all known becomes int64, and numbers past int64 are refused."""
    if array.dtype == object:
        flat = array.ravel().tolist()
        if any(not isinstance(v, Symbol) and abs(v) >= 1 << 63 for v in flat):
            raise ModelError(f"node {name}: a shape in it does not fit 64 bits")
        if not any(isinstance(v, Symbol) for v in flat):
            array = array.astype(np.int64)
    dtype = np.dtype(np.int64) if array.dtype == object else array.dtype
    return Value(name, dtype, tuple(array.shape), array=array)


def check_shape(shape: Iterable[Dim], where: str) -> Shape:
    """The shape as a tuple; ModelError if a dim or the number of elements is past all reason."""
    out = tuple(d if isinstance(d, Symbol) else int(d) for d in shape)
    known = [d for d in out if not isinstance(d, Symbol)]
    if any(not 0 <= d <= MAX_DIM for d in known) or math.prod(known) > MAX_ELEMENTS:
        raise ModelError(f"node {where}: its shape {out} is not possible")
    return out


def axis_of(axis: int, rank: int) -> int:
    """The axis counted from 0; ModelError if there is none such."""
    if not -rank <= axis < rank:
        raise ModelError(f"axis {axis} of a tensor with {rank} dims")
    return axis % rank


@dataclass(eq=False)
class Step:
    """An ONNX node to be: it becomes an ``onnx_ir.Node`` only at the end, so that a bias can still join its inputs."""

    name: str
    op: str
    inputs: list[ir.Value | None]
    output: ir.Value
    attributes: Mapping[str, Any] | None

    def node(self) -> ir.Node:
        return ir.node(self.op, self.inputs, self.attributes, outputs=[self.output], name=self.name)


class Builder:
    """Collects the ONNX nodes and initializers; names are unique and follow the TensorFlow nodes.

    Parameters
    ----------
    budget : bytes that all constants together may take, so that no file can ask for more than it brings.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.steps: dict[ir.Value, Step] = {}
        self.initializers: list[ir.Value] = []
        self.notes: list[str] = []
        self._names: set[str] = set()

    def charge(self, size: int) -> None:
        """Take ``size`` bytes off the budget; ModelError when it is used up."""
        self.budget -= size
        if self.budget < 0:
            raise ModelError("the constants that the graph computes take more memory than a graph of its size can need")

    def rename(self, value: ir.Value, name: str) -> None:
        """Give an output its name; the node that holds it now is called after its order."""
        if value.name == name:
            return
        for other in [*self.steps, *self.initializers]:
            if other.name == name:
                other.name = self.unique(f"{name}/channels_first")
        self._names.add(name)
        value.name = name

    def unique(self, name: str) -> str:
        """The name, with a number behind it where it is taken."""
        free = next(n for n in itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1))) if self._free(n))
        self._names.add(free)
        return free

    def _free(self, name: str) -> bool:
        return bool(name) and name not in self._names

    def input(self, name: str, dtype: np.dtype[Any], shape: Shape) -> Value:
        """A graph input, in TensorFlow's axis order."""
        stored = _typed(self.unique(name), dtype, check_shape(shape, name))
        return Value(name, dtype, shape, stored=stored, order=tuple(range(len(shape))))

    def initializer(self, name: str, array: Array) -> ir.Value:
        """A new initializer that holds the array (C-contiguous, little-endian)."""
        self.charge(array.nbytes)
        unique = self.unique(name)
        value = _typed(unique, array.dtype, array.shape)
        value.const_value = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=unique)
        self.initializers.append(value)
        return value

    def emit(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        dtype: np.dtype[Any],
        shape: Shape,
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """Add one ONNX node with one output; ``shape`` is the output's, in stored order."""
        out = _typed(self.unique(name), dtype, shape)
        self.steps[out] = Step(out.name or name, op, list(inputs), out, attributes)
        return out

    def result(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        like: tuple[np.dtype[Any], Shape, Order],
        attributes: Mapping[str, Any] | None = None,
    ) -> Value:
        """Add one ONNX node and wrap its output; ``like`` is dtype, TensorFlow shape and stored order."""
        dtype, shape, order = like
        shape = check_shape(shape, name)
        return Value(
            name,
            dtype,
            shape,
            stored=self.emit(op, inputs, name, dtype, tuple(shape[a] for a in order), attributes),
            order=order,
        )

    def stored(self, value: Value, order: Order | None = None) -> ir.Value:
        """The ONNX value with its axes in ``order`` (default: TensorFlow's own), transposed only where it must be.

        Raises
        ------
        Cannot
            The value is a shape that is not fixed.
        """
        order = tuple(range(value.rank)) if order is None else order
        if order in value.arranged:
            return value.arranged[order]
        if value.array is not None:
            if value.array.dtype == object:
                raise Cannot("it computes with a dimension that is not fixed; give the shapes of the inputs")
            made = self.initializer(value.name, value.array.transpose(order))
        elif value.stored is not None and order == value.order:
            made = value.stored
        else:
            made = self._rearrange(value, order)
        value.arranged[order] = made
        return made

    def _rearrange(self, value: Value, order: Order) -> ir.Value:
        assert value.stored is not None
        now = tuple(value.shape[a] for a in value.order)
        then = tuple(value.shape[a] for a in order)
        name = f"{value.name}/{'x'.join(str(a) for a in order)}"
        moving = [a for a in value.order if value.shape[a] != 1]
        symbols = sum(isinstance(d, Symbol) for d in now)
        # Where only axes of extent 1 move, memory stays as it is and a Reshape, which copies nothing, is enough.
        if moving == [a for a in order if value.shape[a] != 1] and symbols <= 1:
            dims = np.array([-1 if isinstance(d, Symbol) else d for d in then], np.int64)
            target = self.initializer(f"{name}/shape", dims)
            return self.emit("Reshape", [value.stored, target], name, value.dtype, then)
        perm = [value.order.index(a) for a in order]
        return self.emit("Transpose", [value.stored], name, value.dtype, then, {"perm": perm})


def _typed(name: str, dtype: np.dtype[Any], shape: Shape) -> ir.Value:
    # A made-up name differs from one import to the next, which the identity of a plan must not: such a dim has none.
    dims = [(d.text if d.named else None) if isinstance(d, Symbol) else d for d in shape]
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(dtype)), shape=ir.Shape(dims))
