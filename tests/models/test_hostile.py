"""Files that mean harm, for every reader, through the public door: each an error that says what is wrong, soon, and
without memory that the file merely asks for. What one format alone can do wrong is in that format's own tests."""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import pickle
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import voxelrt as vx
from tests.models.test_recipe import SMALL
from tests.models.test_tensorflow_untrusted import Writer
from tests.models.test_torch import stored
from voxelrt.errors import VoxelRTError
from voxelrt.models.architectures import dense
from voxelrt.models.formats.safetensors import write_safetensors

FOLDERS = Path(__file__).parent / "data" / "nnunet_folders.tar.xz"
HUGE = 1 << 60
MIB = 1 << 20

pytestmark = pytest.mark.filterwarnings("ignore")


class _Runs:
    """A pickle that would make a folder when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("ran",))


def _mlp() -> onnx.ModelProto:
    made: onnx.ModelProto = ir.to_proto(dense.build_mlp((5, 7, 3), batch=2, seed=11))
    return made


def _onnx(folder: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    proto = _mlp()
    change(proto)
    return _file(folder, "net.onnx", proto.SerializeToString())


def _file(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def _external(proto: onnx.ModelProto, **places: Any) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in places.items():
        tensor.external_data.add(key=key, value=str(value))


def _cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = proto.graph.node[-1].output[0]


def _dims(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[:] = [HUGE, 1]


def _training(folder: Path) -> Path:
    with tarfile.open(FOLDERS) as archive:
        members = [member for member in archive.getmembers() if "Flat" in member.name]
        archive.extractall(folder, members, filter="data")
    return next(folder.glob("*Flat*/nnUNetTrainer*"))


def _checkpoint(folder: Path, pickled: bytes, *names: str) -> Path:
    training = _training(folder)
    with zipfile.ZipFile(training / "fold_all" / "checkpoint_final.pth", "w") as archive:
        for name in names or ("archive/data.pkl",):
            archive.writestr(zipfile.ZipInfo(name), pickled)
    return training


MLP = {"voxelrt.architecture": "mlp", "state_dict": {}}


def _state_dict(folder: Path, opcodes: bytes) -> Path:
    with zipfile.ZipFile(folder / "net.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + opcodes + b".")
    return folder / "net.pth"


def _chained_lists(count: int) -> bytes:
    """Lists that are all there, at no depth, before each is put into the one before it."""
    made = b"".join(b"]r" + struct.pack("<I", i) + b"0" for i in range(count))
    get = [b"j" + struct.pack("<I", i) for i in range(count)]
    return made + b"".join(a + b + b"a0" for a, b in itertools.pairwise(get)) + get[0]


def _shared_lists(depth: int) -> bytes:
    """Lists that hold the next one four times: few bytes, 4^depth values."""
    return b"]" + b"".join(b"q\x00(" + b"h\x00" * 4 + b"l" for _ in range(depth))


def _plans(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    training = _training(folder)
    plans = json.loads((training / "plans.json").read_text())
    change(plans)
    (training / "plans.json").write_text(json.dumps(plans))
    return training


def _inherits_itself(plans: dict[str, Any]) -> None:
    plans["configurations"]["2d"] = {"inherits_from": "2d"}


def _wrong_types(plans: dict[str, Any]) -> None:
    plans["configurations"]["2d"]["patch_size"] = {"0": "many"}


def _huge_patch(plans: dict[str, Any]) -> None:
    plans["configurations"]["2d"]["patch_size"] = [HUGE, HUGE]


def _without_checkpoints(folder: Path) -> Path:
    training = _training(folder)
    (training / "fold_all" / "checkpoint_final.pth").unlink()
    return training


def _first_version(folder: Path) -> Path:
    (folder / "v1").mkdir()
    return _file(folder / "v1", "plans.pkl", pickle.dumps({"a": 1})).parent


def _climbing(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(zipfile.ZipInfo("../../out/model.json"), b"{}")
        return _file(folder, f"net{suffix}", stream.getvalue())

    return make


def _zip_of_a_huge_part(folder: Path) -> Path:
    data = bytearray(stored("pt2").tobytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)  # sizes, packed and not
    return _file(folder, "net.pt2", bytes(data))


def _tensorflow(folder: Path, *, source: str) -> Path:
    """b = relu(a), y = relu(b); a = x + `source`, which is b or a constant that claims to be huge."""
    writer = Writer().placeholder(1, 4).const("c", (HUGE, 2), content=b"abcd")
    graph = writer.node("a", "AddV2", ["x", source], T=1).node("b", "Relu", ["a"], T=1).node("y", "Relu", ["b"], T=1)
    return _file(folder, "net.pb", graph.data)


def _safetensors(folder: Path, head: Any, size: int | None = None) -> Path:
    text = json.dumps(head).encode()
    return _file(folder, "net.safetensors", struct.pack("<Q", len(text) if size is None else size) + text)


def _plan(folder: Path, offset: int) -> Path:
    plan = vx.compile(ir.from_proto(_mlp()), verify=False, tune="off")
    data = bytearray(np.asarray(plan._file).tobytes())
    data[offset : offset + 8] = struct.pack("<Q", HUGE)
    return _file(folder, "net.vxp", bytes(data))


COMPOSITE = 'name = "c"\n[[models]]\npath = {path}\nclasses = {classes}\n[[labels]]\nvalue = 1\nname = "a"\n'


def _text(name: str, text: str) -> Callable[[Path], Path]:
    return lambda folder: _file(folder, name, text.encode())


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    # code in a pickle
    "torch-pickle": (lambda f: _file(f, "net.pth", pickle.dumps(_Runs())), "would run what it says"),
    "checkpoint-pickle": (lambda f: _checkpoint(f, pickle.dumps({"network_weights": {"w": _Runs()}})), "mkdir"),
    "checkpoint-bare": (
        lambda f: _file(_training(f) / "fold_all", "checkpoint_final.pth", pickle.dumps(_Runs())).parent.parent,
        "before 1.6",
    ),
    "postprocessing-pickle": (lambda f: _file(_training(f), "postprocessing.pkl", pickle.dumps(_Runs())).parent, "not"),
    # pickles that would end the process, or whatever writes about them
    "state-dict-tuples": (lambda f: _state_dict(f, b"}" + b")" + b"\x85" * 3_000_000 + b"Ns"), "nests more than"),
    "state-dict-lists": (lambda f: _state_dict(f, _chained_lists(1000)), "nests more than"),
    "state-dict-shared": (lambda f: _state_dict(f, _shared_lists(60)), "more than 4194304 values"),
    "state-dict-number": (lambda f: _state_dict(f, b"\x8b" + struct.pack("<i", 9000) + b"\x7f" * 9000), "71999 bits"),
    "state-dict-keys": (
        lambda f: _state_dict(f, pickle.dumps({**MLP, "voxelrt.arguments": {("widths",): 2}}, 2)[2:-1]),
        "other things than numbers",
    ),
    # zips that climb out
    "pt2-climbs": (_climbing(".pt2"), "leads out"),
    "torchscript-climbs": (_climbing(".pt"), "leads out"),
    "checkpoint-climbs": (lambda f: _checkpoint(f, b"N.", "../../data.pkl"), "no data.pkl"),
    # sizes of 2^60
    "onnx-dims": (lambda f: _onnx(f, _dims), "too large|needs"),
    "onnx-external": (lambda f: _onnx(f, lambda p: _external(p, location="net.onnx", offset=HUGE)), "needs bytes"),
    "tensorflow-constant": (lambda f: _tensorflow(f, source="c"), "c"),
    "safetensors-head": (lambda f: _safetensors(f, {}, HUGE), "no safetensors"),
    "safetensors-tensor": (
        lambda f: _safetensors(f, {"a": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4]}}),
        "a",
    ),
    "nnunet-patch": (lambda f: _plans(f, _huge_patch), "patch_size"),
    "zip-part": (_zip_of_a_huge_part, "net.pt2"),
    "plan-size": (lambda f: _plan(f, 16), "truncated|bytes"),
    "plan-table": (lambda f: _plan(f, 24), "damaged"),
    # cycles
    "onnx-cycle": (lambda f: _onnx(f, _cycle), "cycle"),
    "tensorflow-cycle": (lambda f: _tensorflow(f, source="b"), "cycle|circle|loop"),
    "nnunet-inherits-itself": (lambda f: _plans(f, _inherits_itself), "ends somewhere"),
    # what is missing
    "onnx-external-missing": (lambda f: _onnx(f, lambda p: _external(p, location="w.bin")), "missing"),
    "nnunet-checkpoint-missing": (_without_checkpoints, "no checkpoint"),
    "nnunet-v1": (_first_version, "v1"),
    "recipe-model-missing": (_text("r.toml", SMALL), "net.onnx"),
    "composite-model-missing": (
        _text("c.toml", COMPOSITE.format(path='"Dataset001_x"', classes="{ a = 1 }")),
        "Dataset001_x",
    ),
    "composite-climbs": (_text("c.toml", COMPOSITE.format(path='"../other"', classes="{ a = 1 }")), "path"),
    # wrong types
    "nnunet-types": (lambda f: _plans(f, _wrong_types), "patch_size"),
    "safetensors-types": (lambda f: _safetensors(f, {"a": {"dtype": 3, "shape": "x", "data_offsets": {}}}), "a"),
    "composite-types": (_text("c.toml", COMPOSITE.format(path='["x"]', classes="3")), "path|classes"),
    "recipe-types": (_text("r.toml", SMALL.replace('"segmentation"', "[7]")), "task"),
}


@pytest.mark.parametrize("case", list(HOSTILE))
def test_a_hostile_file_is_refused(tmp_path: Path, monkeypatch: Any, case: str) -> None:
    make, match = HOSTILE[case]
    (tmp_path / "a" / "b").mkdir(parents=True)
    path = make(tmp_path / "a" / "b")
    monkeypatch.chdir(tmp_path)
    there = sorted(tmp_path.rglob("*"))
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(VoxelRTError, match=match):
            vx.Plan.open(path) if path.suffix == ".vxp" else vx.load(path)
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 5, "a second, and what tracing takes"
    assert sorted(tmp_path.rglob("*")) == there, "nothing was run, nothing unpacked"


def _spoiled(name: str, folder: Path) -> Path:
    proto = _mlp()
    weight = proto.graph.initializer[0]
    array = onnx.numpy_helper.to_array(weight).copy()
    array.ravel()[1] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    if name == "onnx":
        return _file(folder, "net.onnx", proto.SerializeToString())
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in proto.graph.initializer}
    path = folder / "net.safetensors"
    write_safetensors(path, weights, architecture="mlp", arguments={"widths": [5, 7, 3], "batch": 2})
    return path


@pytest.mark.parametrize("name", ["onnx", "safetensors"])
def test_weights_that_are_no_numbers_are_warned_of(tmp_path: Path, caplog: Any, name: str) -> None:
    with caplog.at_level(logging.WARNING):
        model = vx.load(_spoiled(name, tmp_path))
    assert any("1 NaN" in note for note in model.source["notes"])
    assert "1 NaN" in caplog.text
