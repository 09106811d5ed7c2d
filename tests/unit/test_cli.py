"""The command line: answers, JSON, exit codes, and errors of one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import voxelrt as vx
from tests.phantoms import PATIENT_NAME, dicom_series, octants, save_series
from tests.pipeline.counting import LABELS, counting, identity, save
from voxelrt.cli import COMMANDS, main
from voxelrt.commands import doctor
from voxelrt.commands.options import parse_inputs, parse_shapes
from voxelrt.errors import UsageError
from voxelrt.io import read_image, write_nifti
from voxelrt.volume import Volume

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VOXELRT_CACHE", str(folder))
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write_nifti(Volume(octants(), AFFINE), tmp_path / "head.nii.gz")
    return tmp_path / "head.nii.gz"


def call(*arguments: object) -> int:
    """The exit code of the command line in this process."""
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


def test_help_shows_examples_and_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    text = capsys.readouterr().out
    assert "not a medical device" in text
    assert all(name in text for name in COMMANDS)
    for name in COMMANDS:
        assert call(name, "--help") == 0
        assert f"voxelrt {name}" in capsys.readouterr().out.replace("Usage: voxelrt", "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"voxelrt {vx.__version__}\n"


def test_run_writes_mask_picture_and_says_what_it_measured(
    tmp_path: Path, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(tmp_path, counting())
    assert call("run", model, study, "-o", tmp_path / "mask.nii.gz", "--picture", tmp_path / "mask.png") == 0
    out = capsys.readouterr().out
    assert "octant 3: 0.4 mL" in out
    assert "wrote" in out
    np.testing.assert_array_equal(read_image(tmp_path / "mask.nii.gz").volume.array[0], octants())
    assert (tmp_path / "mask.png").is_file()


def test_json_on_stdout_is_nothing_but_json(tmp_path: Path, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save(tmp_path, counting())
    for arguments in (
        ("run", model, study, "-o", tmp_path / "m.nii"),
        ("info", model),
        ("info", study),
        ("doctor",),
        ("fetch",),
        ("compile", model, "-o", tmp_path / "net.vxp", "--shape", "image=1,1,6,8,10"),
        ("info", tmp_path / "net.vxp"),
        ("bench", tmp_path / "net.vxp", "--repeat", 2, "--profile"),
    ):
        assert call(*arguments, "--json", "-") == 0
        assert isinstance(json.loads(capsys.readouterr().out), dict), arguments


def test_json_to_a_file(tmp_path: Path, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", save(tmp_path, counting()), study, "--json", tmp_path / "answer.json", "--quiet") == 0
    assert capsys.readouterr().out == ""
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert answer["volumes_ml"]["octant 1"] > 0
    assert answer["warnings"] == []


def test_several_studies_go_to_a_folder(tmp_path: Path, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, broken = save(tmp_path, counting((6, 8, 10))), tmp_path / "broken.nii"
    broken.write_bytes(b"no image")
    assert call("run", model, study, broken, study, "-o", f"{tmp_path}/masks") == 3
    said = capsys.readouterr()
    assert "study 2 failed" in said.err
    names = {p.name for p in (tmp_path / "masks").glob("*.nii.gz")}
    assert names == {"study-0001.nii.gz", "study-0003.nii.gz"}
    assert call("run", model, study, study, "-o", f"{tmp_path}/masks", "--resume", "--json", "-") == 0
    rows = json.loads(capsys.readouterr().out)["studies"]
    assert rows[0]["skipped"]
    assert call("run", model, study, study) == 2


def test_several_inputs(tmp_path: Path, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    channel = '\n[[input.channels]]\nname = "flair"'
    model = save(tmp_path, identity(channels=2), channel=channel, output='kind = "image"')
    named = ("--input", f"image={study}", "--input", f"flair={study}")
    assert call("run", model, *named, "-o", tmp_path / "out.nii") == 0
    np.testing.assert_array_equal(read_image(tmp_path / "out.nii").volume.array[0], 2.0 * octants())
    assert call("run", model, study, *named) == 2
    assert call("run", model, "--input", "image") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("run", "{model}", "nowhere.nii.gz"), 3, "nowhere.nii.gz"),
        (("run", "{model}",), 2, "there is no study"),
        (("run", "{model}", "{study}", "-o", "mask.txt"), 2, "mask.txt"),
        (("run", "{model}", "{study}", "-o", "{folder}/no/mask.nii"), 3, "no folder"),
        (("run", "no-such-recipe", "{study}"), 2, "no-such-recipe"),
        (("run", "{broken}", "{study}"), 4, "not an ONNX model"),
        (("info", "{plan}"), 5, "plan"),
        (("info", "nothing-like-it"), 2, "brain-extraction"),
        (("compile", "{model}", "-o", "net.bin"), 2, ".vxp"),
        (("compile", "{model}", "-o", "{folder}/net.vxp", "--shape", "image"), 2, "NAME="),
        (("bench", "{model}", "--repeat", "none"), 2, "repeat"),
        (("run", "{model}", "{study}", "--no-such-option"), 2, "no-such-option"),
        (("nonsense",), 2, "nonsense"),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_their_exit_code(
    arguments: tuple[str, ...], code: int, text: str, tmp_path: Path, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, plan = tmp_path / "broken.onnx", tmp_path / "broken.vxp"
    broken.write_bytes(b"\x00 no network")
    plan.write_bytes(b"no plan")
    places = {"model": save(tmp_path, counting()), "study": study, "broken": broken, "plan": plan, "folder": tmp_path}
    assert call(*(a.format(**places) for a in arguments)) == code
    said = capsys.readouterr()
    assert text in said.err
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    assert said.out == ""


def test_debug_shows_where(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        main(["run", str(save(tmp_path, counting())), "--debug"])


def test_ct_is_refused_with_its_exit_code_and_no_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save(tmp_path, counting(), head='modality = "MR"')
    folder = save_series(dicom_series(octants()), tmp_path / "series")
    assert call("run", model, folder, "-o", tmp_path / "mask.nii") == 3
    said = capsys.readouterr()
    assert "is CT" in said.err
    assert "--force" in said.err
    assert not (tmp_path / "mask.nii").exists()
    assert call("run", model, folder, "-o", tmp_path / "mask.nii", "--force") == 0
    said = capsys.readouterr()
    assert "warning: the study is CT" in said.err
    assert PATIENT_NAME not in said.err + said.out


def test_info_of_a_model_names_ops_parameters_and_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save(tmp_path, counting())
    assert call("info", model) == 0
    assert "shapes are open" in capsys.readouterr().out
    assert call("info", model, "--shape", "image=1,1,6,8,10", "--json", "-") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["parameters"] == 18
    assert data["ops"] == {"Conv": 1}
    assert data["at_shape"]["placements"] == {"native": 1}
    assert data["inputs"][0]["shape"][:2] == [1, 1]


def test_info_of_an_image(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("info", study, "--json", "-") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["shape_zyx"] == [6, 8, 10]
    assert data["spacing_mm_zyx"] == [3.0, 2.0, 1.0]
    assert data["orientation_xyz"] == "LPS"
    assert data["range"] == [1.0, 8.0]


def test_doctor_says_how_to_get_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert call("doctor", "--json", "-") == 0
    found = {f["what"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert "pip install 'voxelrt[onnxruntime]'" in found["[onnxruntime]"]["text"]
    assert found["native library"]["state"] == "ok"
    monkeypatch.setattr(doctor, "CORE", ("no-such-package",))
    assert call("doctor") == 1


def test_an_unknown_environment_variable_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXELRT_THREAD", "2")
    assert call("fetch") == 2
    assert "VOXELRT_THREAD" in capsys.readouterr().err


def test_shapes_and_inputs_are_parsed() -> None:
    assert parse_shapes(["a=1,2:4:8,3", "b=5"]) == {"a": (1, (2, 4, 8), 3), "b": (5,)}
    assert parse_shapes(None) is None
    for wrong in ("a", "=1", "a=", "a=1,x", "a=8:4:2", "a=1:2", "a=0"):
        with pytest.raises(UsageError):
            parse_shapes([wrong])
    with pytest.raises(UsageError, match="twice"):
        parse_shapes(["a=1", "a=2"])
    assert parse_inputs(["t1=a=b.nii"]) == {"t1": Path("a=b.nii")}


SCRIPT = """
import os, signal, sys, threading
from voxelrt.cli import main
from voxelrt.plan.plan import Plan
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
run = Plan.run
def interrupted(self, *arguments, **options):
    threading.Timer(0.05, os.kill, (os.getpid(), signal.{signal})).start()
    while True:
        run(self, *arguments, **options)
