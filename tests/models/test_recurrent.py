"""Trained networks for signals: BiLSTM seizure detectors, 1-D spindle U-Nets, a stateful LSTM in chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import voxelrt as vx
from voxelrt.errors import FetchError, VoxelRTError
from voxelrt.models.fetch import PackagedFile, fetch

pytestmark = pytest.mark.data

BRAINMAZE, BRAINMAZE_VERSION = "brainmaze-eeg-models", "0.1.0"
SILERO, SILERO_VERSION = "silero-vad", "6.2.3"
FILES = {
    "seizure-a": (
        BRAINMAZE,
        BRAINMAZE_VERSION,
        "brainmaze_eeg_models/seizure/_models/modelA_paper.onnx",
        "088c815a10b54435432a0bef2629977d59e655a0c60b48a89e744aa52b6d48e3",
    ),
    "seizure-b": (
        BRAINMAZE,
        BRAINMAZE_VERSION,
        "brainmaze_eeg_models/seizure/_models/modelB_full.onnx",
        "0fed4d9f9c11a97f9bd97307e8d97aed9216831bd3e6b15de81c0cd223979fcc",
    ),
    "spindles-eeg": (
        BRAINMAZE,
        BRAINMAZE_VERSION,
        "brainmaze_eeg_models/spindles/_models/spindle-detector-eeg.onnx",
        "8368ef11554dda32178d65320c5b4690456c5c6cebd207d4ba0e68d3d5179e81",
    ),
    "spindles-ieeg": (
        BRAINMAZE,
        BRAINMAZE_VERSION,
        "brainmaze_eeg_models/spindles/_models/spindle-detector-ieeg.onnx",
        "75291ee435ff08360f869ee7279f00d61de557d2a37c57d860f1257e228ba0e8",
    ),
    "voice": (
        SILERO,
        SILERO_VERSION,
        "silero_vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    ),
}
RATE_HZ, CHUNK, CONTEXT = 16000, 512, 64


def network(name: str) -> Path:
    package, version, file, digest = FILES[name]
    try:
        return fetch(PackagedFile(package, version, file, digest))
    except FetchError as error:
        pytest.skip(str(error))


def spectrogram(steps: int) -> NDArray[np.float32]:
    """Two recordings as (batch, frequency, time), standardised: noise, and in one of them a rhythm that slows down."""
    rng = np.random.default_rng(12)
    made = rng.normal(0, 0.6, (2, 100, steps))
    bins = np.arange(100)[:, None]
    ridge = 40 - 25 * np.arange(steps)[None] / steps
    made[1] += 4 * np.exp(-(((bins - ridge) / 4) ** 2)) * (np.arange(steps) > steps // 4)
    return made.astype(np.float32)


def spindle() -> dict[str, NDArray[np.float32]]:
    """Thirty seconds at 250 Hz with two bursts of 13 Hz, and a matrix of fifteen scales over it."""
    rng = np.random.default_rng(13)
    t = np.arange(7500) / 250
    bursts = sum(np.exp(-(((t - at) / 0.4) ** 2)) for at in (8.0, 21.0))
    signal = rng.normal(0, 0.5, 7500) + 2 * bursts * np.sin(2 * np.pi * 13 * t)
    scales = np.arange(15)[:, None]
    spectrum = rng.normal(0, 0.5, (15, 7500)) + 3 * bursts * np.exp(-(((scales - 7) / 2) ** 2))
    return {
        "raw_signal": signal[None, None].astype(np.float32),
        "spectrogram": spectrum[None].astype(np.float32),
    }


def voice(seconds: float) -> NDArray[np.float32]:
    """Silence, a voiced sound (a train of pulses through three resonances), silence, and noise."""
    rng = np.random.default_rng(14)
    count = int(seconds * RATE_HZ) // CHUNK * CHUNK
    t = np.arange(count) / RATE_HZ
    pitch_hz = 120 + 20 * np.sin(2 * np.pi * 3 * t)
    phase = np.cumsum(pitch_hz) / RATE_HZ
    sound = np.zeros(count)
    for harmonic in range(1, 30):
        frequency_hz = harmonic * pitch_hz
        gain = sum(np.exp(-(((frequency_hz - f) / 120) ** 2)) for f in (600, 1100, 2500))
        sound += gain * np.sin(2 * np.pi * harmonic * phase)
    sound *= (np.sin(2 * np.pi * 2 * t) > -0.3) * ((t > seconds / 4) & (t < seconds * 0.7))
    return (0.1 * sound + 0.002 * rng.normal(size=count)).astype(np.float32)


def session(path: Path) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime gives the answer to compare with")
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def agrees(found: Any, expected: Any) -> bool:
    assert found.shape == expected.shape
    return bool(np.linalg.norm(found.astype(np.float64) - expected) <= 5e-5 * np.linalg.norm(expected))


@pytest.mark.parametrize("name", ["seizure-a", "seizure-b"])
def test_the_seizure_detectors_run_natively(name: str) -> None:
    path, x = network(name), spectrogram(301)
    plan = vx.compile(path, shapes={"x": x.shape}, fallback="error", tune="off")
    expected = session(path).run(None, {"x": x})
    for found, reference in zip(plan.run({"x": x}).values(), expected, strict=True):
        assert agrees(found, reference)
    probabilities = expected[1]
    assert np.abs(probabilities[:, 0] - probabilities[:, 1]).max() > 0.2, "the network tells the recordings apart"


@pytest.mark.parametrize("name", ["spindles-eeg", "spindles-ieeg"])
def test_the_spindle_networks_run_natively(name: str) -> None:
    path, inputs = network(name), spindle()
    plan = vx.compile(path, shapes={n: a.shape for n, a in inputs.items()}, fallback="error", tune="off")
    expected = session(path).run(None, inputs)
    for found, reference in zip(plan.run(inputs).values(), expected, strict=True):
        assert np.ptp(reference) > 0.05, "the network answers to the bursts"
        assert agrees(found, reference)


def chunks(signal: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The signal as its authors feed it: each chunk behind the end of the one before."""
    before = np.concatenate([np.zeros(CONTEXT, np.float32), signal])
    return [before[None, i : i + CONTEXT + CHUNK] for i in range(0, len(signal), CHUNK)]


