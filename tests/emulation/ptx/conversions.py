"""cvt: between integers and floats of all widths, and two floats to a pair of halves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.emulation.ptx.errors import UnknownInstructionError
from tests.emulation.ptx.registers import DTYPES

Vector = Any
_TO_INTEGER = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
_HALF_BITS = 13  # of a float32's fraction that tf32 does not have


def round_tf32(values: Vector) -> Vector:
    """float32 to the nearest tf32, ties away from zero (cvt.rna); still float32."""
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(1 << (_HALF_BITS - 1))) & np.uint32(0xFFFFFFFF << _HALF_BITS & 0xFFFFFFFF)
    return np.where(np.isfinite(values), rounded, bits).view(np.float32)


def truncate_tf32(values: Vector) -> Vector:
    """float32 as a tensor core reads it: the low bits are not looked at."""
    return (values.view(np.uint32) & np.uint32(0xFFFFFFFF << _HALF_BITS & 0xFFFFFFFF)).view(np.float32)


def conversion(opcode: tuple[str, ...]) -> tuple[str, tuple[str, ...], Callable[..., Vector]]:
    """(type of the result, types of the operands, operation) of a ``cvt``."""
    words = opcode[1:]
    kinds = [w for w in words if w in DTYPES]
    if len(kinds) != 2:
        raise UnknownInstructionError(".".join(opcode))
    to, of = kinds
    if to in ("f16x2", "bf16x2"):
        return to, (of, of), lambda a, b: np.stack([b, a], -1).astype(DTYPES[to]).ravel()
    if to == "tf32":
        return "b32", (of,), round_tf32
    rounding = next((_TO_INTEGER[w] for w in words if w in _TO_INTEGER), None)
    source, target = DTYPES[of], DTYPES[to]
    if source.kind not in "fV":
        return to, (of,), _from_integer(target, "sat" in words)
    if target.kind in "fV":
        direction = next((w for w in words if w in ("rz", "rm", "rp")), "")
        return to, (of,), _between_floats(target, rounding, "sat" in words, direction)
    return to, (of,), lambda a: _to_integer(a, target, rounding or np.trunc)


def _from_integer(target: Any, saturate: bool) -> Callable[[Vector], Vector]:
    if saturate and target.kind in "iu":
        limits = np.iinfo(target)
        return lambda a: np.clip(a.astype(object), limits.min, limits.max).astype(target)
    return lambda a: a.astype(target)


def _between_floats(target: Any, rounding: Any, saturate: bool, direction: str) -> Callable[[Vector], Vector]:
    def convert(a: Vector) -> Vector:
        value = a.astype(np.float64) if a.dtype.itemsize < 8 else a
        value = rounding(value) if rounding is not None else value
        out = np.clip(value, 0, 1).astype(target) if saturate else value.astype(target)
        if direction and target.itemsize < a.dtype.itemsize:
            back = out.astype(np.float64)
            wrong = {"rz": np.abs(back) > np.abs(value), "rm": back > value, "rp": back < value}[direction]
            toward = out.dtype.type({"rz": 0, "rm": -np.inf, "rp": np.inf}[direction])
            out = np.where(wrong, np.nextafter(out, toward), out)
        return out

    return convert


def _to_integer(a: Vector, target: Any, rounding: Any) -> Vector:
    value = rounding(a.astype(np.float64))
    limits = np.iinfo(target)
    inside = np.nan_to_num(value, nan=0.0)
    low, high = inside <= float(limits.min), inside >= float(limits.max)
    plain = np.where(low | high, 0.0, inside).astype(target)
    return np.where(low, target.type(limits.min), np.where(high, target.type(limits.max), plain))
