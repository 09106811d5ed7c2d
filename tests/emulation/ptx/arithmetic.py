"""Arithmetic, logic, comparison and selection: an opcode to a function of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.emulation.ptx.errors import UnknownInstructionError
from tests.emulation.ptx.registers import DTYPES

Vector = Any
Operation = Callable[..., Vector]

COMPARISONS: dict[str, Callable[[Vector, Vector], Vector]] = {
    "eq": np.equal,
    "ne": lambda a, b: (a != b) & ~(_nan(a) | _nan(b)),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
    "equ": lambda a, b: ~((a != b) & ~(_nan(a) | _nan(b))),
    "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
    "num": lambda a, b: ~(_nan(a) | _nan(b)),
    "nan": lambda a, b: _nan(a) | _nan(b),
}


def _nan(a: Vector) -> Vector:
    return a != a


def _through_float64(function: Callable[..., Vector]) -> Operation:
    """One rounding from float64: exact for a product and, but for rare double roundings, for a fused multiply-add."""
    return lambda *arrays: function(*(a.astype(np.float64) for a in arrays)).astype(arrays[0].dtype)


def _truncated(a: Vector, b: Vector) -> Vector:
    safe = np.where(b == 0, b.dtype.type(1), b)
    if a.dtype.kind == "u":
        return np.where(b == 0, ~np.zeros_like(a), a // safe)
    plain = np.dtype(f"u{a.dtype.itemsize}")  # where the magnitude of the least number has room
    quotient = (np.abs(a).view(plain) // np.abs(safe).view(plain)).view(a.dtype)
    return np.where(b == 0, ~np.zeros_like(a), np.where((a < 0) ^ (b < 0), -quotient, quotient))


def _remainder(a: Vector, b: Vector) -> Vector:
    return a - _truncated(a, b) * b


def _high(a: Vector, b: Vector) -> Vector:
    bits = 8 * a.dtype.itemsize
    wide = object if bits == 64 else np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
    return ((a.astype(wide) * b.astype(wide)) >> bits).astype(a.dtype)


def _wide(a: Vector) -> Vector:
    return a.astype(np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}"))


def _left(a: Vector, n: Vector) -> Vector:
    bits = 8 * a.dtype.itemsize
    return np.where(n >= bits, a.dtype.type(0), a << np.minimum(n, bits - 1).astype(a.dtype))


def _right(a: Vector, n: Vector) -> Vector:
    bits = 8 * a.dtype.itemsize
    shifted = a >> np.minimum(n, bits - 1).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(n >= bits, a.dtype.type(0), shifted)


def _extract(a: Vector, position: Vector, length: Vector) -> Vector:
    bits = 8 * a.dtype.itemsize
    p, n = (np.minimum(v & 0xFF, bits).astype(np.int64) for v in (position, length))
    plain = a.astype(np.dtype(f"u{a.dtype.itemsize}")).astype(object)
    mask = (1 << n.astype(object)) - 1
    field = (plain >> p.astype(object)) & mask
    if a.dtype.kind == "i":
        top = np.minimum(p + n - 1, bits - 1)
        sign = np.where(n > 0, (plain >> top.astype(object)) & 1, 0)
        kept = np.clip(bits - p, 0, n).astype(object)  # what lies past the top is sign too
        low = field & ((1 << kept) - 1)
        field = np.where(sign == 1, low | (((1 << bits) - 1) ^ ((1 << kept) - 1)), low)
    return field.astype(np.dtype(f"u{a.dtype.itemsize}")).view(a.dtype)


def _insert(a: Vector, b: Vector, position: Vector, length: Vector) -> Vector:
    bits = 8 * a.dtype.itemsize
    place, count = ((v & 0xFF).astype(object) for v in (position, length))
    mask = (((1 << count) - 1) << place) & ((1 << bits) - 1)
    return ((b.astype(object) & ~mask) | ((a.astype(object) << place) & mask)).astype(a.dtype)


def _permute(a: Vector, b: Vector, selector: Vector) -> Vector:
    whole = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
    out = np.zeros_like(a)
    for byte in range(4):
        nibble = (selector >> np.uint32(4 * byte)) & np.uint32(0xF)
        value = ((whole >> ((nibble & 7).astype(np.uint64) * np.uint64(8))) & np.uint64(0xFF)).astype(np.uint32)
        sign = np.where(value & 0x80, np.uint32(0xFF), np.uint32(0))
        out |= np.where(nibble & 8, sign, value) << np.uint32(8 * byte)
    return out


def _any_logic(a: Vector, b: Vector, c: Vector, table: Vector) -> Vector:
    code = int(np.ravel(table)[0])
    out = np.zeros_like(a)
    for row in range(8):
        if code >> row & 1:
            out |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
    return out


def _funnel(left: bool, clamp: bool) -> Operation:
    def shift(low: Vector, high: Vector, n: Vector) -> Vector:
        count = (np.minimum(n, 32) if clamp else n & np.uint32(31)).astype(np.uint64)
        both = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
        if left:
            return ((both << count) >> np.uint64(32)).astype(np.uint32)
        return (both >> count).astype(np.uint32)

    return shift


def _leading_zeros(a: Vector) -> Vector:
    bits = 8 * a.dtype.itemsize
    return np.asarray([bits - int(v).bit_length() for v in a.ravel()], np.uint32)


def _dot4(a: Vector, b: Vector, c: Vector) -> Vector:
    kind = {"i": np.int8, "u": np.uint8}
    parts = a.view(kind[a.dtype.kind]).reshape(-1, 4).astype(np.int64) * b.view(kind[b.dtype.kind]).reshape(-1, 4)
    return (parts.sum(axis=1) + c).astype(c.dtype)


def _quiet_minimum(a: Vector, b: Vector) -> Vector:
    return np.fmin(a, b) if a.dtype.kind == "f" else np.minimum(a, b)


def _quiet_maximum(a: Vector, b: Vector) -> Vector:
    return np.fmax(a, b) if a.dtype.kind == "f" else np.maximum(a, b)


SIMPLE: dict[str, Operation] = {
    "sub": lambda a, b: a - b,
    "add": lambda a, b: a + b,
    "div": lambda a, b: a / b if a.dtype.kind in "fV" else _truncated(a, b),
    "rem": _remainder,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "not": lambda a: ~a,
    "cnot": lambda a: (a == 0).astype(a.dtype),
    "neg": lambda a: -a if a.dtype.kind != "u" else (~a + a.dtype.type(1)),
    "abs": np.abs,
    "shl": _left,
    "shr": _right,
    "min": _quiet_minimum,
    "max": _quiet_maximum,
    "copysign": lambda a, b: np.copysign(b, a),
    "sqrt": _through_float64(np.sqrt),
    "rsqrt": _through_float64(lambda a: 1 / np.sqrt(a)),
    "rcp": _through_float64(lambda a: 1 / a),
    "ex2": _through_float64(np.exp2),
    "lg2": _through_float64(np.log2),
    "sin": _through_float64(np.sin),
    "cos": _through_float64(np.cos),
    "tanh": _through_float64(np.tanh),
    "bfe": _extract,
    "bfi": _insert,
    "prmt": _permute,
    "lop3": _any_logic,
    "clz": _leading_zeros,
    "popc": lambda a: np.bitwise_count(a).astype(np.uint32),
    "brev": lambda a: np.asarray([int(f"{int(v):0{8 * a.itemsize}b}"[::-1], 2) for v in a], a.dtype),
    "sad": lambda a, b, c: c + np.where(a < b, b - a, a - b),
    "dp4a": _dot4,
}
# The types of operands that do not have the instruction's own.
_COUNTS = {"shl": ("", "u32"), "shr": ("", "u32"), "bfe": ("", "u32", "u32"), "bfi": ("", "", "u32", "u32")}
_RESULTS = {"clz": "u32", "popc": "u32"}


def simple(opcode: tuple[str, ...]) -> tuple[str, tuple[str, ...], Operation]:
    """(type of the result, types of the operands, operation) of an arithmetic instruction."""
    name, words = opcode[0], opcode[1:]
    kind = words[-1] if words else "b32"
    if name in ("mul", "mad", "fma"):
        return _products(name, words, kind)
    if name == "shf":
        return "b32", ("b32", "b32", "u32"), _funnel(words[0] == "l", words[1] == "clamp")
    if name == "dp4a":
        return ("s32" if "s" in words[0] + words[1] else "u32"), (words[0], words[1], "s32"), _dot4
    if name not in SIMPLE or kind not in DTYPES or (name == "prmt" and kind != "b32"):
        raise UnknownInstructionError(".".join(opcode))
    operation = SIMPLE[name]
    if name in ("min", "max") and "NaN" in words:
        operation = np.minimum if name == "min" else np.maximum
    if "sat" in words and DTYPES[kind].kind == "f":
        plain = operation
        operation = lambda *v: np.clip(plain(*v), 0, 1)  # noqa: E731
    kinds = _COUNTS.get(name, ("", "", "", ""))
    return _RESULTS.get(name, kind), tuple(k or kind for k in kinds), operation


def _products(name: str, words: tuple[str, ...], kind: str) -> tuple[str, tuple[str, ...], Operation]:
    dtype = DTYPES[kind]
    if dtype.kind in "fV":
        operation = _through_float64(lambda a, b, c: a * b + c) if name != "mul" else (lambda a, b: a * b)
        if "relu" in words:
            plain = operation
            operation = lambda *v: np.maximum(plain(*v), 0)  # noqa: E731
        if "sat" in words:
            kept = operation
            operation = lambda *v: np.clip(kept(*v), 0, 1)  # noqa: E731
        return kind, (kind,) * 3, operation
    result = f"{kind[0]}{2 * int(kind[1:])}" if "wide" in words else kind
    if "wide" in words:
        product: Operation = lambda a, b: _wide(a) * _wide(b)  # noqa: E731
    elif "hi" in words:
        product = _high
    else:
        product = lambda a, b: a * b  # noqa: E731
    if name == "mul":
        return result, (kind, kind), product
    return result, (kind, kind, result), lambda a, b, c: product(a, b) + c
