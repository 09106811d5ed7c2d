"""A function's instructions, compiled once for all warps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.emulation.ptx import transfer
from tests.emulation.ptx.arithmetic import COMPARISONS, simple
from tests.emulation.ptx.conversions import conversion
from tests.emulation.ptx.errors import UnknownInstructionError
from tests.emulation.ptx.memory import SharedMemory
from tests.emulation.ptx.parse import Function, Instruction, Module
from tests.emulation.ptx.registers import DTYPES, LANES, Operands, unsigned

Vector = Any
Step = Callable[[Any, Vector | None], None]
PLAIN, BRANCH, EXIT, BARRIER = range(4)
_LOCAL_BASE = 0x2_0000_0000


@dataclass
class Compiled:
    """One instruction: what it is for the scheduler, its predicate, what it does."""

    instruction: Instruction
    what: int = PLAIN
    predicate: Callable[[Any], Vector] | None = None
    target: int = 0
    run: Step = lambda warp, mask: None


class Kernel:
    """An entry of a module, ready to run."""

    def __init__(self, module: Module, name: str) -> None:
        self.function: Function = module.functions[name]
        self.name = name
        addresses: dict[str, int] = {}
        self.shared_bytes = self.local_bytes = 0
        variables = [*module.variables, *self.function.variables]
        for variable in sorted(variables, key=lambda v: v.nbytes == 0):  # dynamic memory comes last
            if variable.space == "shared":
                start = -(-self.shared_bytes // variable.align) * variable.align
                addresses[variable.name], self.shared_bytes = start, start + variable.nbytes
            elif variable.space == "local":
                start = -(-self.local_bytes // variable.align) * variable.align
                addresses[variable.name], self.local_bytes = start, start + variable.nbytes
            elif variable.space in ("const", "global") and self._uses(variable.name):
                raise UnknownInstructionError(f"{variable.space} memory {variable.name}: pass it as an argument")
        self.operands = Operands(self.function, addresses)
        self.code = [self._compile(instruction) for instruction in self.function.body]

    def _uses(self, name: str) -> bool:
        return any(name in operand for i in self.function.body for operand in i.operands)

    def _compile(self, instruction: Instruction) -> Compiled:
        try:
            compiled = self._plain(instruction)
        except UnknownInstructionError as error:
            raise UnknownInstructionError(f"{self.name}, {instruction}: {error}") from None
        if instruction.predicate:
            place, negated = self.operands.places[instruction.predicate], instruction.negated
            compiled.predicate = (
                (lambda warp: ~warp.registers[place]) if negated else (lambda warp: warp.registers[place])
            )
        return compiled

    def _plain(self, instruction: Instruction) -> Compiled:
        name, opcode = instruction.opcode[0], instruction.opcode
        if name == "bra":
            return Compiled(instruction, BRANCH, target=self.function.labels[instruction.operands[0]])
        if name in ("ret", "exit"):
            return Compiled(instruction, EXIT)
        if name in ("bar", "barrier") and "sync" in opcode and "warp" not in opcode:
            if instruction.operands != ("0",):
                raise UnknownInstructionError("named barriers")
            return Compiled(instruction, BARRIER)
        return Compiled(instruction, run=self._step(name, instruction))

    def _step(self, name: str, instruction: Instruction) -> Step:
        opcode, operands = instruction.opcode, self.operands
        if name in ("membar", "fence", "griddepcontrol", "nanosleep") or opcode[:2] == ("bar", "warp"):
            return lambda warp, mask: None
        if name == "cp" and opcode[1] == "async":
            return transfer.asynchronous(instruction, operands)
        table: dict[str, Callable[[Instruction, Operands], Step]] = {
            "ld": transfer.load,
            "ldu": transfer.load,
            "st": transfer.store,
            "atom": transfer.atomic,
            "red": transfer.atomic,
            "mma": transfer.matrix,
            "ldmatrix": transfer.matrix,
            "shfl": transfer.shuffle,
            "vote": transfer.vote,
            "activemask": transfer.vote,
            "redux": transfer.reduce_across,
            "setp": _comparison,
            "selp": _selection,
            "mov": _move,
            "cvta": _address,
        }
        if name in table:
            return table[name](instruction, operands)
        result, kinds, operation = conversion(opcode) if name == "cvt" else simple(opcode)
        put = operands.put(instruction.operands[0], result)
        gets = [operands.get(o, k) for o, k in zip(instruction.operands[1:], kinds, strict=False)]
        if name == "lop3":
            gets.append(operands.get(instruction.operands[4], "b32"))
            gets = gets[:4]
        if len(gets) == 2:
            first, second = gets
            return lambda warp, mask: put(warp, operation(first(warp), second(warp)), mask)
        return lambda warp, mask: put(warp, operation(*[get(warp) for get in gets]), mask)


def _comparison(instruction: Instruction, operands: Operands) -> Step:
    words = instruction.opcode
    kind, compare = words[-1], COMPARISONS[words[1]]
    join = words[2] if words[2] in ("and", "or", "xor") else ""
    first, _, second = instruction.operands[0].partition("|")
    put, put_not = operands.put(first, "pred"), operands.put(second or "_", "pred")
    a, b = (operands.get(o, kind) for o in instruction.operands[1:3])
    other = operands.get(instruction.operands[3], "pred") if join else None
    joins = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}

    def step(warp: Any, mask: Vector | None) -> None:
        answer = compare(a(warp), b(warp))
        negated = ~answer
        if other is not None:
            more = other(warp)
            answer, negated = joins[join](answer, more), joins[join](negated, more)
        put(warp, answer, mask)
        put_not(warp, negated, mask)

    return step


def _selection(instruction: Instruction, operands: Operands) -> Step:
    kind = instruction.opcode[-1]
    put = operands.put(instruction.operands[0], kind)
    a, b, p = (operands.get(o, k) for o, k in zip(instruction.operands[1:], (kind, kind, "pred"), strict=True))
    return lambda warp, mask: put(warp, np.where(p(warp), a(warp), b(warp)), mask)


def _move(instruction: Instruction, operands: Operands) -> Step:
    kind, (target, source) = instruction.opcode[-1], instruction.operands
    if target.startswith("{"):
        names = [n.strip() for n in target.strip("{}").split(",")]
        part = f"b{8 * DTYPES[kind].itemsize // len(names)}"
        puts, read = [operands.put(n, part) for n in names], operands.get(source, kind)

        def unpack(warp: Any, mask: Vector | None) -> None:
            values = np.ascontiguousarray(read(warp)).view(DTYPES[part]).reshape(LANES, -1)
            for index, put in enumerate(puts):
                put(warp, np.ascontiguousarray(values[:, index]), mask)

        return unpack
    put = operands.put(target, kind)
    if source.startswith("{"):
        names = [n.strip() for n in source.strip("{}").split(",")]
        part = f"b{8 * DTYPES[kind].itemsize // len(names)}"
        gets, whole = [operands.get(n, part) for n in names], unsigned(DTYPES[kind].itemsize)

        def pack(warp: Any, mask: Vector | None) -> None:
            values = np.stack([get(warp) for get in gets], -1)
            put(warp, np.ascontiguousarray(values).view(whole).ravel().view(DTYPES[kind]), mask)

        return pack
    get = operands.get(source, kind)
    return lambda warp, mask: put(warp, get(warp).copy(), mask)


def _address(instruction: Instruction, operands: Operands) -> Step:
    """cvta: between the generic address space and the others, of which only two do not begin at zero."""
    words = instruction.opcode
    back = words[1] == "to"
    space = words[2] if back else words[1]
    base = np.uint64({"shared": SharedMemory.BASE, "local": _LOCAL_BASE}.get(space, 0))
    put, get = operands.put(instruction.operands[0], words[-1]), operands.get(instruction.operands[1], words[-1])
    return lambda warp, mask: put(warp, get(warp) - base if back else get(warp) + base, mask)
