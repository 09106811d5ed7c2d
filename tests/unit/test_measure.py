"""voxelrt bench and what stands behind it: profiles, pictures, traces, throughput, other programs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import voxelrt as vx
from tests.pipeline.counting import counting, save
from tests.unit.graphs import model_of
from voxelrt.cli import main
from voxelrt.commands.bench import random_inputs
from voxelrt.errors import MissingExtraError, OutputError, UsageError
from voxelrt.measure import contest
from voxelrt.measure.ceilings import Ceilings, measure_ceilings
from voxelrt.measure.contest import Rival
from voxelrt.measure.profile import Profile, StepProfile
from voxelrt.measure.roofline import draw_profile
from voxelrt.measure.throughput import batch_of, measure_throughput, trace_streams
from voxelrt.measure.trace import write_trace
from voxelrt.plan.plan import Plan


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = save(tmp_path_factory.mktemp("bench"), counting((6, 8, 10)))
    return vx.compile(path, verify=False, tune="off", threads=2, fallback="error")


@pytest.fixture(scope="module")
def inputs(plan: Plan) -> dict[str, Any]:
    return random_inputs(plan, 0)


def test_a_roof_is_the_ceiling_that_binds() -> None:
    ceilings = Ceilings("avx2", 1, gflops=100.0, gbps=10.0)
    assert ceilings.roof(2e9, 1e6) == pytest.approx(0.02)  # arithmetic: 2 GFLOP at 100 GFLOP/s
    assert ceilings.roof(1e6, 1e9) == pytest.approx(0.1)  # memory: 1 GB at 10 GB/s
    found = measure_ceilings(1, tries=1)
    assert found.gflops > 0
    assert found.gbps > 0


def test_a_profile_accounts_for_every_step(plan: Plan, inputs: dict[str, Any]) -> None:
    assert "of peak" not in plan.describe()
    profile = plan.profile(inputs, runs=2)
    assert len(profile.steps) == plan.variants[0][3]
    assert sum(step.share for step in profile.steps) == pytest.approx(1.0)
    assert sum(row["ms"] for row in profile.kinds()) == pytest.approx(profile.total_ms)
    assert sum(row["steps"] for row in profile.kinds()) == len(profile.steps)
    for step in profile.steps:
        assert step.gflops == pytest.approx(step.flops / step.ms / 1e6)
        assert step.bound in ("arithmetic", "memory")
    assert "of peak" in plan.describe()
    assert "ceilings: fp32" in plan.describe()


def test_timers_follow_one_another(plan: Plan, inputs: dict[str, Any]) -> None:
    timers = plan.time_steps(inputs)
    ends = timers.begin_ns + timers.time_ns
    assert (timers.begin_ns[1:] >= ends[:-1]).all()
    assert (timers.begin_ns > 0).all()


def _profile() -> Profile:
    """Two steps with figures chosen by hand."""
    step = StepProfile("conv3d.direct", "direct", ("a<b",), "1×2", 100, 10, 2.0, 0.5, 1.0, 0.1, 0.1, 0.5, "memory")
    copy = StepProfile("copy", "", (), "1×2", 0, 10, 2.0, 0.5, 0.0, 0.1, 0.0, 0.5, "memory")
    return Profile("net & co", Ceilings("avx2", 1, 10.0, 1.0), (step, copy), 4.0, 3, 0.0)


def test_the_picture_is_svg_with_every_step(tmp_path: Path) -> None:
    root = ElementTree.parse(draw_profile(_profile(), tmp_path / "p.svg")).getroot()
    names = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "a<b" in names
    assert "net & co: 4.0 ms a run, median of 3" in names
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 1  # a step without operations is under no roof
    with pytest.raises(UsageError, match="svg"):
        draw_profile(_profile(), tmp_path / "p.png")
    with pytest.raises(OutputError):
        draw_profile(_profile(), tmp_path / "none" / "p.svg")


def test_a_trace_holds_every_step_of_every_run(plan: Plan, inputs: dict[str, Any], tmp_path: Path) -> None:
    streams = trace_streams(plan, inputs, streams=2, runs=3)
    events = json.loads(write_trace(tmp_path / "t.json", plan, streams).read_text())["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    steps = plan.variants[0][3]
    assert len(spans) == 2 * 3 * (steps + 1)
    assert {e["tid"] for e in spans} == {0, 1}
    assert min(e["ts"] for e in spans) == 0.0
    runs = [e for e in spans if e["cat"] == "run"]
    for run in runs:
        inside = [
            e
            for e in spans
            if e["tid"] == run["tid"] and e is not run and run["ts"] <= e["ts"] <= run["ts"] + run["dur"]
        ]
        assert len(inside) == steps


def test_throughput_of_batches_and_streams() -> None:
    graph = model_of("(float[N, 1, 6, 8, 10] image) => (float[N, 1, 6, 8, 10] y) { y = Relu(image) }")
    plan = vx.compile(graph, verify=False, tune="off", threads=2, shapes={"image": ((1, 2, 4), 1, 6, 8, 10)})
    inputs = random_inputs(plan, 0)
    given = batch_of(plan, inputs, 3)
    assert given["image"].shape == (3, 1, 6, 8, 10)
    np.testing.assert_array_equal(given["image"][2], inputs["image"][0])
    row = measure_throughput(plan, inputs, batch=2, streams=2, seconds=0.02)
    assert (row.batch, row.streams, row.threads) == (2, 2, 1)
    assert row.items_per_s > 0
    assert row.p99_ms >= row.p50_ms > 0
    with pytest.raises(UsageError, match="takes 1 to 4"):
        batch_of(plan, inputs, 5)
    with pytest.raises(UsageError, match="each stream needs one"):
        measure_throughput(plan, inputs, batch=1, streams=3, seconds=0.01)


def test_against_onnxruntime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    model = save(tmp_path, counting((6, 8, 10)))
    options = ("--repeat", 6, "--against", "onnxruntime", "--streams", "1,2", "--seconds", 0.02, "--threads", 2)
    files = ("--picture", tmp_path / "p.svg", "--trace", tmp_path / "t.json", "--json", "-")
    assert call("bench", model, *options, *files) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data["rows"]) == {"voxelrt", "onnxruntime"}
    assert data["rivals"]["onnxruntime"]["relative"] < 1e-5
    assert data["rivals"]["onnxruntime"]["ratio"]["rounds"] == 6
    assert [row["streams"] for row in data["throughput"]] == [1, 2]
    assert sum(step["flops"] for step in data["profile"]["steps"]) == data["flops"] > 0
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


def test_a_peer_that_answers_otherwise_is_not_timed(plan: Plan, inputs: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    process = None
    try:
        contest._write_graph(plan, inputs, tmp_path)
        process = contest._Process("onnxruntime", tmp_path, 1)
        rival = Rival("onnxruntime")
        ours = {name: np.asarray(array) * 1.5 for name, array in plan.run(inputs).items()}
        process.enter(rival, ours)
        assert "its answer differs" in rival.error
    finally:
        if process is not None:
            process.close()


def test_a_peer_that_dies_says_so(tmp_path: Path) -> None:
    process = contest._Process("onnxruntime", tmp_path, 1)  # there is no graph in the folder
    rival = Rival("onnxruntime")
    try:
        process.enter(rival, {})
        assert rival.error
        assert process.turn(rival) == 0.0
        assert rival.error
    finally:
        process.close()


def test_what_cannot_be_measured_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save(tmp_path, counting((6, 8, 10)))
    assert call("bench", model, "--against", "tensorrt") == 2
    assert "tensorrt is unknown; there are onnxruntime, openvino, torch" in capsys.readouterr().err
    assert call("bench", model, "--batches", "0,x") == 2
    assert call("bench", model, "--batches", "2", "--repeat", 1) == 2
    monkeypatch.setattr(contest.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"voxelrt\[openvino\]"):
        contest.find_peers(["openvino"])
