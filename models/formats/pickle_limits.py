"""What a pickle of unknown origin may ask for, checked before it is loaded and after.

A pickle that names nothing harmful can still end the process that loads it: by a place in its memo, for which memory is
taken at once; by tuples inside tuples, which C hashes without a limit of depth; by numbers that have no text and lists
that hold each other many times over, which no message about them survives.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from voxelrt.errors import ModelError

MAX_DEPTH = 200
MAX_VALUES = 1 << 22
MAX_BITS = 4096  # of a whole number; Python writes up to about 14 000
GET = frozenset(("GET", "BINGET", "LONG_BINGET"))
PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
FILL = frozenset(("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"))  # their first operand stays


def check_program(data: bytes) -> None:
    """Follow how deep each value is, as far as a pickle says it itself.

    Raises
    ------
    ModelError : it nests too deeply or asks for a memo that it does not fill. IndexError, ValueError : it is damaged.
    """
    stack: list[int] = []  # depths
    marks: list[int] = []
    memo: dict[int, int] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in PUT:
            if int(argument or 0) > count + 256:
                raise ModelError("its pickle asks for memory that it does not use")
            memo[int(argument or 0)] = stack[-1]
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif opcode.name in GET:
            stack.append(memo.get(int(argument or 0), 0))
        elif opcode.name == "MARK":
            marks.append(len(stack))
        elif opcode.name == "POP" and marks and marks[-1] == len(stack):
            marks.pop()
        else:
            _follow(opcode, stack, marks)


def _follow(opcode: pickletools.OpcodeInfo, stack: list[int], marks: list[int]) -> None:
    before = opcode.stack_before
    if pickletools.markobject in before:
        start = marks.pop() - before.index(pickletools.markobject)
    else:
        start = len(stack) - len(before)
    if start < 0:
        raise ValueError("takes more from its stack than there is")
    taken = stack[start:]
    del stack[start:]
    if opcode.name in FILL:
        depth = max(taken[0], 1 + max(taken[1:], default=0))
    else:
        depth = 1 + max(taken, default=0)
    if depth > MAX_DEPTH:
        raise ModelError(f"its pickle nests more than {MAX_DEPTH} values in each other")
    stack += [depth] * len(opcode.stack_after)


def check_content(content: Any) -> None:
    """Raise ModelError where plain containers nest too deeply, hold a number without a text, or write too much.

    What is held several times is looked at once and counts each time, as it does for whoever writes it out.
    """
    known: dict[int, tuple[int, int]] = {}  # of a container that has been seen whole: values in it, and its height
    open_: list[_Open] = [_Open(0, iter((content,)))]
    while True:
        here = open_[-1]
        for value in here.items:
            if isinstance(value, int) and value.bit_length() > MAX_BITS:
                raise ModelError(f"its pickle holds a number of {value.bit_length()} bits")
            here.values += 1
            if isinstance(value, dict | list | tuple | set | frozenset):
                if id(value) not in known:
                    open_.append(_Open(id(value), _items(value)))
                    break
                here.take(*known[id(value)])
        else:
            open_.pop()
            if not open_:
                return
            known[here.name] = here.values, here.height
            open_[-1].take(here.values, here.height)
        if len(open_) + here.height > MAX_DEPTH:
            raise ModelError(f"its pickle nests more than {MAX_DEPTH} values in each other")
        if here.values > MAX_VALUES:
            raise ModelError(f"its pickle holds more than {MAX_VALUES} values")


@dataclass
class _Open:
    """A container that is being looked at."""

    name: int
    items: Iterator[Any]
    values: int = 0
    height: int = 0

    def take(self, values: int, height: int) -> None:
        self.values += values
        self.height = max(self.height, height + 1)


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        return (item for pair in value.items() for item in pair)
    return iter(value)
