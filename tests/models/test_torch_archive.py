"""Hostile archives: what torch's own loader would have run, allocated or followed is refused before torch sees it."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.effort import at_most_a_second_of_work
from tests.models.test_torch import file_of
from voxelrt.errors import ModelError, UnsupportedError
from voxelrt.models.formats import torch_archive

Entries = dict[str, bytes]
MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


@pytest.fixture
def entries(tmp_path: Path) -> Entries:
    return torch_archive.read_entries(file_of("pt2", tmp_path, "seed.pt2"))


def written(folder: Path, entries: Entries) -> Path:
    path = folder / "net.pt2"
    path.write_bytes(torch_archive.archive_of(entries).getvalue())
    return path


def changed(entries: Entries, part: str, change: Callable[[Any], object]) -> Entries:
    """The entries with one part's JSON changed in place."""
    data = json.loads(entries[part])
    change(data)
    return {**entries, part: json.dumps(data).encode()}


def nodes(program: Any) -> Any:
    return program["graph_module"]["graph"]["nodes"]


def test_what_passes_holds_the_program_and_the_weights_and_nothing_else(tmp_path: Path, entries: Entries) -> None:
    clean = torch_archive.exported_program(written(tmp_path, entries))
    names = {name.removeprefix("archive/") for name in zipfile.ZipFile(clean).namelist()}
    assert MODEL in names
    assert names - {"version", "archive_format", "archive_version", "byteorder"} <= set(entries)
    program = json.loads(zipfile.ZipFile(clean).read(f"archive/{MODEL}"))
    assert program["guards_code"] == []
    assert all(node["metadata"] == {} for node in nodes(program))
    assert zipfile.ZipFile(clean).read("archive/data/sample_inputs/model.pt") == b""


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.ops.aten.__class__.__mro__",
        "torch.ops.aten.from_file.default",
        "torch.ops.mylib.run.default",
        "_operator.methodcaller",
        "torch.hub.load",
        "#mine.thing",
        "math.__loader__",
    ],
)
def test_a_target_that_is_no_operator_is_refused_by_name(tmp_path: Path, entries: Entries, target: str) -> None:
    bad = changed(entries, MODEL, lambda program: nodes(program)[0].update(target=target))
    with pytest.raises(UnsupportedError) as caught:
        torch_archive.exported_program(written(tmp_path, bad))
    assert target in str(caught.value)


@pytest.mark.parametrize(
    "expression", ["__import__('os').system('true')", "s0.__class__", "9**9**9**9", "s0**2**9", "1" * 30, "exec(s0)"]
)
def test_an_expression_that_is_no_size_is_refused(tmp_path: Path, entries: Entries, expression: str) -> None:
    size = {"as_expr": {"expr_str": expression, "hint": None}}
    bad = changed(entries, MODEL, lambda p: p["graph_module"]["graph"]["tensor_values"]["image"]["sizes"].append(size))
    with pytest.raises(ModelError, match="no expression of sizes"):
        torch_archive.exported_program(written(tmp_path, bad))


@pytest.mark.parametrize("good", ["s0", "s77 + 1", "FloorDiv(s0, 2) - 1", "Max(1, s0**2)", "4*s1", "Mod(u0, 2)"])
def test_expressions_of_sizes_pass(good: str) -> None:
    assert torch_archive.EXPRESSION.fullmatch(good)


def deep(entries: Entries) -> Entries:
    return {**entries, MODEL: b"[" * 100_000 + b"]" * 100_000}


