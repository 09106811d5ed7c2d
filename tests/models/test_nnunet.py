"""nnU-Net's own folders give nnU-Net's own logits, without torch; hostile checkpoints are refused, and run nothing."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import voxelrt as vx
from voxelrt.errors import ModelError, UnsupportedError, UsageError, VoxelRTError
from voxelrt.kernels.common.kernel import compare
from voxelrt.models.formats.torch_checkpoint import Checkpoint, Opaque
from voxelrt.models.nnunet_settings import settings_from_json

ARCHIVE = Path(__file__).parent / "data" / "nnunet_folders.tar.xz"
NAMES = ("Dataset801_Plain", "Dataset802_Residual", "Dataset803_Flat")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What make_nnunet_folders.py wrote with the real trainer."""
    root = tmp_path_factory.mktemp("nnunet")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture
def plain(folders: Path, tmp_path: Path) -> Path:
    """A copy of the plain network's folder that a test may damage."""
    return Path(shutil.copytree(folders / NAMES[0] / "nnUNetTrainer__nnUNetPlans__3d_fullres", tmp_path / "copy"))


@pytest.mark.parametrize("name", NAMES)
def test_the_logits_are_those_of_torch(folders: Path, name: str) -> None:
    plan = vx.compile(folders / name, fallback="error", tune="off", verify=False)
    with np.load(next((folders / name).glob("*/answer.npz"))) as stored:
        out = plan.run({"image": stored["image"]})["logits"]
        assert compare(out, stored["logits"]).relative < 5e-5


def test_the_folder_s_settings_travel_in_the_plan(folders: Path, tmp_path: Path) -> None:
    vx.compile(folders / NAMES[1], tune="off", verify=False).save(tmp_path / "net.vxp")
    settings = settings_from_json(vx.Plan.open(tmp_path / "net.vxp").info.model_settings)
    assert settings == vx.load(folders / NAMES[1]).settings
    assert [channel.name for channel in settings.channels] == ["T1", "FLAIR"]
    assert settings.regions
    assert settings.region_order == (1, 2, 3)
    assert settings.outputs == 3
    assert settings.labels[0].values == (1, 2, 3)
    assert settings.mirror_axes == (0, 1, 2)
    assert settings.transpose_backward == (1, 2, 0)
    assert settings.channels[0].normalisation.only_inside_mask


def test_an_ignore_label_has_no_channel_and_one_fold_can_be_chosen(folders: Path) -> None:
    flat = vx.load(folders / NAMES[2])
    assert flat.settings is not None
    assert flat.settings.outputs == 2
    assert flat.settings.folds == ("all",)
    assert flat.settings.dimensions == 2
    one = vx.load(folders / NAMES[0], folds=["1"])
    assert one.settings is not None
    assert one.settings.folds == ("1",)
    assert one.source["sha256"] != vx.load(folders / NAMES[0]).source["sha256"]


