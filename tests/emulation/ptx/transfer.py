"""Loads, stores, atomics, asynchronous copies and a warp's exchanges, compiled to closures ``step(warp, mask)``.

``mask`` is the 32 lanes that take part, or None for all.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.emulation.ptx import tensor_cores
from tests.emulation.ptx.errors import BarrierError, UnknownInstructionError
from tests.emulation.ptx.parse import Instruction
from tests.emulation.ptx.registers import DTYPES, LANES, WIDTHS, Operands

Vector = Any
Step = Callable[[Any, Vector | None], None]
_SPACES = ("global", "shared", "local", "param", "const")
_ALL = np.ones(LANES, bool)


def _space(opcode: tuple[str, ...]) -> str:
    return next((w.split("::")[0] for w in opcode[1:] if w.split("::")[0] in _SPACES), "generic")


def _listed(operand: str) -> list[str]:
    return [o.strip() for o in operand.strip("{} ").split(",")] if operand.startswith("{") else [operand]


def load(instruction: Instruction, operands: Operands) -> Step:
    """ld and ldu, of any space, one register or a vector of them."""
    opcode = instruction.opcode
    kind, space = opcode[-1], _space(opcode)
    targets = [operands.put(name, kind) for name in _listed(instruction.operands[0])]
    if space == "param":
        return _load_parameter(instruction, operands, kind)
    address, _ = operands.address(instruction.operands[1])
    dtype = DTYPES[kind] if DTYPES[kind].kind != "V" else np.dtype(np.uint16)

    def step(warp: Any, mask: Vector | None) -> None:
        base = address(warp) if mask is None else address(warp)[mask]
        for index, put in enumerate(targets):
            values = warp.read(space, base + np.uint64(index * dtype.itemsize), dtype, mask)
            put(warp, values if mask is None else _spread(values, mask), mask)

    return step


def _load_parameter(instruction: Instruction, operands: Operands, kind: str) -> Step:
    name, _, offset = instruction.operands[1].strip("[] ").partition("+")
    targets = [operands.put(t, kind) for t in _listed(instruction.operands[0])]
    dtype, first = DTYPES[kind], int(offset or 0)

    def step(warp: Any, mask: Vector | None) -> None:
        start = warp.block.parameters[name] + first
        for index, put in enumerate(targets):
            at = start + index * dtype.itemsize
            value = warp.block.parameter_bytes[at : at + dtype.itemsize].view(dtype)
            put(warp, np.repeat(value, LANES), mask)

    return step


def _spread(values: Vector, mask: Vector) -> Vector:
    whole = np.zeros(LANES, values.dtype)
    whole[mask] = values
    return whole


def store(instruction: Instruction, operands: Operands) -> Step:
    """st, of any space."""
    opcode = instruction.opcode
    kind, space = opcode[-1], _space(opcode)
    kind = kind if DTYPES[kind].kind != "V" else "b16"
    address, _ = operands.address(instruction.operands[0])
    sources = [operands.get(name, kind) for name in _listed(instruction.operands[1])]

    def step(warp: Any, mask: Vector | None) -> None:
        base = address(warp) if mask is None else address(warp)[mask]
        for index, get in enumerate(sources):
            values = np.ascontiguousarray(get(warp) if mask is None else get(warp)[mask])
            warp.write(space, base + np.uint64(index * WIDTHS[kind]), values, mask)

    return step


_ATOMIC: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "min": min,
    "max": max,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "exch": lambda old, new: new,
}


def atomic(instruction: Instruction, operands: Operands) -> Step:
    """atom and red: lanes one after another, in an order drawn each time."""
    opcode = instruction.opcode
    kind, space = opcode[-1], _space(opcode)
    name = next((w for w in opcode if w in _ATOMIC or w == "cas"), "")
    if not name or kind not in DTYPES:
        raise UnknownInstructionError(str(instruction))
    reduction = opcode[0] == "red"
    given = instruction.operands[(0 if reduction else 1) :]
    put = operands.put("_" if reduction else instruction.operands[0], kind)
    address, _ = operands.address(given[0])
    values = [operands.get(v, kind) for v in given[1:]]

    def step(warp: Any, mask: Vector | None) -> None:
        old = np.zeros(LANES, DTYPES[kind])
        where, parts = address(warp), [get(warp) for get in values]
        for lane in warp.random.permutation(np.flatnonzero(_ALL if mask is None else mask)):
            memory, place = warp.atomic(space, where[lane], DTYPES[kind])
            old[lane] = memory[place]
            with np.errstate(over="ignore"):
                if name == "cas":
                    memory[place] = parts[1][lane] if old[lane] == parts[0][lane] else old[lane]
                else:
                    memory[place] = _ATOMIC[name](old[lane], parts[0][lane])
        put(warp, old, mask)

    return step


def asynchronous(instruction: Instruction, operands: Operands) -> Step:
    """cp.async and its groups. Bytes arrive as late as they may: when the group is waited for."""
    opcode = instruction.opcode
    if "commit_group" in opcode:
        return lambda warp, mask: warp.copies.append([])
    if "wait_all" in opcode:
        return lambda warp, mask: warp.finish_copies(0, True)
    if "wait_group" in opcode:
        left = int(instruction.operands[0], 0)
        return lambda warp, mask: warp.finish_copies(left, False)
    if "mbarrier" in opcode or "bulk" in opcode:
        raise UnknownInstructionError(str(instruction))
    target, _ = operands.address(instruction.operands[0])
    source, _ = operands.address(instruction.operands[1])
    size = int(instruction.operands[2], 0)
    given = instruction.operands[3] if len(instruction.operands) > 3 else str(size)
    taken = operands.get(given, "u32")

    def step(warp: Any, mask: Vector | None) -> None:
        lanes = _ALL if mask is None else mask
        warp.begin_copy(target(warp)[lanes], source(warp)[lanes], taken(warp)[lanes], size)

    return step


def matrix(instruction: Instruction, operands: Operands) -> Step:
    """mma.sync and ldmatrix: the whole warp together."""
    opcode = instruction.opcode
    if opcode[0] == "ldmatrix":
        targets = [operands.put(name, "b32") for name in _listed(instruction.operands[0])]
        address, _ = operands.address(instruction.operands[1])

        def load_step(warp: Any, mask: Vector | None) -> None:
            _whole(mask, instruction)
            starts = address(warp)[: 8 * len(targets)]
            eight = (starts[:, None] + np.arange(0, 16, 2, dtype=np.uint64)).ravel()
            rows = warp.read("shared", eight, np.dtype(np.uint16), None).reshape(-1, 8)
            matrices = tensor_cores.load_matrices(rows, len(targets), "trans" in opcode)
            for put, value in zip(targets, matrices, strict=True):
                put(warp, value, None)

        return load_step
    results = [operands.put(name, "b32") for name in _listed(instruction.operands[0])]
    parts = [[operands.get(name, "b32") for name in _listed(o)] for o in instruction.operands[1:4]]

    def step(warp: Any, mask: Vector | None) -> None:
        _whole(mask, instruction)
        values = tensor_cores.multiply(opcode, *([get(warp) for get in part] for part in parts))
        for put, value in zip(results, values, strict=True):
            put(warp, value, None)

    return step


def _whole(mask: Vector | None, instruction: Instruction) -> None:
    if mask is not None:
        raise BarrierError(f"{instruction} is reached by {int(mask.sum())} of 32 lanes")


def _members(warp: Any, mask: Vector | None, members: Vector, instruction: Instruction) -> None:
    """All live lanes that the member mask names must be here."""
    named = (int(np.ravel(members)[0]) >> np.arange(LANES)) & 1 == 1
    here = _ALL if mask is None else mask
    if (named & warp.live & ~here).any() or (here & ~named).any():
        raise BarrierError(f"{instruction} is reached by other lanes than its member mask names")


def shuffle(instruction: Instruction, operands: Operands) -> Step:
    """shfl.sync in its four modes."""
    mode = instruction.opcode[2]
    first, _, predicate = instruction.operands[0].partition("|")
    put = operands.put(first, "b32")
    put_valid = operands.put(predicate, "pred") if predicate else None
    value, lane_of, clamp_of, members = (
        operands.get(o, kind) for o, kind in zip(instruction.operands[1:], ("b32", "u32", "u32", "b32"), strict=True)
    )

    def step(warp: Any, mask: Vector | None) -> None:
        _members(warp, mask, members(warp), instruction)
        lanes, b, c = np.arange(LANES), lane_of(warp).astype(np.int64) & 31, clamp_of(warp).astype(np.int64)
        segment, clamp = (c >> 8) & 31, c & 31
        top = (lanes & segment) | (clamp & ~segment)
        low = lanes & segment
        source, valid = {
            "up": (lanes - b, lanes - b >= top),
            "down": (lanes + b, lanes + b <= top),
            "bfly": (lanes ^ b, (lanes ^ b) <= top),
            "idx": (low | (b & ~segment), (low | (b & ~segment)) <= top),
        }[mode]
        put(warp, value(warp)[np.where(valid, source, lanes)], mask)
        if put_valid:
            put_valid(warp, valid, mask)

    return step


def vote(instruction: Instruction, operands: Operands) -> Step:
    """vote.sync and activemask."""
    if instruction.opcode[0] == "activemask":
        put = operands.put(instruction.operands[0], "b32")
        return lambda warp, mask: put(warp, np.full(LANES, _bits(_ALL if mask is None else mask), np.uint32), mask)
    mode = instruction.opcode[2]
    put = operands.put(instruction.operands[0], "b32" if mode == "ballot" else "pred")
    predicate, members = operands.get(instruction.operands[1], "pred"), operands.get(instruction.operands[2], "b32")

    def step(warp: Any, mask: Vector | None) -> None:
        _members(warp, mask, members(warp), instruction)
        here = _ALL if mask is None else mask
        votes = np.broadcast_to(predicate(warp), (LANES,)) & here
        if mode == "ballot":
            put(warp, np.full(LANES, _bits(votes), np.uint32), mask)
        else:
            count = int(votes.sum())
            answer = {"all": count == here.sum(), "any": count > 0, "uni": count in (0, here.sum())}[mode]
            put(warp, np.full(LANES, answer), mask)

    return step


def reduce_across(instruction: Instruction, operands: Operands) -> Step:
    """redux.sync of integers."""
    name, kind = instruction.opcode[2], instruction.opcode[-1]
    put, value = operands.put(instruction.operands[0], kind), operands.get(instruction.operands[1], kind)
    members = operands.get(instruction.operands[2], "b32")
    joins = {"add": np.add, "min": np.minimum, "max": np.maximum}
    joins |= {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}

    def step(warp: Any, mask: Vector | None) -> None:
        _members(warp, mask, members(warp), instruction)
        here = value(warp) if mask is None else value(warp)[mask]
        put(warp, np.full(LANES, joins[name].reduce(here), DTYPES[kind]), mask)

    return step


def _bits(lanes: Vector) -> int:
    return int(np.packbits(lanes, bitorder="little").view(np.uint32)[0])
