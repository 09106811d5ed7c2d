"""A plan in the network's place in MONAI's inferer and in nnU-Net's predictor, which then give their own answers."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

import voxelrt as vx
from tests.pipeline.counting import counting, identity, save
from voxelrt.errors import MissingExtraError, UsageError
from voxelrt.models.load import load

FOLDERS = Path(__file__).parents[1] / "models" / "data" / "nnunet_folders.tar.xz"


def test_without_torch_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = vx.compile(save(tmp_path, identity((4, 4, 4))), verify=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"voxelrt\[torch\]"):
        vx.torch_module(plan)


def test_monai_s_inferer_takes_a_plan(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch, whose tensors MONAI takes, is not installed")
    inferers = pytest.importorskip("monai.inferers", reason="MONAI, the peer of this test, is not installed")
    model = save(tmp_path, counting((8, 8, 8), batch="n"))
    plan = vx.compile(model, shapes={"image": ((1, 2, 4), 1, 8, 8, 8)}, verify=False)
    volume = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (1, 1, 19, 13, 22)).astype(np.float32))
    for batch in (1, 3, 4):
        for mode in ("constant", "gaussian"):
            for network in (plan, vx.torch_module(plan)):
                out = inferers.sliding_window_inference(volume, (8, 8, 8), batch, network, overlap=0.5, mode=mode)
                assert out.shape == (1, 9, 19, 13, 22)
                assert torch.equal(out.argmax(1, keepdim=True).float(), volume)


def test_nnunet_s_predictor_takes_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="torch, on which nnU-Net runs, is not installed")
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setitem(os.environ, "nnUNet_compile", "f")
    stock = pytest.importorskip(
        "nnunetv2.inference.predict_from_raw_data", reason="nnU-Net, the peer of this test, is not installed"
    )
    with tarfile.open(FOLDERS) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "Dataset801_Plain"
    predictor = stock.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(next(folder.iterdir())), (0,), "checkpoint_final.pth")
    data = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 20, 40, 44)).astype(np.float32))
    expected = predictor.predict_logits_from_preprocessed_data(data)
    predictor.network = vx.torch_module(vx.compile(load(folder, folds=("0",)), tune="off", verify=False))
    predictor.list_of_parameters = [{}]
    out = predictor.predict_logits_from_preprocessed_data(data)
    # Both are nnU-Net's sums in half precision: a rounding of the last place apart, here and there.
    assert float((out.float() - expected.float()).norm() / expected.float().norm()) < 2e-3
    assert float((out.argmax(0) == expected.argmax(0)).float().mean()) > 0.999


def test_a_module_is_of_one_input(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from voxelrt.models.architectures.named import ARCHITECTURES

    plan = vx.compile(ARCHITECTURES["registration"](), verify=False, tune="off")
    with pytest.raises(UsageError, match="moving"):
        vx.torch_module(plan)
