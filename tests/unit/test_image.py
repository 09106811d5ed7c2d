"""A plan's bytes in memory: another description in place, large raw weights in a file mapped at their place."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest

from voxelrt.plan import image
from voxelrt.plan.file import Bytes, Section, SectionKind, assemble, disassemble, with_description

META = Section(SectionKind.META, np.frombuffer(b'{"old": 1}', np.uint8))


def weights(size: int) -> Section:
    return Section(SectionKind.WEIGHTS, np.random.default_rng(0).integers(0, 256, size, np.uint8))


def resident(file: Bytes) -> int:
    """The bytes of a range of addresses that this process holds."""
    held, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if span := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            begin, end = (int(n, 16) for n in span.groups())
            inside = begin < file.ctypes.data + file.size and end > file.ctypes.data
        elif inside and line.startswith("Rss:"):
            held += int(line.split()[1]) * 1024
    return held


@pytest.mark.parametrize("text", [b"{}", b'{"longer": "' + b"x" * 5000 + b'"}'])
def test_a_new_description_is_written_in_place(text: bytes) -> None:
    file = assemble([weights(1000), META])
    made = with_description(file, np.frombuffer(text, np.uint8))
    assert made is not None
    assert made.ctypes.data == file.ctypes.data
    again = disassemble(made)
    assert [bytes(s.data) for s in again] == [bytes(weights(1000).data), text]
    assert bytes(made) == bytes(assemble([weights(1000), Section(SectionKind.META, np.frombuffer(text, np.uint8))]))


def test_a_description_without_room_is_not_written(tmp_path: Path) -> None:
    file = assemble([weights(1000), META])
    assert with_description(file, np.zeros(image.SLACK + 64, np.uint8)) is None
    assert with_description(assemble([META, weights(1000)]), META.data) is None
    file.tofile(tmp_path / "net.vxp")
    mapped = np.memmap(tmp_path / "net.vxp", np.uint8, mode="r")
    assert with_description(mapped, META.data) is None
    assert bytes(disassemble(file)[-1].data) == bytes(META.data)


def test_large_raw_weights_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "LARGE", 1 << 20)
    section = weights(8 << 20)
    thin = assemble([section, META])
    assert resident(thin) < 2 << 20  # the system keeps what it maps around a touched page
    assert bytes(disassemble(thin)[0].data) == bytes(section.data)

    def nowhere(**options: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(tempfile, "TemporaryFile", nowhere)
    assert bytes(assemble([section, META])) == bytes(thin)
