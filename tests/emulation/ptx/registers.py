"""Registers of a warp, and how an operand's text becomes a function that reads or writes it.

A register is an array of 32 unsigned numbers of its width (bool for predicates), whatever its type: PTX's types belong
to instructions. A list of all registers is a warp's ``registers``; compiled instructions know their places in it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from tests.emulation.ptx.errors import UnknownInstructionError
from tests.emulation.ptx.parse import SIZES, Function

Vector = Any
Getter = Callable[[Any], Vector]
Setter = Callable[[Any, Vector, Vector | None], None]

DTYPES: dict[str, Any] = {
    "pred": np.dtype(bool),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "f16x2": np.dtype(np.float16),
    "bf16x2": np.dtype(ml_dtypes.bfloat16),
    "tf32": np.dtype(np.float32),
}
for _bits in (8, 16, 32, 64):
    DTYPES |= {f"b{_bits}": np.dtype(f"u{_bits // 8}"), f"u{_bits}": np.dtype(f"u{_bits // 8}")}
    DTYPES[f"s{_bits}"] = np.dtype(f"i{_bits // 8}")
WIDTHS = {**SIZES, "f16x2": 4, "bf16x2": 4, "tf32": 4}
_SPECIAL = {"%tid", "%ntid", "%ctaid", "%nctaid", "%laneid", "%warpid", "WARP_SZ", "%lanemask_lt", "%lanemask_le"}
_SPECIAL |= {"%lanemask_eq", "%lanemask_ge", "%lanemask_gt"}
LANES = 32


def unsigned(width: int) -> Any:
    """The unsigned type of so many bytes."""
    return np.dtype(f"u{width}")


class Operands:
    """Turns operands of one function into getters and setters."""

    def __init__(self, function: Function, addresses: dict[str, int]) -> None:
        self.places = {name: place for place, name in enumerate(function.registers)}
        self.types = function.registers
        self.addresses = addresses  # of variables that the PTX declares

    def fresh(self) -> list[Vector]:
        """A warp's registers, holding nothing sensible."""
        sizes = [(kind, SIZES[kind]) for kind in self.types.values()]
        return [
            np.zeros(LANES, bool) if kind == "pred" else np.full(LANES, (1 << 8 * size) - 1, unsigned(size))
            for kind, size in sizes
        ]

    def get(self, text: str, kind: str) -> Getter:
        """Reads an operand as a type: 32 numbers, 64 for packed halves, or one where it is a constant."""
        if text in self.places:
            return self._register(text, kind)
        if text.startswith("!") and text[1:] in self.places:
            place = self.places[text[1:]]
            return lambda warp: ~warp.registers[place]
        if text.split(".")[0] in _SPECIAL:
            return self._special(text, kind)
        if text in self.addresses:
            value = np.full(LANES, self.addresses[text], DTYPES[kind])
            return lambda warp: value
        constant = _constant(text, kind)
        return lambda warp: constant

    def _register(self, text: str, kind: str) -> Getter:
        place, have = self.places[text], SIZES[self.types[text]]
        dtype, want = DTYPES[kind], WIDTHS[kind]
        if kind == "pred" or (have == want and dtype == unsigned(want)):
            return lambda warp: warp.registers[place]
        if have == want:
            return lambda warp: warp.registers[place].view(dtype)
        narrow = unsigned(want)
        return lambda warp: warp.registers[place].astype(narrow).view(dtype)

    def _special(self, text: str, kind: str) -> Getter:
        dtype = DTYPES[kind]
        if text == "WARP_SZ":
            return lambda warp: np.full(LANES, LANES, dtype)
        return lambda warp: warp.special[text].astype(dtype)

    def put(self, text: str, kind: str) -> Setter:
        """Writes active lanes of a register. Signed types narrower than the register are sign-extended."""
        if text == "_":
            return lambda warp, value, mask: None
        if text not in self.places:
            raise UnknownInstructionError(f"{text} is no register")
        place, have, want = self.places[text], SIZES[self.types[text]], WIDTHS[kind]
        if self.types[text] == "pred":
            convert: Callable[[Vector], Vector] = lambda value: value  # noqa: E731
        elif have == want:
            wide = unsigned(have)
            convert = lambda value: value.view(wide)  # noqa: E731
        else:
            signed, wide = np.dtype(f"i{have}" if kind[0] == "s" else f"u{have}"), unsigned(have)
            bits = np.dtype(f"i{want}" if kind[0] == "s" else f"u{want}")
            convert = lambda value: value.view(bits).astype(signed).view(wide)  # noqa: E731

        def put(warp: Any, value: Vector, mask: Vector | None) -> None:
            bits = convert(value)
            if mask is not None:
                bits = np.where(mask, bits, warp.registers[place])
            elif bits.shape != (LANES,):
                bits = np.broadcast_to(bits, (LANES,)).copy()
            warp.registers[place] = bits

        return put

    def address(self, text: str) -> tuple[Getter, int]:
        """``[register+offset]`` or ``[name+offset]``: what to add up."""
        base, sign, offset = text.strip("[] ").replace(" ", "").replace("+-", "-").partition("+")
        if not sign and "-" in base[1:]:
            base, _, offset = base.rpartition("-")
            offset = "-" + offset
        value = int(offset, 0) if offset else 0
        kind = "u64" if SIZES.get(self.types.get(base, "b64"), 8) == 8 else "u32"
        read = self.get(base, kind)
        shift = np.uint64(value % 2**64)
        return (lambda warp: read(warp).astype(np.uint64) + shift), value


def _constant(text: str, kind: str) -> Vector:
    dtype, width = DTYPES[kind], WIDTHS[kind]
    if text[:2] in ("0f", "0F"):
        raw = struct.unpack("<f", struct.pack("<I", int(text[2:], 16)))[0]
        number = np.full(LANES, raw, np.float32)
        return number.view(np.uint32).view(dtype) if width == 4 else number.astype(dtype)
    if text[:2] in ("0d", "0D"):
        return np.full(LANES, int(text[2:], 16), np.uint64).view(np.float64).view(dtype)
    try:
        number = int(text.rstrip("U"), 0)
    except ValueError:
        raise UnknownInstructionError(f"the operand {text}") from None
    if dtype.kind == "b":
        return np.full(LANES, bool(number))
    return np.full(LANES, number % (1 << 8 * width), unsigned(width)).view(dtype)
