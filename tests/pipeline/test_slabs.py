"""Upsampled volumes in slabs: the same answer from a smaller arena, and only where nothing else reads them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.graphs import model_of
from voxelrt import compile
from voxelrt.plan import slabs
from voxelrt.plan.description import memory_of, step_rows
from voxelrt.plan.plan import Plan


def decoder(depth: int, *, skip: bool = True, tap: bool = False, batch: str = "1") -> ir.Model:
    """The last stage of a U-Net: upsampled, joined with the skip, a convolution with its norm, a head."""
    rng = np.random.default_rng(0)
    z, small = depth, depth // 2
    joined = "u" if not skip else "c"
    text = (
        f"(float[{batch},32,{small},8,9] x, float[{batch},16,{z},16,18] s) => (float[{batch},4,{z},16,18] y"
        f"{f', float[{batch},16,{z},16,18] u' if tap else ''})"
        " { u = ConvTranspose<strides=[2,2,2]>(x, a) "
        + (" c = Concat<axis=1>(u, s) " if skip else " c = Identity(s) ")
        + f" d = Conv<pads=[1,1,1,1,1,1]>({joined}, b) n = InstanceNormalization(d, g, h) r = LeakyRelu(n)"
        " y = Conv(r, k) }"
    )
    weights = {
        "a": rng.normal(0, 0.1, (32, 16, 2, 2, 2)),
        "b": rng.normal(0, 0.05, (16, 32 if skip else 16, 3, 3, 3)),
        "g": rng.uniform(0.5, 1.5, 16),
        "h": rng.normal(0, 0.1, 16),
        "k": rng.normal(0, 0.2, (4, 16, 1, 1, 1)),
    }
    return model_of(text, **{name: array.astype(np.float32) for name, array in weights.items()})


def arrays(depth: int, batch: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "x": rng.normal(size=(batch, 32, depth // 2, 8, 9)).astype(np.float32),
        "s": rng.normal(size=(batch, 16, depth, 16, 18)).astype(np.float32),
    }


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slabs of eight planes for volumes of any size."""
    for name, value in (("LARGE", 0), ("WORTH", 1), ("PLANES", 8)):
        monkeypatch.setattr(slabs, name, value)


def pieces(plan: Plan) -> int:
    return sum(row["kernel"].startswith("conv_transpose3d") for row in step_rows(plan))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("depth", "skip", "precision"), [(24, True, "fp32"), (26, False, "fp32"), (24, True, "bf16")])
def test_the_answer_is_that_of_the_whole_volume(
    depth: int, skip: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = decoder(depth, skip=skip), arrays(depth)
    plan = compile(model, fallback="error", tune="off", precision=precision)  # measured against another executor
    monkeypatch.setattr(slabs, "LARGE", 1 << 60)
    whole = compile(model, fallback="error", tune="off", precision=precision, verify=False)
    assert (pieces(plan), pieces(whole)) == (-(-depth // 8), 1)
    assert memory_of(plan)["arena"] < memory_of(whole)["arena"]
    # Tiles are the same; the sums of the norm are added in another order.
    np.testing.assert_allclose(plan.run(given)["y"], whole.run(given)["y"], rtol=0, atol=1e-5)
    one, three = plan.with_threads(1).run(given)["y"], plan.with_threads(3).run(given)["y"]
    np.testing.assert_array_equal(one, three)


@pytest.mark.usefixtures("small")
def test_a_batch_may_be_of_any_size() -> None:
    shapes = {"x": ((1, 2, 3), 32, 12, 8, 9), "s": ((1, 2, 3), 16, 24, 16, 18)}
    plan = compile(decoder(24, batch="n"), fallback="error", tune="off", shapes=shapes, verify=False)
    assert pieces(plan) == 3
    given = arrays(24, batch=3)
    together = plan.run(given)["y"]
    for i in range(3):
        alone = plan.run({name: array[i : i + 1] for name, array in given.items()})["y"]
        np.testing.assert_array_equal(together[i : i + 1], alone)


@pytest.mark.usefixtures("small")
def test_what_others_read_stays_whole() -> None:
    assert pieces(compile(decoder(24, tap=True), fallback="error", tune="off")) == 1
    assert pieces(compile(decoder(12), fallback="error", tune="off")) == 1  # fewer than two slabs