def test_what_is_not_there_is_named(folders: Path, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fold 7"):
        vx.load(plain, folds=["7"])
    with pytest.raises(UsageError, match="2d"):
        vx.load(folders / NAMES[0], configuration="2d")
    with pytest.raises(ModelError, match=r"plans\.json"):
        vx.load(tmp_path)
    (tmp_path / "plans.pkl").touch()
    with pytest.raises(UnsupportedError, match="v1"):
        vx.load(tmp_path)


FULL = ("configurations", "3d_fullres")
NETWORK = (*FULL, "architecture")
SIZES = (*NETWORK, "arch_kwargs")


@pytest.mark.parametrize(
    ("file", "path", "value", "match"),
    [
        ("plans.json", ("transpose_forward",), [0, 0, 1], "transpose"),
        ("plans.json", ("configurations",), 3, "configurations"),
        ("plans.json", (*FULL, "patch_size"), ["a", 2, 3], "patch_size"),
        ("plans.json", (*FULL, "inherits_from"), "3d_fullres", "configuration"),
        ("plans.json", (*FULL, "normalization_schemes"), ["Mine"], "Mine"),
        ("plans.json", (*FULL, "normalization_schemes"), [{"a": 1}], "normalisation"),  # found by fuzzing
        ("plans.json", (*SIZES, "nonlin_kwargs"), ["negative_slope"], "nonlin_kwargs"),
        ("plans.json", (*FULL, "resampling_fn_data"), "mine", "mine"),
        ("plans.json", (*FULL, "spacing"), [1.0], "spacing|patch"),
        ("plans.json", (*NETWORK, "network_class_name"), "x.Mine", "Mine"),
        ("plans.json", (*SIZES, "features_per_stage"), [8] * 3, "shape"),
        ("plans.json", (*SIZES, "strides"), [[1, 1, 1]], "stages"),
        ("dataset.json", ("labels",), {"background": 0}, "no label"),
        ("dataset.json", ("labels",), {"background": 0, "a": 1, "b": 5}, "gaps"),
        ("dataset.json", ("labels",), {"background": 0, "a": [1, 2]}, "regions_class_order"),
        ("dataset.json", ("channel_names",), {}, "channel names"),
    ],
)
def test_wrong_settings_are_named(plain: Path, file: str, path: tuple[str, ...], value: Any, match: str) -> None:
    content = json.loads((plain / file).read_text())
    table = content
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = value
    (plain / file).write_text(json.dumps(content))
    with pytest.raises(VoxelRTError, match=match):
        vx.load(plain)


@pytest.mark.parametrize("keep", [0, 1, 100, 5000])
def test_a_truncated_checkpoint_is_damaged(plain: Path, keep: int) -> None:
    path = plain / "fold_0" / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="checkpoint_final"):
        vx.load(plain)


