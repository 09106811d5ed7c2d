"""From a schedule to the sections of a plan file, and back to a smaller file without packed weights."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt import environment
from voxelrt.kernels.common import capi, native
from voxelrt.plan.file import Section, SectionKind, Written
from voxelrt.plan.info import PlanInfo
from voxelrt.plan.portable import WeightBlob, graph_bytes
from voxelrt.plan.schedule import (
    RECORDS,
    WEIGHT_PACK_ON_OPEN,
    WEIGHT_PACKED,
    WEIGHT_RAW,
    Schedule,
    StoredWeight,
    Weight,
    serialise,
)

ALIGNMENT = 64


def sections_of(model: ir.Model, schedule: Schedule, islands: bytes, info: PlanInfo) -> list[Section | Written]:
    """The sections of a plan for this machine: portable ones, then the compiled, packed and island ones."""
    target = capi.target()
    blob = WeightBlob()
    graph = graph_bytes(model, blob)
    stored, packed = _place_weights(schedule, blob)
    sections: list[Section | Written] = [
        Section(SectionKind.GRAPH, np.frombuffer(graph, np.uint8)),
        Written(SectionKind.WEIGHTS, blob.size, blob.write),
        Section(SectionKind.COMPILED, np.frombuffer(serialise(schedule, stored), np.uint8), target),
    ]
    if packed:
        size = max(place.stop for _, place in packed)
        sections.append(Written(SectionKind.PACKED, size, lambda to: _pack(packed, to), target))
    if islands:
        sections.append(Section(SectionKind.ISLANDS, np.frombuffer(islands, np.uint8), target))
    return [*sections, meta_section(info)]


def meta_section(info: PlanInfo) -> Section:
    return Section(SectionKind.META, np.frombuffer(info.to_json(), np.uint8))


Packed = list[tuple[Weight, slice]]


def _place_weights(schedule: Schedule, blob: WeightBlob) -> tuple[list[StoredWeight], Packed]:
    """Where each weight goes; raw ones join the blob, packed ones a section of their own."""
    stored: list[StoredWeight] = []
    packed: Packed = []
    end = 0
    for weight in schedule.weights:
        offset, size = blob.add(weight.raw)
        if not weight.packed:
            stored.append(StoredWeight(WEIGHT_RAW, offset, size, 0, size))
            continue
        start = end + -end % ALIGNMENT
        end = start + native.packed_bytes(weight.kernel, weight.raw, weight.params)
        stored.append(StoredWeight(WEIGHT_PACKED, offset, size, start, end - start))
        packed.append((weight, slice(start, end)))
    return stored, packed


def _pack(weights: Packed, section: NDArray[np.uint8]) -> None:
    """Pack every weight at its place, the longest first, on all threads."""

    def one(item: tuple[Weight, slice]) -> None:
        weight, place = item
        native.pack_weight_bytes(weight.kernel, weight.raw, weight.params, section[place])

    with ThreadPoolExecutor(environment.threads()) as pool:
        for _ in pool.map(one, sorted(weights, key=lambda item: item[1].start - item[1].stop)):
            pass


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
