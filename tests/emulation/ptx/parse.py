"""PTX text to instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.emulation.ptx.errors import UnknownInstructionError

SIZES = {"pred": 1, "b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2}
SIZES |= {"b32": 4, "u32": 4, "s32": 4, "f32": 4, "b64": 8, "u64": 8, "s64": 8, "f64": 8, "b128": 16}

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*(?:\((.*?)\))?([^{;]*)\{", re.S)
_VARIABLE = re.compile(
    r"\.(shared|const|global|local)\s+(?:\.attribute\([^)]*\)\s*)?(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)"
    r"(\[\d*\])?\s*(?:=\s*(\{[^}]*\}|[^;]+))?"
)
_REGISTER = re.compile(r"\.reg\s+\.(\w+)\s+(.*)", re.S)
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(?:\.ptr\s+(?:\.\w+\s+)*?(?:\d+\s+)?)?([\w$]+)\s*(?:\[(\d+)\])?"
)
_BRACE, _MARK = re.compile(r"[{}]"), re.compile(r"[{};]")
_LABEL = re.compile(r"^([\w$]+):\s*")
_OPERANDS = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,{}\[\]]+")


@dataclass(frozen=True)
class Instruction:
    """One instruction: ``opcode`` split at the dots, operands as text, a predicate and its sign, its place."""

    opcode: tuple[str, ...]
    operands: tuple[str, ...]
    predicate: str | None
    negated: bool
    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


@dataclass
class Variable:
    """Memory that the PTX declares: space, bytes, alignment, element type, first values."""

    space: str
    name: str
    nbytes: int
    align: int
    type: str
    values: tuple[str, ...] = ()


@dataclass
class Function:
    """One entry."""

    name: str
    parameters: dict[str, tuple[str, int]]  # name -> type, offset in the parameters' bytes
    registers: dict[str, str] = field(default_factory=dict)
    body: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)


@dataclass
class Module:
    """All of a PTX text."""

    functions: dict[str, Function]
    variables: list[Variable]


def _blank(match: re.Match[str]) -> str:
    return "\n" * match.group().count("\n")


def parse(text: str, only: str | None = None) -> Module:
    """Parse PTX as nvcc and Triton write it: all entries, or one."""
    text = _COMMENT.sub(_blank, text)
    text = re.sub(r"^\s*\.(file|loc)\b[^\n]*", "", text, flags=re.M)
    functions: dict[str, Function] = {}
    outside, place = [], 0
    for match in _ENTRY.finditer(text):
        if match.start() < place:
            continue
        outside.append(text[place : match.start()])
        end = _closing(text, match.end())
        if only in (None, match[1]):
            line = text.count("\n", 0, match.end())
            functions[match[1]] = _function(match[1], match[2] or "", text[match.end() : end], line)
        place = end + 1
    outside.append(text[place:].split(".section")[0])
    return Module(functions, [v for part in outside for v in _variables(part)])


def _closing(text: str, start: int) -> int:
    depth = 1
    for match in _BRACE.finditer(text, start):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    raise UnknownInstructionError("a function without an end")


def _variables(text: str) -> list[Variable]:
    found = []
    for space, align, kind, name, count, values in _VARIABLE.findall(text):
        given = tuple(v.strip() for v in values.strip("{} \n").split(",")) if values else ()
        elements = int(count.strip("[]") or 0) if count else 1  # [] is the launch's dynamic memory
        found.append(Variable(space, name, elements * SIZES[kind], int(align or SIZES[kind]), kind, given))
    return found


def _parameters(text: str) -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = {}
    offset = 0
    for kind, name, count in _PARAMETER.findall(text):
        size = SIZES[kind] * int(count or 1)
        align = min(8, SIZES[kind]) if not count else 8
        offset = -(-offset // align) * align
        found[name] = (kind, offset)
        offset += size
    return found


def _function(name: str, parameters: str, text: str, line: int) -> Function:
    function = Function(name, _parameters(parameters))
    for statement in _statements(text):
        content, here = statement
        _statement(function, content, line + here + 1)
    return function


def _statements(text: str) -> list[tuple[str, int]]:
    """Statements and their lines. Braces of scopes are dropped; those of vectors and initial values are kept."""
    found, piece, depth = list[tuple[str, int]](), "", 0
    begin, last, line, counted = 0, 0, 0, 0
    for match in _MARK.finditer(text):
        index, mark = match.start(), match[0]
        piece, last = piece + text[last:index], index + 1
        if mark == ";" and depth == 0:
            place = begin + len(piece) - len(piece.lstrip())
            line, counted = line + text.count("\n", counted, place), place
            found.append((piece.strip(), line))
            piece, begin = "", index + 1
        elif (mark == "{" and (not piece.strip() or piece.rstrip().endswith(":"))) or (mark == "}" and depth == 0):
            piece += " "
        else:
            depth += {"{": 1, "}": -1, ";": 0}[mark]
            piece += mark
    return found


def _statement(function: Function, text: str, line: int) -> None:
    while label := _LABEL.match(text):
        function.labels[label[1]] = len(function.body)
        text = text[label.end() :].strip()
    if not text:
        return
    if text.startswith(".reg"):
        match = _REGISTER.match(text)
        assert match
        for item in match[2].split(","):
            base, _, count = item.strip().partition("<")
            names = [f"{base}{i}" for i in range(int(count.rstrip(">")))] if count else [base]
            function.registers.update(dict.fromkeys(names, match[1]))
    elif text.startswith((".shared", ".local")):
        function.variables.extend(_variables(text))
    elif text.startswith((".pragma", ".loc", ".file")):
        return
    elif text.startswith("."):
        raise UnknownInstructionError(f"line {line}: {text}")
    else:
        function.body.append(_instruction(text, line))


def _instruction(text: str, line: int) -> Instruction:
    text = " ".join(text.split())
    predicate, negated, rest = None, False, text
    if rest.startswith("@"):
        word, _, rest = rest[1:].partition(" ")
        negated = word.startswith("!")
        predicate = word.lstrip("!")
    opcode, _, operands = rest.strip().partition(" ")
    given = tuple(o.strip() for o in _OPERANDS.findall(operands) if o.strip())
    return Instruction(tuple(opcode.split(".")), given, predicate, negated, line, text)
