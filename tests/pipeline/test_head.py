"""The last convolution of 1×1×1 voxels is taken of sums of features: the same labels as from sums of logits."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import voxelrt as vx
from voxelrt.errors import ParityError, PlanError, UsageError
from voxelrt.graph.head import head_of, without_head
from voxelrt.io import write_nifti
from voxelrt.models.load import Model, load
from voxelrt.models.nnunet_settings import FEATURES, INPUT, OUTPUT, Label
from voxelrt.plan.head import Head

FOLDERS = Path(__file__).parents[1] / "models" / "data" / "nnunet_folders.tar.xz"
PATCH, NARROW, CLASSES = (12, 16, 20), 4, 11


def network(
    features: int = NARROW,
    classes: int = CLASSES,
    *,
    kernel: int = 1,
    bias: bool = True,
    group: int = 1,
    more: str = "",
) -> ir.Model:
    """A convolution, an activation and a head."""
    rng = np.random.default_rng(features + classes)
    weights = {
        "w": rng.normal(size=(features, 1, 3, 3, 3)) / 5,
        "h": rng.normal(size=(classes, features // group, kernel, kernel, kernel)),
        "b": rng.normal(size=classes),
    }
    nodes = [
        helper.make_node("Conv", [INPUT, "w"], ["c"], kernel_shape=[3] * 3, pads=[1] * 6, name="first"),
        helper.make_node("LeakyRelu", ["c"], ["f"], alpha=0.01, name="activation"),
        helper.make_node(
            "Conv",
            ["f", "h", "b"][: 3 if bias else 2],
            [OUTPUT],
            kernel_shape=[kernel] * 3,
            pads=[kernel // 2] * 6,
            group=group,
            name="head",
        ),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n, *PATCH])
        for name, n in ((INPUT, 1), (OUTPUT, classes))
    ]
    if more:  # another reader of the features, or another output
        nodes.append(helper.make_node("ReduceMax", ["f"], ["top"], name="top"))
        ends.append(helper.make_tensor_value_info("top", TensorProto.FLOAT, [1] * 5))
    kept = [numpy_helper.from_array(weights[n].astype(np.float32), n) for n in ("w", "h", "b") if bias or n != "b"]
    graph = helper.make_graph(nodes, "one", ends[:1], ends[1:], kept)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The network with an nnU-Net model's settings."""
    folder = tmp_path_factory.mktemp("model")
    with tarfile.open(FOLDERS) as archive:
        archive.extractall(folder, filter="data")
    model = load(folder / "Dataset801_Plain")
    assert model.settings is not None
    labels = tuple(Label(f"structure {k}", (k,)) for k in range(1, CLASSES))
    own = {"patch_size": PATCH, "labels": labels, "spacing_mm": (1.0,) * 3, "folds": ("0",), "mirror_axes": (0, 2)}
    settings = replace(model.settings, **own, postprocessing=())
    return replace(model, graph=network(), settings=settings)


def test_a_head_is_a_lone_last_pointwise_convolution_that_widens() -> None:
    head = head_of(network())
    assert head is not None
    assert head.features == NARROW
    assert head.matrix.shape == (CLASSES, NARROW + 1)
    assert head_of(network(bias=False)) is not None
    assert head_of(network(features=CLASSES)) is None  # nothing to gain
    assert head_of(network(kernel=3)) is None
    assert head_of(network(features=4, classes=12, group=2)) is None
    assert head_of(network(more=True)) is None
    bare = without_head(network())
    assert [v.name for v in bare.graph.outputs] == [FEATURES]
    assert head_of(bare) is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_plan_gives_features_where_out_asks_for_them(loaded: Model, precision: str, tmp_path: Path) -> None:
    plan = vx.compile(loaded, precision=precision, verify=precision == "fp32", tune="off", threads=2)
    image = np.random.default_rng(1).normal(size=(1, 1, *PATCH)).astype(np.float32)
    for one in (plan, vx.Plan.open(plan.save(tmp_path / "net.vxp"), threads=2)):
        assert [io.name for io in one.outputs] == [OUTPUT]
        logits = one.run({INPUT: image})[OUTPUT]
        trunk = one.trunk
        assert trunk is not None
        given, head = trunk
        assert given.dims == (1, NARROW, *PATCH)
        features = np.full(given.dims, np.nan, np.float32)
        assert list(one.run({INPUT: image}, {FEATURES: features})) == [FEATURES]
        mine = head.logits(features[0])
        tolerance = 1e-5 if precision == "fp32" else 2e-2
        assert np.linalg.norm(mine - logits[0]) <= tolerance * np.linalg.norm(logits)
    with pytest.raises(UsageError, match="out has no array for logits"):
        plan.run({INPUT: image}, {"other": features})


def test_labels_are_those_of_summed_logits(loaded: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = np.random.default_rng(2).normal(0, 100, (23, 37, 41)).astype(np.float32)
    scan[:3] = 0  # is cropped
    write_nifti(vx.Volume(scan, np.diag([1.1, 0.9, 1.2, 1])), tmp_path / "case.nii.gz")
    plan = vx.compile(loaded, verify=False, tune="off", threads=2)
    said: list[str] = []
    found = vx.predict(plan, tmp_path / "case.nii.gz", say=said.append).labels.array
    monkeypatch.setattr(vx.Plan, "trunk", None)
    wanted = vx.predict(plan, tmp_path / "case.nii.gz", say=said.append).labels.array
    assert np.count_nonzero(np.bincount(wanted.ravel()) > 100) > 3
    assert (found != wanted).mean() < 1e-4  # near ties
    assert "MiB of it sums" in said[0]
    sums = [float(text.rpartition(" MiB of it")[0].split()[-1]) for text in said]
    assert sums[0] < 0.5 * sums[1]  # 4 channels in place of 11


def test_a_trunk_that_departs_fails_the_compilation(loaded: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Head, "logits", lambda head, features: np.zeros((CLASSES, *PATCH), np.float32))
    with pytest.raises(ParityError, match="without its head departs"):
        vx.compile(loaded, tune="off", threads=2)


def test_a_head_that_does_not_fit_is_damage(loaded: Model) -> None:
    plan = vx.compile(loaded, verify=False, tune="off", threads=2)
    assert plan.trunk is not None
    given, head = plan.trunk
    with pytest.raises(PlanError, match="size of the head of 4 features and 11 classes"):
        Head.of(head.matrix.reshape(-1).view(np.uint8)[:-4], plan.outputs[0], given)
    with pytest.raises(PlanError, match=r"features of .* beside logits of"):
        Head.of(head.matrix.reshape(-1).view(np.uint8), plan.outputs[0], replace(given, dims=given.dims[:-1]))