def test_a_long_signal_in_chunks_is_that_of_onnx_runtime() -> None:
    """Sixty seconds, 1875 steps, the state going from each to the next; the rate is an input and decides an ``If``."""
    path = network("voice")
    reference, rate = session(path), np.array(RATE_HZ, np.int64)
    plan = vx.compile(path, shapes={"input": (1, 576), "state": (2, 1, 128)}, fallback="error", tune="off")
    assert all(placement.backend == "native" for placement in plan.info.placements)
    stream, state = plan.stream({"stateN": "state"}), np.zeros((2, 1, 128), np.float32)
    found, expected = [], []
    for piece in chunks(voice(60.0)):
        found.append(stream({"input": piece, "sr": rate})["output"])
        output, state = reference.run(None, {"input": piece, "state": state, "sr": rate})
        expected.append(output)
    assert np.ptp(expected) > 0.2, "the network hears some chunks more than others"
    assert agrees(np.concatenate(found), np.concatenate(expected))
    assert agrees(stream.state["state"], state)
    with pytest.raises(VoxelRTError, match="cannot run on inputs of these shapes"):  # nor can it in ONNX Runtime
        plan.run({"input": piece, "state": state, "sr": np.array(8000, np.int64)})


def test_one_plan_takes_the_branch_of_the_rate_that_it_is_given() -> None:
    path = network("voice")
    reference, state = session(path), np.zeros((2, 1, 128), np.float32)
    plan = vx.compile(path, shapes={"input": (1, 288), "state": (2, 1, 128)}, fallback="error", tune="off")
    signal = voice(6.0)[RATE_HZ * 2 : RATE_HZ * 5 : 2]
    for rate in (8000, 16000, 8000):
        for start in range(0, len(signal) - 288, 4000):
            given = {"input": signal[None, start : start + 288], "state": state, "sr": np.array(rate, np.int64)}
            output, state = reference.run(None, given)
            found = plan.run(given)
            assert agrees(found["output"], output)
            assert agrees(found["stateN"], state)
