"""Compiled code of our kernels in a plan: cubins, PTX beside them, and what a launch must know of each.

    KERNELS sm_86 …   a JSON list of ``Code``, then a cubin and PTX for each
    KERNELS cuda      the constants that kernel steps read

With it a plan runs where neither nvcc nor Triton is installed; a GPU that is newer than all sections runs the PTX.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from voxelrt.errors import DeviceError, PlanError
from voxelrt.kernels.common.gpu.cuda_compiler import compile_cuda
from voxelrt.kernels.common.gpu.program import Launch, Program
from voxelrt.kernels.common.gpu.triton_compiler import compile_triton, specialisation
from voxelrt.plan.file import Section, SectionKind
from voxelrt.plan.gpu_steps import MOST, pack_parts, parts_of

CONSTANTS_TARGET = "cuda"
# What windows are launched with: the op's folder and its module.
_WINDOW_OPS = {"copy": "cuda", "stitch": "slab", "resample_argmax": "cuda"}


@dataclass(frozen=True)
class Code:
    """Code for one architecture.

    Parameters
    ----------
    name : where it comes from.
    cubin, ptx : its two forms.
    entry : the one entry's name, where launches do not say it (Triton).
    shared : dynamic shared memory in bytes where launches do not say it, else -1.
    pointers : further arguments, all null: memory of the compiler's own, which it does not use.
    """

    name: str
    cubin: bytes
    ptx: str
    entry: str = ""
    shared: int = -1
    pointers: int = 0


class CodeTable:
    """The code that launches need, each once."""

    def __init__(self) -> None:
        self._number: dict[Any, int] = {}
        self._launches: list[tuple[Path, Launch]] = []

    def number(self, program: Program, launch: Launch) -> int:
        """Where the code of a launch is in every section."""
        key = code_key(program, launch)
        if key not in self._number:
            self._number[key] = len(self._launches)
            self._launches.append((program.source, launch))
        return self._number[key]

    def add_source(self, module_file: str, entry: str) -> int:
        """Where a ``cuda.cu`` is, for launches that are made when the plan runs."""
        program = Program(module_file)
        return self.number(program, Launch(entry, (1, 1, 1), ()))

    @property
    def names(self) -> tuple[str, ...]:
        """Each code in words."""
        return tuple(_name(source, launch) for source, launch in self._launches)

    def section(self, architecture: str) -> Section:
        """All of it, compiled.

        Raises
        ------
        DeviceError : a compiler is missing, or refused.
        """
        codes = [_compile(source, launch, int(architecture[3:])) for source, launch in self._launches]
        words = [{k: v for k, v in asdict(code).items() if k not in ("cubin", "ptx")} for code in codes]
        parts = [json.dumps(words).encode()]
        for code in codes:
            parts += [code.cubin, code.ptx.encode()]
        return pack_parts(SectionKind.KERNELS, parts, architecture)


def code_key(program: Program, launch: Launch) -> Any:
    """What a launch's code depends on."""
    if isinstance(launch.kernel, str):
        return program.source.with_suffix(".cu")
    notes = tuple(sorted(specialisation(launch)))
    return (launch.kernel, launch.types(), tuple(launch.constants.items()), notes, launch.block, launch.stages)


def _name(source: Path, launch: Launch) -> str:
    op = source.parent.name
    return f"{op}/{source.stem}.cu" if isinstance(launch.kernel, str) else f"{op}/triton.py {launch.name}"


def _compile(source: Path, launch: Launch, target: int) -> Code:
    if isinstance(launch.kernel, str):
        made = compile_cuda(source.with_suffix(".cu"), target)
        return Code(_name(source, launch), made.cubin, made.ptx)
    made, metadata = compile_triton(launch, target)
    if metadata.get("global_scratch_size", 0):
        raise DeviceError(f"{launch.name} wants scratch memory of Triton's, which plans do not give")
    # Triton adds pointers to its own scratch memory and its profile's.
    return Code(_name(source, launch), made.cubin, made.ptx, metadata["name"], int(metadata["shared"]), 2)


def read_codes(section: bytes) -> list[Code]:
    """The codes of a KERNELS section of an architecture.

    Raises
    ------
    PlanError : it is damaged.
    """
    index, *parts = parts_of(section) or [b""]
    try:
        words = json.loads(index)
        if not isinstance(words, list) or len(words) > MOST or len(parts) != 2 * len(words):
            raise PlanError("the plan is damaged: number of its kernels")
        return [_code(raw, parts[2 * i], parts[2 * i + 1]) for i, raw in enumerate(words)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PlanError("the plan is damaged: the list of its kernels") from error


def _code(raw: Mapping[str, Any], cubin: bytes, ptx: bytes) -> Code:
    shared, pointers = raw["shared"], raw["pointers"]
    if type(shared) is not int or type(pointers) is not int or not (-1 <= shared < 1 << 20 and 0 <= pointers < 8):
        raise PlanError("the plan is damaged: the list of its kernels")
    return Code(str(raw["name"]), cubin, ptx.decode(), str(raw["entry"]), shared, pointers)


def choose(architectures: list[str], wanted: str) -> tuple[str, bool]:
    """The section to take on a GPU: (architecture, whether its cubins run; else its PTX, which any newer GPU compiles).

    Raises
    ------
    PlanError : the GPU is older than all of them.
    """
    if wanted in architectures:
        return wanted, True
    number = int(wanted[3:])
    older = sorted((int(name[3:]) for name in architectures if int(name[3:]) <= number), reverse=True)
    if not older:
        raise PlanError(
            f"the plan's kernels are for {', '.join(sorted(architectures))}, none of which {wanted} runs; compile with "
            f"--arch {wanted}"
        )
    return f"sm_{older[0]}", False


def add_window_codes(table: CodeTable) -> None:
    """Put the kernels that gather, sum and decide windows among those of a plan."""
    for op, name in _WINDOW_OPS.items():
        module = import_module(f"voxelrt.kernels.{op}.{name}")
        table.add_source(str(module.__file__), module.ENTRIES[0])


def window_codes(codes: Sequence[Code]) -> dict[str, Code]:
    """These kernels' codes among a plan's, by the op's name; those that are not there are missing."""
    names = {f"{op}/{name}.cu": op for op, name in _WINDOW_OPS.items()}
    return {names[code.name]: code for code in codes if code.name in names}