class _Runs:
    """A pickle that would make a file when it is read."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.place),))


def _checkpoint(path: Path, content: Any, parts: dict[str, bytes] | None = None, pickled: bytes | None = None) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, 2) if pickled is None else pickled)
        for name, data in (parts or {}).items():
            archive.writestr(f"archive/{name}", data)


def test_a_pickle_runs_nothing(plain: Path, tmp_path: Path) -> None:
    path, place = plain / "fold_0" / "checkpoint_final.pth", tmp_path / "made"
    _checkpoint(path, {"optimizer_state": _Runs(place), "network_weights": {}})
    with Checkpoint(path) as checkpoint:
        assert isinstance(checkpoint.content["optimizer_state"], Opaque)
    _checkpoint(path, {"network_weights": {"encoder.weight": _Runs(place)}})
    with pytest.raises(ModelError, match="mkdir"):
        vx.load(plain)
    assert not place.exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numbers_beside_the_weights_are_values(tmp_path: Path, protocol: int) -> None:
    given = {"a": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)), "s": np.float32(3)}
    path = tmp_path / "log.pth"
    _checkpoint(path, None, None, pickle.dumps({**given, "texts": np.array(["a"]), "none": np.zeros((0, 3))}, protocol))
    with Checkpoint(path) as checkpoint:
        found = {name: getattr(v, "value", v) for name, v in checkpoint.content.items()}
    for name, value in given.items():
        np.testing.assert_array_equal(found[name], value)
    assert found["none"].shape == (0, 3)
    assert found["texts"].size == 0


def test_a_part_packed_by_another_method_is_damage(plain: Path) -> None:
    """Found by fuzzing: zipfile says so only when the part is read."""
    path = plain / "fold_0" / "checkpoint_final.pth"
    data = bytearray(path.read_bytes())
    directory = data.rfind(b"PK\x01\x02")
    while directory >= 0:
        if b"/data/" in data[directory : directory + 120]:
            data[directory + 10 : directory + 12] = (97).to_bytes(2, "little")
        directory = data.rfind(b"PK\x01\x02", 0, directory)
    path.write_bytes(data)
    with pytest.raises(ModelError, match="checkpoint_final"):
        vx.load(plain)


class _Pickler(pickle.Pickler):
    """Writes a tensor as torch does: a storage by a persistent id, and a view of it."""

    def persistent_id(self, value: Any) -> Any:
        return value.pid if isinstance(value, _Stored) else None


class _Stored:
    def __init__(self, pid: Any) -> None:
        self.pid = pid


@pytest.mark.parametrize(
    ("elements", "shape", "strides", "match"),
    [
        (4, (1 << 47, 1 << 47), (0, 0), "inside"),
        (1 << 47, (4,), (1,), "numbers"),
        (4, (5,), (1,), "inside"),
        (4, (2, 2), (3, 1), "inside"),
        (4, (2,), (-1,), "size or stride"),
        (4, (1,) * 20, (1,) * 20, "axes"),
    ],
)
def test_a_tensor_lies_inside_its_storage(
    tmp_path: Path, elements: int, shape: tuple[int, ...], strides: tuple[int, ...], match: str
) -> None:
    # The names of torch's functions, which must not be importable here, are put in behind stand-ins of equal length.
    stream = io.BytesIO()
    storage = _Stored(("storage", _name("torch", "FloatStorage"), "0", "cpu", elements))
    _Pickler(stream, 2).dump({"network_weights": {"w": _View(storage, shape, strides)}})
    data = stream.getvalue()
    for module, name in (("torch", "FloatStorage"), ("torch._utils", "_rebuild_tensor_v2")):
        data = data.replace(f"c{__name__}\n_{name}_\n".encode(), f"c{module}\n{name}\n".encode())
    path = tmp_path / "x.pth"
    _checkpoint(path, None, {"data/0": bytes(16)}, data)
    with pytest.raises(ModelError, match=match), Checkpoint(path) as checkpoint:
        checkpoint.tensor(checkpoint.content["network_weights"]["w"], "w")


def __rebuild_tensor_v2_(*_: Any) -> None: ...


class _FloatStorage_: ...  # noqa: N801 - stands for torch.FloatStorage in a pickle


def _name(module: str, name: str) -> Any:
    return globals()[f"_{name}_"]


class _View:
    def __init__(self, storage: _Stored, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.arguments = (storage, 0, shape, strides, False, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_name("torch._utils", "_rebuild_tensor_v2"), self.arguments)


def test_weights_that_are_not_numbers_are_told(plain: Path) -> None:
    path = plain / "fold_0" / "checkpoint_final.pth"
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    first = next(name for name in parts if "/data/" in name)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, b"\xff" * len(data) if name == first else data)
    assert any("NaN" in note for note in vx.load(plain, folds=["0"]).source["notes"])


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What make_nnunet_folders.py wrote with other trainers of nnU-Net."""
    root = tmp_path_factory.mktemp("trainers")
    with tarfile.open(ARCHIVE.with_name("nnunet_trainers.tar.xz")) as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.mark.parametrize(
    ("name", "trainer", "axes"),
    [
        ("Dataset804_Batch", "nnUNetTrainerBN", (0, 1, 2)),  # builds batch norms where the plans say instance norms
        ("Dataset805_NoMirroring", "nnUNetTrainerNoMirroring", ()),
    ],
)
def test_the_trainer_and_its_mirroring_are_honoured(
    trainers: Path, name: str, trainer: str, axes: tuple[int, ...]
) -> None:
    plan = vx.compile(trainers / name, fallback="error", tune="off", verify=False)
    settings = settings_from_json(plan.info.model_settings)
    assert (settings.trainer, settings.mirror_axes) == (trainer, axes)
    with np.load(next((trainers / name).glob("*/answer.npz"))) as stored:
        assert compare(plan.run({"image": stored["image"]})["logits"], stored["logits"]).relative < 5e-5


def test_a_network_that_is_not_the_plans_is_refused(trainers: Path, tmp_path: Path) -> None:
    """A trainer of one's own with batch norms: weights would fit the plans' instance norms, and the answer be wrong."""
    folder = Path(shutil.copytree(trainers / "Dataset804_Batch", tmp_path / "own"))
    path = next(folder.rglob("checkpoint_final.pth"))
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for part, data in parts.items():
            archive.writestr(part, data.replace(b"nnUNetTrainerBN", b"nnUNetTrainerMy"))
    with pytest.raises(ModelError, match=r"running_mean.*nnUNetTrainerMy, built another one"):
        vx.load(folder)
