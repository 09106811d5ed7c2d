"""Networks of PyTorch against PyTorch itself. Skipped without torch; the archives' checks need none (see below)."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import voxelrt as vx
from voxelrt.errors import MissingExtraError, ModelError, UnsupportedError, UsageError
from voxelrt.models.formats.torch_checkpoint import Checkpoint

DATA = Path(__file__).parent / "data" / "torch.npz"
WEIGHTS = DATA.with_name("weights.pth")
TOLERANCE = 5e-5


def stored(name: str) -> Any:
    with np.load(DATA) as archive:
        return archive[name]


def file_of(kind: str, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(stored(kind).tobytes())
    return path


def close(found: Any, expected: Any) -> None:
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= TOLERANCE * np.linalg.norm(expected)


@pytest.fixture
def torch() -> Any:
    pytest.importorskip("onnxscript", reason="torch's exporter stands on onnxscript")
    return pytest.importorskip("torch", reason="the extra [torch] is not installed")


@pytest.mark.parametrize(("kind", "name"), [("pt2", "net.pt2"), ("torchscript", "net.pt")])
def test_a_file_gives_what_torch_answered(torch: Any, tmp_path: Path, kind: str, name: str) -> None:
    path = file_of(kind, tmp_path, name)
    plan = vx.compile(path, fallback="error", shapes={"image": stored("input").shape}, tune="off")
    close(plan(stored("input")), stored("output"))
    assert plan.parity[0].name == "import"
    assert plan.parity[0].status == "measured on 1 inputs"


def test_an_open_batch_stays_open(torch: Any, tmp_path: Path) -> None:
    model = vx.load(file_of("pt2_open_batch", tmp_path, "net.pt2"))
    for batch in (1, 3):
        plan = vx.compile(model, fallback="error", shapes={"image": (batch, 1, 6, 7, 8)}, verify=False)
        answer = plan(np.repeat(stored("input"), batch, 0))
        close(answer, np.repeat(stored("output"), batch, 0))


def test_a_module_with_example_inputs(torch: Any, capsys: Any) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Dropout(), torch.nn.GELU(), torch.nn.Flatten())
    module.train()
    x = torch.randn(2, 1, 8, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = vx.compile(module, example_inputs=(x,), fallback="error")
    assert module.training
    assert module[1].training, "the module is left as it was"
    assert capsys.readouterr().out == ""
    close(plan(x.numpy()), module.eval()(x).detach().numpy())
    assert plan.parity[0].relative is not None


def test_a_module_with_shapes_and_a_range(torch: Any) -> None:
    class Two(torch.nn.Module):  # type: ignore[name-defined, misc]
        def forward(self, moving: Any, fixed: Any) -> dict[str, Any]:
            return {"difference": moving - fixed, "sum": moving + fixed}

    shapes = {"moving": ((1, 2, 4), 3), "fixed": ((1, 2, 4), 3)}
    plan = vx.compile(Two(), shapes=shapes, fallback="error")
    answer = plan.run({"moving": np.ones((3, 3), np.float32), "fixed": np.full((3, 3), 2, np.float32)})
    assert sorted(float(v.ravel()[0]) for v in answer.values()) == [-1.0, 3.0]


def test_what_a_module_needs_is_said(torch: Any) -> None:
    with pytest.raises(UsageError, match=r"example_inputs=.*its arguments are input"):
        vx.load(torch.nn.Conv1d(1, 1, 1))
    with pytest.raises(UsageError, match="shapes names image; the arguments of the module are input"):
        vx.load(torch.nn.Conv1d(1, 1, 1), shapes={"image": (1, 1, 4)})

    class Branch(torch.nn.Module):  # type: ignore[name-defined, misc]
        def forward(self, x: Any) -> Any:
            return x.sum().item() > 0 and x.nonzero().tolist()

    with pytest.raises(UnsupportedError, match="torch cannot export the network"):
        vx.load(Branch(), example_inputs=torch.ones(3))


def test_a_network_too_large_for_one_protobuf_goes_through_a_file(torch: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("voxelrt.models.formats.torch.IN_MEMORY_BYTES", 100)
    module = torch.nn.Conv1d(16, 32, 3).eval()
    x = torch.randn(1, 16, 9)
    close(vx.compile(module, example_inputs=x, verify=False)(x.numpy()), module(x).detach().numpy())


@pytest.mark.parametrize(("kind", "name"), [("pt2", "net.pt2"), ("torchscript", "net.pt")])
def test_without_torch_the_error_names_the_extra(tmp_path: Path, monkeypatch: Any, kind: str, name: str) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    path = file_of(kind, tmp_path, name)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'voxelrt[torch]'")):
        vx.load(path)


def test_a_state_dict_is_read_without_torch(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with Checkpoint(WEIGHTS) as checkpoint:
        x, y = (checkpoint.tensor(checkpoint.content[name], name) for name in ("input", "output"))
    close(vx.compile(WEIGHTS, fallback="error", verify=False)(x), y)
    with pytest.raises(ModelError, match=r"does not say of which network.*voxelrt\.architecture.*mlp"):
        vx.load(file_of("state_dict", tmp_path, "net.pth"))


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "old.pt").write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(ModelError, match="no archive of torch"):
        vx.load(tmp_path / "old.pt")


@pytest.mark.parametrize(("kind", "name"), [("pt2", "net.pt2"), ("torchscript", "net.pt")])
def test_verify_against_torch(torch: Any, tmp_path: Path, capsys: Any, kind: str, name: str) -> None:
    from voxelrt.cli import main

    path = file_of(kind, tmp_path, name)
    with pytest.raises(SystemExit) as left:
        main(["verify", str(path), "--against", "torch", "--shape", "image=1,1,6,7,8"])
    assert left.value.code == 0
    assert "phantom" in capsys.readouterr().out
