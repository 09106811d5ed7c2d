"""A plan's bytes in memory: another description in place, large raw weights in a file mapped at their place."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from voxelrt.plan import image
from voxelrt.plan.file import Bytes, Section, SectionKind, assemble, disassemble, with_description

META = Section(SectionKind.META, np.frombuffer(b'{"old": 1}', np.uint8))


def weights(size: int) -> Section:
    return Section(SectionKind.WEIGHTS, np.random.default_rng(0).integers(0, 256, size, np.uint8))


def of_no_file(data: Bytes) -> int:
    """The bytes of an array that no file stands behind, so that the process must hold them once they are written."""
    start, stop, held = data.ctypes.data, data.ctypes.data + data.size, 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, _, _, inode = line.split(maxsplit=5)[:5]
        begin, end = (int(n, 16) for n in span.split("-"))
        if inode == "0":
            held += max(0, min(end, stop) - max(begin, start))
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
    assert of_no_file(section.data) == section.data.size
    assert of_no_file(thin) < 16 << 10  # the header, the description, and parts of a page
    assert bytes(disassemble(thin)[0].data) == bytes(section.data)

    def nowhere(**options: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(tempfile, "TemporaryFile", nowhere)
    assert bytes(assemble([section, META])) == bytes(thin)
