"""The bench's own rules: no time without a right answer, intervals that hold what they say, peers read strictly."""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from bench import kernel_rows
from bench.__main__ import main, rows_asked
from bench.contest import Contest, Process, WorkerError, hold
from bench.kernel_rows import KernelRow
from bench.networks import NETWORKS, count_flops
from bench.peers import Contestant, choose_peers, held_to_avx2, read_peers, requirements, subject
from bench.table import markdown, summary
from voxelrt.compile import compile as compile_plan
from voxelrt.kernels.common.kernel import Case, Kernel
from voxelrt.measure.ratios import coverage, ratio_of
from voxelrt.models.architectures import nnunet, unet3d

PATCH = (16, 16, 16)


@pytest.fixture
def contest(tmp_path: Path) -> Contest:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is the contestant here")
    ir.save(unet3d.build_unet3d((4, 8), PATCH), tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", unet3d.draw_volume((1, 1, *PATCH), 1))
    said: list[str] = []
    return Contest(
        tmp_path / "model.onnx", tmp_path / "x.npy", "onnxruntime", tmp_path, 1, rounds=6, seed=0, tell=said.append
    )


def onnxruntime() -> Contestant:
    return read_peers()["onnxruntime"]


def test_wrong_answer_has_no_time(contest: Contest) -> None:
    strict = replace(onnxruntime(), name="strict", tolerance=-1.0)
    broken = replace(onnxruntime(), name="broken", runner="no such runner")
    right = replace(onnxruntime(), name="right")
    reference, *others = hold(contest, [onnxruntime(), strict, broken, right])
    assert len(reference.times_s) == 6
    assert not reference.error
    assert others[0].error.startswith("wrong answer")
    assert others[1].error.startswith("KeyError")
    assert others[0].times_s == others[1].times_s == []
    assert others[0].record()["median_s"] is None
    assert others[2].difference == 0.0
    assert len(others[2].times_s) == 6
    assert others[2].peak_run_bytes > 10e6


def test_death_of_a_worker_is_told(tmp_path: Path) -> None:
    process = Process(onnxruntime(), 1, tmp_path / "log")
    try:
        with pytest.raises(WorkerError, match="no network is loaded"):
            process.ask("time", warm=0, runs=1)
        process.process.kill()
        with pytest.raises(WorkerError, match="SIGKILL"):
            process.ask("memory")
    finally:
        process.close()


def test_kernel_row_is_gated() -> None:
    case = Case("three", lambda rng: ((rng.random(3),), {}), tolerance=1e-6)
    right = Kernel("copy", lambda x: x, (case,))
    wrong = Kernel("copy", lambda x: x + 1, (case,))
    for kernel in (right, wrong):
        object.__setattr__(kernel, "backend", lambda name: lambda x: x)
    call, difference = KernelRow(right, "cpu", case).checked(0)
    assert difference == 0.0
    assert np.array_equal(call(), call())
    with pytest.raises(AssertionError, match="wrong answer"):
        KernelRow(wrong, "cpu", case).checked(0)


def test_every_bench_case_is_a_row() -> None:
    rows = kernel_rows.kernel_rows()
    assert len({row.name for row in rows}) == len(rows) > 0


@pytest.mark.parametrize("rounds", [6, 7, 9, 15])
def test_interval_covers_what_it_says(rounds: int) -> None:
    rng = random.Random(rounds)
    hits = 0
    for _ in range(2000):
        ratio = ratio_of([rng.lognormvariate(0.0, 0.3) for _ in range(rounds)], [1.0] * rounds)
        hits += ratio.low <= 1.0 <= ratio.high
    assert hits / 2000 == pytest.approx(ratio.coverage, abs=0.02)
    assert ratio.coverage >= 0.95
    assert ratio.claim == ratio.low


def test_five_rounds_make_no_claim() -> None:
    ratio = ratio_of([2.0] * 5, [1.0] * 5)
    assert (ratio.median, ratio.claim) == (2.0, None)
    assert coverage(5, 1) == 0.9375
    with pytest.raises(ValueError, match="no rounds"):
        ratio_of([], [])


def test_peers(tmp_path: Path) -> None:
    peers = read_peers()
    assert [p.name for p in choose_peers(None, quick=True)] == ["onnxruntime"]
    assert all("==" in pin for peer in peers.values() for pin in peer.requirements)
    assert {"torch==2.13.0", "onnxruntime==1.32.0"} <= set(requirements())
    assert peers["torch"].variables(3)["OMP_NUM_THREADS"] == "3"
    with pytest.raises(ValueError, match="no peer is named torh"):
        choose_peers(["torh"], quick=False)
    wrong = tmp_path / "peers.toml"
    wrong.write_text('[peers.a]\ntitle = "a"\nrunner = "a"\nrequirements = []\ntolerence = 1.0\n')
    with pytest.raises(ValueError, match="tolerence"):
        read_peers(wrong)


def test_who_can_be_is_held_to_avx2() -> None:
    peers = read_peers()
    held = [held_to_avx2(c) for c in (subject(), peers["openvino"], peers["onnxruntime"])]
    assert [c.title.rpartition(", ")[2] for c in held] == ["AVX2", "AVX2", "all instruction sets"]
    assert held[0].variables(2)["VOXELRT_CPU_ISA"] == "avx2"
    assert held[1].variables(2)["ONEDNN_MAX_CPU_ISA"] == "AVX2"


def test_rows_by_group() -> None:
    assert rows_asked(["layers", "kernels"], NETWORKS)[-2:] == ["layers/320", "kernels"]
    with pytest.raises(SystemExit, match="no row is named layer"):
        rows_asked(["layer"], NETWORKS)


@pytest.mark.parametrize("build", ["residual", "flat"])
def test_networks_as_planners_configure_them(build: str) -> None:
    if build == "residual":
        model, size = nnunet.build_residual_unet3d((16, 16, 16), (8, 12, 16), seed=1), (1, 1, 16, 16, 16)
    else:
        model, size = nnunet.build_unet2d((16, 16), (8, 12, 16), seed=1), (1, 1, 16, 16)
    plan = compile_plan(model, fallback="error", tune="off")
    logits = plan(unet3d.draw_volume((*size, *(1,) * (5 - len(size))), 2).reshape(size))
    assert logits.shape == (1, 5, *size[2:])
    assert len(np.unique(logits.argmax(1))) >= 4


def test_flops_of_the_graph_are_those_of_the_architecture() -> None:
    expected = sum(layer.flops for layer in unet3d.convolutions((4, 8), PATCH))
    model = unet3d.build_unet3d((4, 8), PATCH)
    from onnx_ir.passes.common import ShapeInferencePass

    ShapeInferencePass()(model)
    assert count_flops(model) == expected


def runs() -> Iterator[Any]:
    def entry(title: str, times: list[float], error: str = "") -> dict[str, Any]:
        return {
            "title": title,
            "error": error,
            "difference": 1e-6,
            "peak_run_bytes": 2**30,
            "times_s": times,
            "median_s": statistics.median(times) if times else None,
        }

    contestants = {
        "voxelrt": entry("VoxelRT", [1.0] * 6),
        "onnxruntime": entry("ORT", [2.0] * 6),
        "torch": entry("T", [], "wrong answer: x | y"),
    }
    row = {"row": "models/x", "title": "x", "error": "", "reference": "onnxruntime", "voxels": 10**6, "flops": 1e11}
    row |= {"contestants": contestants, "ratios": {"onnxruntime": ratio_of([2.0] * 6, [1.0] * 6).record()}}
    yield row | {"disturbance": 0.5}
    yield {"row": "models/y", "error": "it broke", "contestants": {}}


def test_table() -> None:
    machine = {"processor": "P", "threads": 2, "memory_gib": 8}
    ceilings = {"fma_gflops_one": 100.0, "fma_gflops": 200.0, "copy_gbps": 20.0, "copy_streaming_gbps": 30.0}
    kernel = {"row": "kernels/a-cpu-b", "error": "", "median_s": 1e-3, "q1_s": 9e-4, "q3_s": 2e-3, "gflops": 100.0}
    kernel |= {"gbps": 15.0, "difference": 0.0}
    run = {
        "machine": machine,
        "revision": {"commit": "c" * 40, "dirty": True},
        "created": "now",
        "command": "python -m bench run",
        "ceilings": ceilings,
        "warnings": [],
        "models": list(runs()),
        "kernels": [kernel, {"row": "kernels/a-numba-b", "error": "numba is not installed", "skipped": True}],
    }
    text = markdown(json.loads(json.dumps(run)))
    assert "| **VoxelRT** | 1.00 s | 1 | 50% | 1.00 GiB | 1.0e-06 |  |" in text
    assert "| ORT | 2.00 s | 0.5 | 25% | 1.00 GiB | reference | 2.00× (2.00–2.00) |" in text
    assert "no time: wrong answer: x \\| y" in text
    assert "the figures are noise" in text
    assert "Not measured: it broke" in text
    assert "| a-cpu-b | 1 ms | 900 µs–2 ms | 100 | 50% | 15 | 50% | 0.0e+00 |" in text
    assert "- 1 not measured here: numba is not installed" in text
    broken = run | {"models": [{"row": "models/x", "error": "it broke", "contestants": {}}]}
    lines = summary(json.loads(json.dumps([run, run, broken]))).splitlines()
    assert lines[-1] == "| `models/x` | 1.00 s | ORT | 2.00 s | 2.00× (2.00–2.00) | 2.00× (2.00–2.00) |  |"
    assert sum(line.startswith("| `") for line in lines) == 1  # nothing of who has no time


def test_another_commit_runs_from_its_own_folder(contest: Contest, tmp_path: Path) -> None:
    elsewhere = replace(onnxruntime(), name="base", root=str(tmp_path), python=sys.executable)
    _, base = hold(contest, [onnxruntime(), elsewhere])
    assert "No module named" in base.error  # the bench of that folder, not this one's
    assert not base.times_s


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no-such-commit",), "rev-parse"),
        (("HEAD", "--rounds", "5"), "needs 6"),
        (("HEAD", "--rows", "models/none"), "no row is named models/none"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(["compare", *arguments])
