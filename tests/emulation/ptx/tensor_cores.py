"""mma.sync and ldmatrix: which lane holds which element, as the PTX manual draws it, and the product itself.

PTX ISA 8.8, "Matrix Fragments for mma.m16n8k16 with floating point type" and its neighbours. With g = lane / 4 and
t = lane % 4, rows of A and of the result are g and g + 8, columns of B are g.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.emulation.ptx.conversions import truncate_tf32
from tests.emulation.ptx.errors import UnknownInstructionError
from tests.emulation.ptx.registers import DTYPES

Vector = Any
_G, _T = np.arange(32) // 4, np.arange(32) % 4


def _fragment_a(registers: list[Vector], dtype: Any, depth: int) -> Vector:
    """(16, depth) from the registers of 32 lanes; a register holds 4 / itemsize neighbours along the depth."""
    each = 4 // dtype.itemsize
    matrix = np.zeros((16, depth), dtype)
    for index, register in enumerate(registers):
        row = _G + 8 * (index % 2)
        first = (_T + 4 * (index // 2)) * each
        values = register.view(dtype).reshape(32, each)
        for e in range(each):
            matrix[row, first + e] = values[:, e]
    return matrix


def _fragment_b(registers: list[Vector], dtype: Any, depth: int) -> Vector:
    """(depth, 8)."""
    each = 4 // dtype.itemsize
    matrix = np.zeros((depth, 8), dtype)
    for index, register in enumerate(registers):
        first = (_T + 4 * index) * each
        values = register.view(dtype).reshape(32, each)
        for e in range(each):
            matrix[first + e, _G] = values[:, e]
    return matrix


def _gather_c(registers: list[Vector], dtype: Any) -> Vector:
    """(16, 8): pairs of neighbours along the columns."""
    matrix = np.zeros((16, 8), dtype)
    each = 4 // dtype.itemsize  # one float or int a register, or two halves
    for index, register in enumerate(registers):
        values = register.view(dtype).reshape(32, each)
        for e in range(each):
            place = index * each + e
            matrix[_G + 8 * (place // 2), _T * 2 + place % 2] = values[:, e]
    return matrix


def _scatter_c(matrix: Vector, count: int) -> list[Vector]:
    each = 4 // matrix.dtype.itemsize
    out = []
    for index in range(count):
        values = np.empty((32, each), matrix.dtype)
        for e in range(each):
            place = index * each + e
            values[:, e] = matrix[_G + 8 * (place // 2), _T * 2 + place % 2]
        out.append(values.ravel().view(np.uint32))
    return out


def multiply(opcode: tuple[str, ...], a: list[Vector], b: list[Vector], c: list[Vector]) -> list[Vector]:
    """One ``mma.sync.aligned.m16n8kK.row.col.D.A.B.C`` on a warp's registers (uint32 each)."""
    shape = next((w for w in opcode if w.startswith("m16n8k")), None)
    kinds = opcode[-4:]
    if shape is None or kinds[1] not in ("f16", "bf16", "tf32", "s8", "u8"):
        raise UnknownInstructionError(".".join(opcode))
    depth = int(shape.removeprefix("m16n8k"))
    dtypes = [DTYPES[kind] for kind in kinds]
    left, right = _fragment_a(a, dtypes[1], depth), _fragment_b(b, dtypes[2], depth)
    if kinds[1] == "tf32":
        left, right = truncate_tf32(left), truncate_tf32(right)
    wide = np.int64 if dtypes[1].kind in "iu" else np.float64
    with np.errstate(all="ignore"):
        product = left.astype(wide) @ right.astype(wide) + _gather_c(c, dtypes[3]).astype(wide)
        return _scatter_c(product.astype(dtypes[0]), len(c))


def load_matrices(rows: Vector, count: int, transposed: bool) -> list[Vector]:
    """ldmatrix: ``rows`` is (8 · count, 8) 16-bit numbers, one row of eight for each address; gives registers."""
    out = []
    for index in range(count):
        matrix = rows[8 * index : 8 * index + 8]
        if transposed:
            matrix = matrix.T
        pair = np.stack([matrix[_G, _T * 2], matrix[_G, _T * 2 + 1]], -1)
        out.append(np.ascontiguousarray(pair).view(np.uint32).ravel())
    return out
