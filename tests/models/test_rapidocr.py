"""RapidOCR's trained CNNs (detection, orientation, recognition) on a drawn text, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import voxelrt as vx
from voxelrt.errors import FetchError
from voxelrt.models.fetch import PackagedFile, fetch

pytestmark = pytest.mark.data

PACKAGE, VERSION = "rapidocr-onnxruntime", "1.4.4"
NETWORKS = {
    "detection": (
        "ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        (1, 3, 96, 320),
    ),
    "orientation": (
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        (2, 3, 48, 192),
    ),
    "recognition": (
        "ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        (2, 3, 48, 320),
    ),
}


def network(name: str) -> Path:
    file, digest, _ = NETWORKS[name]
    try:
        return fetch(PackagedFile(PACKAGE, VERSION, f"rapidocr_onnxruntime/models/{file}", digest))
    except FetchError as error:
        pytest.skip(str(error))


def picture(shape: tuple[int, ...]) -> Any:
    """A dark line of text on white paper, values from -1 to 1; the second of a batch is upside down."""
    batch, channels, height, width = shape
    paper = Image.new("L", (width, height), 255)
    ImageDraw.Draw(paper).text((8, height // 4), "VOXEL 1234567", 0, ImageFont.load_default(height // 2))
    page = np.asarray(paper, np.float32) / 127.5 - 1.0
    pages = [page if i == 0 else page[::-1, ::-1] for i in range(batch)]
    return np.ascontiguousarray(np.repeat(np.stack(pages)[:, None], channels, 1))


@pytest.mark.parametrize("name", list(NETWORKS))
def test_gives_the_answer_of_onnx_runtime_natively(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime gives the answer to compare with")
    path, shape = network(name), NETWORKS[name][2]
    x = picture(shape)
    model = vx.load(path)
    plan = vx.compile(model, shapes={str(model.graph.graph.inputs[0].name): shape}, fallback="error", tune="off")
    answer = plan(x)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    assert answer.shape == expected.shape
    assert expected.max() > 0.5, "the network sees the text"
    assert np.linalg.norm(answer.astype(np.float64) - expected) <= 5e-5 * np.linalg.norm(expected)
    if name == "recognition":
        np.testing.assert_array_equal(answer.argmax(-1), expected.argmax(-1))
        assert len(set(expected[0].argmax(-1).tolist())) > 5, "several letters are read"