Plan.run = interrupted
main(sys.argv[1:])
"""


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_a_signal_while_the_network_runs_leaves_no_half_file(signal: str, tmp_path: Path) -> None:
    plan = vx.compile(save(tmp_path, _long(), output=f'kind = "logits"\n{LABELS}'), verify=False)
    plan.save(tmp_path / "net.vxp")
    write_nifti(Volume(octants((32, 32, 32)), AFFINE), tmp_path / "in.nii")
    command = ["run", str(tmp_path / "net.vxp"), str(tmp_path / "in.nii"), "-o", str(tmp_path / "out.nii.gz")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(signal=signal), *command], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() == "stopped; what was not finished was not written"
    assert not [p.name for p in tmp_path.iterdir() if "out" in p.name]


def _long() -> onnx.ModelProto:
    """Many steps, so that a signal falls between two of them."""
    weight = np.zeros((16, 16, 3, 3, 3), np.float32)
    first = np.ones((16, 1, 1, 1, 1), np.float32)
    nodes = [helper.make_node("Conv", ["image", "first"], ["x0"], name="first")]
    for k in range(20):
        output = "scores" if k == 19 else f"x{k + 1}"
        nodes.append(helper.make_node("Conv", [f"x{k}", "w"], [output], pads=[1] * 6, name=f"conv{k}"))
    size: list[Any] = [32, 32, 32]
    graph = helper.make_graph(
        nodes,
        "long",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, *size])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 16, *size])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_gpu_that_is_not_there_is_said_before_any_work(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = save(tmp_path, counting((6, 8, 10)))
    assert call("run", net, study, "--device", "cuda") == 2
    assert "voxelrt compile" in capsys.readouterr().err
    vx.compile(net, tune="off", verify=False).save(tmp_path / "net.vxp")
    code = call("run", tmp_path / "net.vxp", study, "--device", "cuda")
    told = capsys.readouterr().err
    # With a GPU the plan is at fault: it was not compiled for one.
    assert (code, "pip install" in told) == (7, True) or (code in (5, 10) and "GPU" in told)
