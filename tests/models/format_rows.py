"""What was run of each format: one entry a row of docs/formats.md. A new format adds its entries to ``ROWS``."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import voxelrt as vx
from voxelrt.models.architectures import named
from voxelrt.plan.plan import Plan

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Run:
    """A plan, an input, and what the reference answers to it; ``part`` is what was stored of an answer."""

    plan: Plan
    inputs: Arrays
    expected: Arrays
    reference: str
    part: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray


@dataclass(frozen=True)
class Row:
    """A row: ``make`` gives its runs; it may raise ImportError or VoxelRTError where something is not here."""

    format: str
    what: str
    make: Callable[[], list[Run]]


def _onnxruntime(model: Any, inputs: Arrays) -> tuple[dict[str, NDArray[Any]], str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, dict(inputs))
    return dict(zip(names, found, strict=True)), f"ONNX Runtime {onnxruntime.__version__}"


def _rapidocr(name: str) -> list[Run]:
    from tests.models.test_rapidocr import NETWORKS, PACKAGE, VERSION, picture
    from voxelrt.models.fetch import PackagedFile, fetch

    file, digest, shape = NETWORKS[name]
    path = fetch(PackagedFile(PACKAGE, VERSION, f"rapidocr_onnxruntime/models/{file}", digest))
    inputs = {"x": picture(shape)}
    expected, reference = _onnxruntime(str(path), inputs)
    return [Run(vx.compile(path, shapes={"x": shape}, fallback="error"), inputs, expected, reference)]


def _signals(name: str) -> list[Run]:
    """A trained network for signals on what its test feeds it."""
    from tests.models.test_recurrent import FILES, spectrogram, spindle
    from voxelrt.models.fetch import PackagedFile, fetch

    path = fetch(PackagedFile(*FILES[name]))
    inputs: Arrays = spindle() if name.startswith("spindles") else {"x": spectrogram(301)}
    expected, reference = _onnxruntime(str(path), inputs)
    shapes = {key: array.shape for key, array in inputs.items()}
    return [Run(vx.compile(path, shapes=shapes, fallback="error"), inputs, expected, reference)]


def _voice() -> list[Run]:
    """Ten steps of a stateful network, each on the states that ONNX Runtime had before it."""
    from tests.models.test_recurrent import FILES, RATE_HZ, chunks, voice
    from voxelrt.models.fetch import PackagedFile, fetch

    path, rate = fetch(PackagedFile(*FILES["voice"])), np.array(RATE_HZ, np.int64)
    shapes = {"input": (1, 576), "state": (2, 1, 128)}
    plan = vx.compile(path, shapes=shapes, fallback="error")
    runs, state = [], np.zeros(shapes["state"], np.float32)
    for piece in chunks(voice(4.0))[::12]:
        expected, reference = _onnxruntime(str(path), {"input": piece, "state": state, "sr": rate})
        runs.append(Run(plan, {"input": piece, "state": state, "sr": rate}, expected, reference))
        state = expected["stateN"]
    return runs


def _architectures() -> list[Run]:
    from tests.models.test_architectures import NETWORKS, _inputs

    runs = []
    for make in NETWORKS.values():
        model = make()
        inputs = _inputs(model, 7)
        expected, reference = _onnxruntime(ir.to_proto(model).SerializeToString(), inputs)
        runs.append(Run(vx.compile(model, fallback="error"), inputs, expected, reference))
    return runs


def _deepbrain() -> list[Run]:
    from tests.models.make_deepbrain_noise import noise
    from tests.models.test_deepbrain import STORED

    with np.load(STORED) as stored:
        levels = (stored["levels"].astype(np.float32) / np.float32(255)).reshape(1, 128, 128, 128, 1)
        answers = [(levels, stored["levels_sample"]), (noise(), stored["noise_sample"])]
    plan = vx.compile("brain-extraction", shapes={"img": (1, 128, 128, 128, 1)}, fallback="error")
    reference = "TensorFlow's stored output"
    return [Run(plan, {"img": x}, {"prob": y}, reference, lambda a: a[0, 1::4, 1::4, 1::4, 0]) for x, y in answers]


def _torch(kind: str, name: str) -> list[Run]:
    import torch

    from tests.models.test_torch import stored

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(stored(kind).tobytes())
        plan = vx.compile(path, shapes={"image": stored("input").shape}, fallback="error")
    expected = {plan.outputs[0].name: stored("output")}
    return [Run(plan, {"image": stored("input")}, expected, f"PyTorch {torch.__version__.split('+')[0]}")]


def _module(transformer: bool) -> list[Run]:
    import torch

    from tests.models.make_torch_files import Small

    torch.manual_seed(0)
    if transformer:
        layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        module, x = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), torch.randn(2, 17, 32)
    else:
        module, x = Small().eval(), torch.randn(2, 1, 9, 10, 11)
    plan = vx.compile(module, example_inputs=(x,), fallback="error")
    with torch.no_grad():
        expected = {plan.outputs[0].name: module(x).numpy()}
    reference = f"PyTorch {torch.__version__.split('+')[0]}"
    return [Run(plan, {plan.inputs[0].name: x.numpy()}, expected, reference)]


def _safetensors() -> list[Run]:
    from tests.models.test_safetensors import PEER
    from voxelrt.models.architectures import dense

    model = dense.build_mlp((5, 7, 3), batch=2, seed=11)
    assert named.parameters_of(model)
    inputs = {"features": np.random.default_rng(0).standard_normal((2, 5), np.float32)}
    expected, reference = _onnxruntime(ir.to_proto(model).SerializeToString(), inputs)
    return [Run(vx.compile(PEER, fallback="error"), inputs, expected, reference)]


def _state_dict() -> list[Run]:
    from tests.models.test_torch import WEIGHTS
    from voxelrt.models.formats.torch_checkpoint import Checkpoint

    with Checkpoint(WEIGHTS) as checkpoint:
        x, y = (checkpoint.tensor(checkpoint.content[name], name) for name in ("input", "output"))
    return [Run(vx.compile(WEIGHTS, fallback="error"), {"features": x}, {"logits": y}, "PyTorch's stored output")]


def _nnunet() -> list[Run]:
    from tests.models.test_nnunet import ARCHIVE, NAMES

    runs = []
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
        for name in NAMES:
            with np.load(next(Path(folder, name).glob("*/answer.npz"))) as stored:
                inputs, expected = {"image": stored["image"]}, {"logits": stored["logits"]}
            runs.append(
                Run(vx.compile(Path(folder, name), fallback="error"), inputs, expected, "nnU-Net 2.8.1, PyTorch")
            )
    return runs


ROWS = [
    Row("ONNX", "RapidOCR's text detector (rapidocr-onnxruntime 1.4.4)", lambda: _rapidocr("detection")),
    Row("ONNX", "RapidOCR's orientation classifier", lambda: _rapidocr("orientation")),
    Row("ONNX", "RapidOCR's text recogniser", lambda: _rapidocr("recognition")),
    Row("ONNX", "a BiLSTM seizure detector (brainmaze-eeg-models 0.1.0, model A)", lambda: _signals("seizure-a")),
    Row("ONNX", "a BiLSTM seizure detector (model B)", lambda: _signals("seizure-b")),
    Row("ONNX", "a 1-D U-Net for sleep spindles (scalp)", lambda: _signals("spindles-eeg")),
    Row("ONNX", "a 1-D U-Net for sleep spindles (intracranial)", lambda: _signals("spindles-ieeg")),
    Row("ONNX", "silero-vad 6.2.3's stateful LSTM, step by step, its `If` decided at run time", _voice),
    Row("ONNX", "the seeded networks of `tests/models/test_architectures.py`", _architectures),
    Row("TensorFlow, frozen", "deepbrain's 3-D U-Net, 128³, on a head and on noise", _deepbrain),
    Row("torch module", "a small 3-D network (`make_torch_files.py`)", lambda: _module(False)),
    Row("torch module", "`nn.TransformerEncoder` of two layers", lambda: _module(True)),
    Row("torch .pt2", "the small 3-D network, exported", lambda: _torch("pt2", "net.pt2")),
    Row("TorchScript .pt", "the small 3-D network, traced", lambda: _torch("torchscript", "net.pt")),
    Row("torch state dict .pth", "an MLP that torch.save wrote (`make_torch_files.py`)", _state_dict),
    Row("nnU-Net v2 folder", "plain (two folds), residual, 2-D (`make_nnunet_folders.py`)", _nnunet),
    Row("safetensors", "an MLP that the safetensors package wrote (`make_safetensors.py`)", _safetensors),
]
