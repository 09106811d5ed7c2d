"""Einsum: diagonals by strides, sums by reduce, and the operands joined two at a time by matmul."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from voxelrt.kernels.reduce.codes import REDUCTIONS
from voxelrt.plan.lowering.arrangement import broadcast, transposed
from voxelrt.plan.lowering.attributes import text
from voxelrt.plan.lowering.builder import Builder, Unsupported, dims_of, lowers
from voxelrt.plan.lowering.products import product_params
from voxelrt.plan.schedule import Operand

Labels = tuple[str, ...]  # a letter, or "...0" for the last axis of an ellipsis, "...1" for the one before


@dataclass(frozen=True)
class _Term:
    """An operand whose axes are named, each name once."""

    operand: Operand
    labels: Labels

    def axes(self, order: Sequence[str]) -> Operand:
        """The operand with its axes in this order; names that it lacks are axes of one."""
        dims = [self.operand.dims[self.labels.index(n)] if n in self.labels else 1 for n in order]
        strides = [self.operand.strides[self.labels.index(n)] if n in self.labels else 0 for n in order]
        return self.operand.view(dims, strides)


def _labels(term: str, rank: int) -> Labels:
    """The names of an operand's axes."""
    if "..." not in term:
        named: Labels = tuple(term)
    else:
        before, _, behind = term.partition("...")
        spread = rank - len(before) - len(behind)
        named = (*before, *(f"...{i}" for i in reversed(range(spread))), *behind)
    if len(named) != rank:
        raise Unsupported(f"the term {term!r} for a value of {rank} axes")
    return named


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """The names of each operand's axes and of the result's. Raises Unsupported for an equation that is not one."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise Unsupported(f"the equation {equation!r} for {len(ranks)} values")
    named = [_labels(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    every = [label for term in named for label in term]
    spread = sorted({n for n in every if n.startswith("...")}, key=lambda n: -int(n[3:]))
    if not arrow:
        return named, (*spread, *sorted(n for n in set(every) if every.count(n) == 1 and n not in spread))
    before, dots, behind = right.partition("...")
    return named, (*before, *(spread if dots else ()), *behind)


def _diagonal(operand: Operand, labels: Labels) -> _Term:
    """Axes of one name become one: a step along it is a step along each."""
    names = tuple(dict.fromkeys(labels))
    dims, strides = [], []
    for name in names:
        axes = [i for i, n in enumerate(labels) if n == name]
        if len({operand.dims[i] for i in axes}) != 1:
            raise Unsupported(f"axes {name!r} of different sizes in one operand")
        dims.append(operand.dims[axes[0]])
        strides.append(sum(operand.strides[i] for i in axes))
    return _Term(operand.view(dims, strides), names)


def _summed(b: Builder, term: _Term, kept: Sequence[str]) -> _Term:
    """The term without the axes that are not kept."""
    if all(n in kept for n in term.labels):
        return term
    dims = [d if n in kept else 1 for n, d in zip(term.labels, term.operand.dims, strict=True)]
    target = b.temporary(dims, term.operand.dtype)
    b.step("reduce", [_dense(b, term.operand)], [target], op=REDUCTIONS.index("Sum"))
    labels = tuple(n for n in term.labels if n in kept)
    return _Term(target.view([d for n, d in zip(term.labels, dims, strict=True) if n in kept]), labels)


def _dense(b: Builder, operand: Operand) -> Operand:
    if operand.contiguous:
        return operand
    target = b.temporary(operand.dims, operand.dtype)
    b.step("copy", [operand], [target], reserved=0)
    return target


def _join(b: Builder, x: _Term, y: _Term, kept: Sequence[str]) -> _Term:
    """Two terms multiplied and summed over what neither the result nor a later term has."""
    x = _summed(b, x, (*kept, *y.labels))
    y = _summed(b, y, (*kept, *x.labels))
    both = [n for n in x.labels if n in y.labels]
    batch, inner = [n for n in both if n in kept], [n for n in both if n not in kept]
    rows, columns = [n for n in x.labels if n not in both], [n for n in y.labels if n not in both]
    sizes = {n: d for t in (y, x) for n, d in zip(t.labels, t.operand.dims, strict=True)}
    for name in both:
        sizes[name] = int(np.broadcast_shapes((x.axes([name]).dims[0],), (y.axes([name]).dims[0],))[0])

    def matrix(term: _Term, first: Sequence[str], second: Sequence[str]) -> Operand:
        order = [*batch, *first, *second]
        full = _dense(b, broadcast(term.axes(order), [sizes[n] for n in order]))
        return full.view([int(np.prod([sizes[n] for n in group])) for group in (batch, first, second)])

    left, right = matrix(x, rows, inner), matrix(y, inner, columns)
    target = b.temporary((left.dims[0], left.dims[1], right.dims[2]), left.dtype)
    b.step("matmul", [left, right], [target], flops=2 * target.count * left.dims[2], **product_params())
    labels = (*batch, *rows, *columns)
    return _Term(target.view([sizes[n] for n in labels]), labels)


@lowers("Einsum")
def einsum(b: Builder, node: ir.Node) -> None:
    """Einsum of any number of values, from the left."""
    values = [v for v in node.inputs if v is not None]
    named, result = parse(text(node, "equation", ""), [len(dims_of(v)) for v in values])
    terms = [_diagonal(b.linear(v), labels) for v, labels in zip(values, named, strict=True)]
    sofar = terms[0]
    for i, term in enumerate(terms[1:], start=2):
        sofar = _join(b, sofar, term, (*result, *(n for later in terms[i:] for n in later.labels)))
    sofar = _summed(b, sofar, result)
    if sorted(sofar.labels) != sorted(result):
        raise Unsupported(f"a result with the axes {result} of terms with {sofar.labels}")
    order = [sofar.labels.index(n) for n in result]
    b.step("copy", [transposed(sofar.operand, order)], [b.result(node.outputs[0])], reserved=0)
