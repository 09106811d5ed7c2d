"""From a schedule to the sections of a plan file, and back to a smaller file without packed weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.kernels.common import capi, native
from voxelrt.plan.file import Section, SectionKind
from voxelrt.plan.info import PlanInfo
from voxelrt.plan.portable import WeightBlob, graph_bytes
from voxelrt.plan.schedule import (
    RECORDS,
    WEIGHT_PACK_ON_OPEN,
    WEIGHT_PACKED,
    WEIGHT_RAW,
    Schedule,
    StoredWeight,
    serialise,
)

ALIGNMENT = 64


def sections_of(model: ir.Model, schedule: Schedule, islands: bytes, info: PlanInfo) -> list[Section]:
    """The sections of a plan for this machine: portable ones, then the compiled, packed and island ones."""
    target = capi.target()
    blob = WeightBlob()
    graph = graph_bytes(model, blob)
    stored, packed = _store_weights(schedule, blob)
    sections = [
        Section(SectionKind.GRAPH, np.frombuffer(graph, np.uint8)),
        Section(SectionKind.WEIGHTS, blob.bytes()),
        Section(SectionKind.COMPILED, np.frombuffer(serialise(schedule, stored), np.uint8), target),
    ]
    if packed.size:
        sections.append(Section(SectionKind.PACKED, packed, target))
    if islands:
        sections.append(Section(SectionKind.ISLANDS, np.frombuffer(islands, np.uint8), target))
    return [*sections, meta_section(info)]


def meta_section(info: PlanInfo) -> Section:
    return Section(SectionKind.META, np.frombuffer(info.to_json(), np.uint8))


def _store_weights(schedule: Schedule, blob: WeightBlob) -> tuple[list[StoredWeight], NDArray[np.uint8]]:
    """Where each weight goes; raw ones join the blob, packed ones a section of their own."""
    stored: list[StoredWeight] = []
    parts: list[NDArray[np.uint8]] = []
    end = 0
    for weight in schedule.weights:
        if not weight.packed:
            offset, size = blob.add(weight.raw)
            stored.append(StoredWeight(WEIGHT_RAW, offset, size, 0, size))
            continue
        raw_offset, raw_size = blob.add(weight.raw)
        data = native.pack_weight_bytes(weight.kernel, weight.raw, weight.params).view(np.uint8)
        padding = -end % ALIGNMENT
        parts += [np.zeros(padding, np.uint8), data]
        stored.append(StoredWeight(WEIGHT_PACKED, raw_offset, raw_size, end + padding, data.size))
        end += padding + data.size
    return stored, np.concatenate(parts) if parts else np.zeros(0, np.uint8)


def pack_on_open(sections: Sequence[Section]) -> list[Section]:
    """The same plan without its packed sections: its weights are packed from their raw bytes when it is opened."""
    dropped = {s.target for s in sections if s.kind == SectionKind.PACKED}
    kept = [s for s in sections if s.kind != SectionKind.PACKED]
    return [
        replace(s, data=_unpacked(s.data)) if s.kind == SectionKind.COMPILED and s.target in dropped else s
        for s in kept
    ]


def _unpacked(compiled: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A compiled section whose packed weights are marked to be packed on opening."""
    data = np.array(compiled)
    header = data[: RECORDS["CompiledHeader"].itemsize].view(RECORDS["CompiledHeader"])[0]
    offset, count = int(header["weights"]["offset"]), int(header["weights"]["count"])
    rows = data[offset : offset + count * RECORDS["WeightRecord"].itemsize].view(RECORDS["WeightRecord"])
    rows["form"][rows["form"] == WEIGHT_PACKED] = WEIGHT_PACK_ON_OPEN
    return data