HOSTILE: dict[str, Callable[[Entries], Entries]] = {
    "pickled weight": lambda e: changed(e, WEIGHTS, lambda w: w["config"]["head.bias"].update(use_pickle=True)),
    "opaque constant": lambda e: changed(
        e,
        "data/constants/model_constants_config.json",
        lambda c: c["config"].update(x={"path_name": "opaque_obj_0", "use_pickle": True, "tensor_meta": None}),
    ),
    "2^60 bytes": lambda e: changed(
        e, WEIGHTS, lambda w: w["config"]["head.bias"]["tensor_meta"].update(sizes=[{"as_int": 1 << 60}])
    ),
    "2^40 bytes": lambda e: changed(
        e, WEIGHTS, lambda w: w["config"]["head.bias"]["tensor_meta"].update(sizes=[{"as_int": 1 << 40}])
    ),
    "behind the record": lambda e: changed(
        e, WEIGHTS, lambda w: w["config"]["head.bias"]["tensor_meta"].update(storage_offset={"as_int": 9})
    ),
    "negative stride": lambda e: changed(
        e, WEIGHTS, lambda w: w["config"]["head.bias"]["tensor_meta"].update(strides=[{"as_int": -1}])
    ),
    "weight of another folder": lambda e: changed(
        e, WEIGHTS, lambda w: w["config"]["head.bias"].update(path_name="../constants/x")
    ),
    "missing weight": lambda e: {n: d for n, d in e.items() if n != "data/weights/weight_0"},
    "compiled library": lambda e: {**e, "data/aotinductor/model/a.so": b"\x7fELF"},
    "no program": lambda e: {n: d for n, d in e.items() if n != MODEL},
    "program is a list": lambda e: {**e, MODEL: b"[]"},
    "program is not JSON": lambda e: {**e, MODEL: b"\xff{"},
    "deep JSON": deep,
    "weights are a list": lambda e: {**e, WEIGHTS: b'{"config": []}'},
    "old form": lambda e: {n: d for n, d in e.items() if n != WEIGHTS} | {"data/weights/model.pt": b"\x80\x02."},
    "a class as input": lambda e: changed(
        e,
        MODEL,
        lambda p: p["graph_module"]["module_call_graph"][0]["signature"].update(
            in_spec='[1, {"type": "mine.Thing", "context": null, "children_spec": []}]'
        ),
    ),
    "an enum as key": lambda e: changed(
        e,
        MODEL,
        lambda p: p["graph_module"]["module_call_graph"][0]["signature"].update(
            in_spec='[1, {"type": "builtins.dict", "context": "[{\\"__enum__\\": true}]", "children_spec": []}]'
        ),
    ),
    "code as a name": lambda e: changed(e, MODEL, lambda p: nodes(p)[0].update(name="x=__import__('os')")),
    "custom object": lambda e: changed(
        e, MODEL, lambda p: nodes(p)[0]["inputs"].append({"name": "a", "arg": {"as_custom_obj": {"name": "b"}}})
    ),
    "named tuples": lambda e: changed(
        e, MODEL, lambda p: p["graph_module"].update(treespec_namedtuple_fields={"t": {"field_names": ["a"]}})
    ),
}


@pytest.mark.parametrize("case", list(HOSTILE))
def test_hostile_programs_are_refused_within_a_second(tmp_path: Path, entries: Entries, case: str) -> None:
    path = written(tmp_path, HOSTILE[case](copy.copy(entries)))
    with at_most_a_second_of_work(), pytest.raises(ModelError):
        torch_archive.exported_program(path)


def zipped(*parts: tuple[str, bytes], compress: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compress) as archive:
        for name, data in parts:
            archive.writestr(zipfile.ZipInfo(name), data, compress)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"PK\x03\x04 and no more", "damaged"),
        (zipped(("../model.json", b"{}")), "leads out"),
        (zipped(("/etc/model.json", b"{}")), "leads out"),
        (zipped(("a\\..\\x/model.json", b"{}")), "leads out"),
        (zipped(("a/x", b""), ("b/x", b"")), "several root folders"),
        (zipped(("a/models/model.json", b" " * (300 << 20)), compress=zipfile.ZIP_DEFLATED), "more than can be"),
        (zipped(), "0 parts"),
    ],
    ids=["cut", "climbs", "absolute", "backslash", "roots", "bomb", "empty"],
)
def test_hostile_archives(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=why):
        torch_archive.exported_program(path)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (b"def forward(self):\n  return torch.from_file('/etc/passwd')", "touches files"),
        (b"def forward(self):\n  torch.save(self, 'x')", "touches files"),
        (b"def forward(self, x):\n  return ops.mylib.run(x)", "mylib"),
    ],
)
def test_scripts_that_do_more_than_compute_are_refused(tmp_path: Path, code: bytes, why: str) -> None:
    entries = torch_archive.read_entries(file_of("torchscript", tmp_path, "seed.pt"))
    assert zipfile.ZipFile(torch_archive.script(tmp_path / "seed.pt")).testzip() is None
    path = tmp_path / "net.pt"
    path.write_bytes(torch_archive.archive_of({**entries, "code/__torch__.py": code}).getvalue())
    with pytest.raises(ModelError, match=why):
        torch_archive.script(path)
