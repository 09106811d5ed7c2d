"""The plan file (.vxp): a header, a table of sections, the sections. ``kernels/common/format.h`` is its definition.

Portable sections: ``META`` (JSON), ``GRAPH`` (ONNX; its large tensors lie in ``WEIGHTS``), ``WEIGHTS`` (raw tensors).
Sections of a target (``x86-avx512``): ``COMPILED`` (the schedule), ``PACKED`` (weights as its kernels want them),
``ISLANDS`` (ONNX sub-graphs that the host executes). ``PART`` is a whole plan inside this one, its number for a target:
the stage before this one of a cascade, or a further model of a composite. The C library runs the plan around it alone.
``TYPED``, ``ENGINES`` and ``KERNELS`` are the GPU part, see ``plan/gpu.py``. ``HEAD`` is a matrix of float32, see
``plan/head.py``; with it the schedule has variants that give features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import PlanError
from voxelrt.kernels.common import capi
from voxelrt.plan.image import allocate, move_to_disk, resized
from voxelrt.plan.schedule import RECORDS

MAGIC = b"VOXELRT\x1a"
MAJOR, MINOR = 0, 3  # 2: PART, TYPED, ENGINES, and steps that belong to a branch; 3: HEAD
MOST_SECTIONS = 4096
Bytes = NDArray[np.uint8]


class SectionKind(IntEnum):
    """What a section holds."""

    META = 1
    GRAPH = 2
    WEIGHTS = 3
    COMPILED = 4
    PACKED = 5
    ISLANDS = 6
    PART = 7
    TYPED = 8
    ENGINES = 9
    KERNELS = 10
    HEAD = 11


@dataclass(frozen=True)
class Section:
    """One section: its bytes in memory or in a mapped file."""

    kind: SectionKind
    data: Bytes
    target: str = ""

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.data.size

    def write(self, target: Bytes) -> None:
        """Copy its bytes to their place in a file."""
        target[:] = self.data


@dataclass(frozen=True)
class Written:
    """A section that is made where it will lie: ``write`` fills the memory that it gets."""

    kind: SectionKind
    size: int
    write: Callable[[Bytes], None]
    target: str = ""


def assemble(sections: Sequence[Section | Written]) -> Bytes:
    """The whole file in memory of its own, aligned to a page."""
    header = np.zeros((), RECORDS["FileHeader"])
    table = np.zeros(len(sections), RECORDS["SectionRecord"])
    position = header.nbytes + table.nbytes
    for row, section in zip(table, sections, strict=True):
        align = 4096 if section.kind in (SectionKind.WEIGHTS, SectionKind.PACKED, SectionKind.PART) else 64
        position += -position % align
        row["kind"], row["target"] = section.kind, section.target.encode()
        row["offset"], row["bytes"] = position, section.size
        position += section.size
    file = allocate(position)
    for row, section in zip(table, sections, strict=True):
        place = file[int(row["offset"]) : int(row["offset"]) + section.size]
        section.write(place)
        row["crc"] = capi.crc32c(place)
        if section.kind == SectionKind.WEIGHTS:
            move_to_disk(file, int(row["offset"]), int(row["offset"]) + section.size)
    header["magic"], header["major"], header["minor"] = MAGIC, MAJOR, MINOR
    header["file_bytes"], header["table_offset"], header["section_count"] = position, header.nbytes, len(sections)
    _write_header(file, header, table)
    return file


def _write_header(file: Bytes, header: Any, table: NDArray[Any]) -> None:
    """The header and the table of sections, with their checksum."""
    header["crc"] = 0
    header["crc"] = capi.crc32c(table.tobytes(), capi.crc32c(header.tobytes()))
    start = int(header["table_offset"])
    file[: header.nbytes] = np.frombuffer(header.tobytes(), np.uint8)
    file[start : start + table.nbytes] = np.frombuffer(table.tobytes(), np.uint8)


def with_description(file: Bytes, data: Bytes) -> Bytes | None:
    """A file just assembled, its last section, META, replaced in place; None where that is not possible."""
    header = np.frombuffer(bytes(file[: RECORDS["FileHeader"].itemsize]), RECORDS["FileHeader"]).copy()
    start, count = int(header[0]["table_offset"]), int(header[0]["section_count"])
    end = start + count * RECORDS["SectionRecord"].itemsize
    table = np.frombuffer(bytes(file[start:end]), RECORDS["SectionRecord"]).copy()
    last = table[-1]
    if int(last["kind"]) != SectionKind.META or int(last["offset"]) + int(last["bytes"]) != file.size:
        return None
    made = resized(file, int(last["offset"]) + data.size)
    if made is None:
        return None
    made[int(last["offset"]) :] = data
    last["bytes"], last["crc"], header["file_bytes"] = data.size, capi.crc32c(data), made.size
    _write_header(made, header[0], table)
    return made


def map_file(path: Path) -> Bytes:
    """A plan file as read-only memory. Raises PlanError where it cannot be read."""
    try:
        if path.stat().st_size < RECORDS["FileHeader"].itemsize:
            raise PlanError(f"the plan {path.name} has {path.stat().st_size} bytes: too short for a plan")
        return np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise PlanError(f"the plan {path.name} cannot be opened: {error.strerror}") from error


def disassemble(file: Bytes) -> list[Section]:
    """The sections of a file, bounds and the header's checksum checked; the native side checks the rest.

    Raises
    ------
    PlanError : the file is damaged, truncated, foreign or newer; the message names the field.
    """
    head = RECORDS["FileHeader"]
    if file.size < head.itemsize:
        raise PlanError(f"{file.size} bytes are too short for a plan")
    header = np.frombuffer(bytes(file[: head.itemsize]), head)[0]
    if bytes(file[:8]) != MAGIC:
        raise PlanError("this is not a VoxelRT plan (its first bytes are not the plan's mark)")
    if header["major"] != MAJOR:
        raise PlanError(f"the plan's format is {header['major']}.{header['minor']}; this library opens {MAJOR}.x")
    if int(header["file_bytes"]) != file.size:
        raise PlanError(f"the plan says it has {header['file_bytes']} bytes, the file has {file.size}: truncated?")
    count, start = int(header["section_count"]), int(header["table_offset"])
    size = RECORDS["SectionRecord"].itemsize
    if count > MOST_SECTIONS or start + count * size > file.size:
        raise PlanError("the plan is damaged: section count")
    raw_table = bytes(file[start : start + count * size])
    zeroed = header.copy()
    zeroed["crc"] = 0
    if capi.crc32c(raw_table, capi.crc32c(zeroed.tobytes())) != int(header["crc"]):
        raise PlanError("the plan is damaged: checksum of the header")
    rows = np.frombuffer(raw_table, RECORDS["SectionRecord"])
    sections = [_section(file, row, is_newer=int(header["minor"]) > MINOR) for row in rows]
    return [section for section in sections if section is not None]


def _section(file: Bytes, row: Any, *, is_newer: bool) -> Section | None:
    """A section; None for a kind that a newer minor version added, which its rule lets this library ignore."""
    offset, size = int(row["offset"]), int(row["bytes"])
    if offset > file.size or size > file.size - offset:
        raise PlanError("the plan is damaged: section bounds")
    try:
        kind = SectionKind(int(row["kind"]))
    except ValueError as error:
        if is_newer:
            return None
        raise PlanError(f"the plan is damaged: section kind {row['kind']}") from error
    data = file[offset : offset + size]
    if kind in (SectionKind.META, SectionKind.GRAPH, SectionKind.ISLANDS) and capi.crc32c(data) != int(row["crc"]):
        raise PlanError(f"the plan is damaged: checksum of the {kind.name.lower()} section")
    return Section(kind, data, row["target"].decode(errors="replace"))
