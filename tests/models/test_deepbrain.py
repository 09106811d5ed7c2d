"""deepbrain's trained U-Net: our import of it in ONNX Runtime against TensorFlow's own stored answers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.models.make_deepbrain_noise import noise
from voxelrt.errors import FetchError
from voxelrt.models.fetch import fetch
from voxelrt.models.formats.tensorflow import load_tensorflow
from voxelrt.models.recipe import load_recipe

STORED = Path(__file__).parent / "data" / "deepbrain_tensorflow.npz"

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def graph() -> Path:
    try:
        return fetch(load_recipe("brain-extraction"))
    except FetchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def model(graph: Path) -> ir.Model:
    source = load_recipe("brain-extraction").source
    return load_tensorflow(graph, inputs=source.inputs, outputs=source.outputs, constants=source.constants)


def test_structure(model: ir.Model) -> None:
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("Conv") == 10
    assert kinds.count("ConvTranspose") == 3
    assert kinds.count("MaxPool") == 3
    assert kinds.count("Transpose") == 0
    # One channel at both ends: the change of layout moves nothing.
    assert [i for i, kind in enumerate(kinds) if kind == "Reshape"] == [0, len(kinds) - 1]
    assert set(kinds) == {"Conv", "ConvTranspose", "MaxPool", "Relu", "Concat", "Sigmoid", "Reshape"}
    for node in model.graph:
        if node.op_type == "ConvTranspose":
            assert node.attributes["pads"].as_ints() == (0, 0, 0, 1, 1, 1)
    weights = [v.const_value for v in model.graph.initializers.values()]
    assert sum(w.size for w in weights if w is not None and w.dtype == ir.DataType.FLOAT) == 171_465
    assert list(model.graph.inputs[0].shape or ())[1:] == [128, 128, 128, 1]
    assert list(model.graph.outputs[0].shape or ())[1:] == [128, 128, 128, 1]


def test_without_being_told_anything_the_answer_is_the_same_graph(graph: Path, model: ir.Model) -> None:
    bare = load_tensorflow(graph)
    notes = bare.metadata_props["voxelrt.notes"]
    assert "training was folded to False" in notes
    assert "pred needs data of the training pipeline; the outputs are prob" in notes
    assert [(n.op_type, n.name) for n in bare.graph] == [(n.op_type, n.name) for n in model.graph]


@pytest.mark.parametrize("name", ["levels", "noise"])
def test_parity_with_tensorflow(name: str, model: ir.Model) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    with np.load(STORED) as stored:
        value: Any = noise()
        if name == "levels":
            value = (stored["levels"].astype(np.float32) / np.float32(255)).reshape(1, 128, 128, 128, 1)
        sha256, sample, bits = (stored[f"{name}_{part}"] for part in ("sha256", "sample", "mask"))
    assert hashlib.sha256(value.tobytes()).hexdigest() == str(sha256), "not the input that TensorFlow was given"
    session = runtime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    got = session.run(None, {"img": value})[0]
    error = np.abs(got[0, 1::4, 1::4, 1::4, 0] - sample)
    assert error.max() <= 1e-4, f"worst sample {np.unravel_index(error.argmax(), error.shape)}"
    mask = np.unpackbits(bits).astype(bool).reshape(got.shape)
    assert mask.sum() > 200_000
    assert ((got > 0.5) == mask).mean() >= 0.9999
