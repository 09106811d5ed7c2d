"""precision="auto": the faster of fp32 and bf16, if its labels are fp32's."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

import voxelrt as vx
from voxelrt import precision
from voxelrt.errors import ParityError, UsageError
from voxelrt.models.architectures.unet3d import build_unet3d
from voxelrt.models.load import Model, load
from voxelrt.plan.plan import Plan


class Segmenting(Model):
    """A network that says its output is labels, as one with a recipe does."""

    is_segmentation = True  # type: ignore[assignment]


@pytest.fixture(scope="module")
def model() -> Model:
    plain = load(build_unet3d(features=(8, 16), patch=(16, 16, 16), classes=3, channels=1, seed=1))
    return Segmenting(**{f.name: getattr(plain, f.name) for f in fields(plain)})


@pytest.fixture(scope="module")
def sample(model: Model) -> dict[str, np.ndarray]:
    (name,) = [str(v.name) for v in model.graph.graph.inputs]
    return {name: np.random.default_rng(0).random((1, 1, 16, 16, 16), np.float32)}


def test_what_it_took_and_why_stands_in_the_plan(model: Model, sample: dict[str, np.ndarray]) -> None:
    plan = vx.compile(model, precision="auto", samples=[sample], label_agreement=0.5, tune="off", verify=False)
    (found,) = plan.info.settings["auto"]["candidates"]
    assert found["precision"] == "bf16"
    assert found["agreement"] >= 0.5
    assert plan.info.precision == ("fp32" if found["refused"] else "bf16")
    assert bool(found["refused"]) == (found["speed_up"] <= 1.0)


def test_labels_that_differ_too_much_keep_fp32(model: Model, sample: dict[str, np.ndarray]) -> None:
    told: list[str] = []

    def make(name: str) -> Plan:
        if name == "fp32":
            return vx.compile(model, tune="off", verify=False)
        other = build_unet3d(features=(8, 16), patch=(16, 16, 16), classes=3, channels=1, seed=2)
        return vx.compile(other, tune="off", verify=False)

    plan = precision.fastest(make, model, lambda _: [sample], 0.999, told.append)
    assert plan.info.precision == "fp32"
    assert "labels agree on" in plan.info.settings["auto"]["candidates"][0]["refused"]
    assert told


def test_a_candidate_that_departs_keeps_fp32(model: Model, sample: dict[str, np.ndarray]) -> None:
    def make(name: str) -> Plan:
        if name == "bf16":
            raise ParityError("the plan's output departs")
        return vx.compile(model, tune="off", verify=False)

    plan = precision.fastest(make, model, lambda _: [sample], 0.999, lambda text: None)
    assert plan.info.settings["auto"]["candidates"][0]["refused"] == "the plan's output departs"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": []}, "real inputs"),
        ({"label_agreement": 0.0}, "not a share"),
        ({"label_agreement": 1.5}, "not a share"),
        ({"device": "cuda", "arch": ["sm_86"]}, "not available|measured on the CPU|sm_86"),
    ],
)
def test_what_cannot_be_chosen_from_is_said(model: Model, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        vx.compile(model, precision="auto", tune="off", verify=False, **options)  # type: ignore[arg-type]


def test_a_network_without_labels_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="gives none"):
        precision.fastest(lambda name: None, load_plain(), lambda _: [], 0.9, print)  # type: ignore[arg-type,return-value]


def load_plain() -> Model:
    from voxelrt.models.architectures.classifiers import build_resnet

    return load(build_resnet(18, size=(32, 32), batch=1, classes=3, seed=0))
