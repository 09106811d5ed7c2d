"""Networks of pictures on what pictures come in: PNG, colour DICOM, a cine, a radiograph as it is shown."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tifffile
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image as Pillow
from pydicom.sequence import Sequence
from pydicom.uid import OphthalmicPhotography8BitImageStorage

from tests.phantoms import save_series
from tests.unit.test_dicom_pictures import cine, radiograph, region
from tests.unit.test_slides import level, pyramid
from voxelrt.cli import main
from voxelrt.errors import InputError, UnsupportedError, UsageError
from voxelrt.io import read_image
from voxelrt.pipeline import predict

RECIPE = """
name = "picture-net"
task = "{task}"
[source]
path = "picture-net.onnx"
[input]
name = "x"
layout = "NCYX"
{before}
{channels}
{after}
[output]
name = "y"
kind = "{kind}"
layout = "{layout}"
"""
RGB = "\n".join(f'[[input.channels]]\nname = "{name}"' for name in ("red", "green", "blue"))
LABELS = "\n".join(f'[[output.labels]]\nvalue = {k}\nname = "{name}"' for k, name in enumerate(("r", "g", "b")) if k)


def brightest(folder: Path) -> Path:
    """Which of three colours is the largest, as a network: its logits are the colours."""
    weights = np.eye(3, dtype=np.float32)[:, :, None, None]
    return saved(folder, weights, "segmentation", "logits", RGB, LABELS)


def saved(
    folder: Path,
    weights: NDArray[Any],
    task: str,
    kind: str,
    channels: str,
    labels: str = "",
    values: str = "",
    *,
    size: tuple[Any, Any] = ("h", "w"),
    pads: int = 0,
) -> Path:
    shape = ["n", weights.shape[1], *size]
    nodes = [helper.make_node("Conv", ["x", "w"], ["conv" if kind == "classes" else "y"], pads=[pads] * 4)]
    answer: list[Any] = ["n", weights.shape[0], *size]
    if kind == "classes":
        nodes += [helper.make_node("GlobalAveragePool", ["conv"], ["pooled"]),
                  helper.make_node("Flatten", ["pooled"], ["y"])]  # fmt: skip
        answer = answer[:2]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, answer)], [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "picture-net.onnx")
    before, *after = values.split("\n[", 1)
    after = [f"[{part}" for part in after]
    text = (
        RECIPE.format(task=task, kind=kind, channels=channels, layout="NCYX", before=before, after="\n".join(after))
        + labels
    )
    (folder / "picture-net.toml").write_text(text, "utf-8")
    return folder / "picture-net.toml"


def picture() -> NDArray[Any]:
    return np.random.default_rng(3).integers(0, 256, (1, 21, 34, 3), dtype=np.uint8)


def test_a_png_and_a_fundus_photograph_give_labels_on_their_own_grid(tmp_path: Path) -> None:
    model, pixels = brightest(tmp_path), picture()
    Pillow.fromarray(pixels[0]).save(tmp_path / "a.png")
    fundus = cine(pixels, Modality="OP", SOPClassUID=OphthalmicPhotography8BitImageStorage)
    save_series([fundus], tmp_path / "fundus", order=[0])
    wanted = pixels[0].argmax(axis=2)
    for study in (tmp_path / "a.png", tmp_path / "fundus"):
        result = predict(model, study, tmp_path / "out.nii.gz", picture=tmp_path / "drawn.png")
        assert (result.labels.array[0, 0] == wanted).all()
        assert (read_image(tmp_path / "out.nii.gz").volume.array[0, 0] == wanted).all()
        assert any("no depth" in line or "1 mm deep" in line for line in result.warnings)


@pytest.mark.parametrize(
    ("study", "unit"), [("png", "pixels"), ("one", "mm2"), ("unknown", "pixels"), ("cine", "pixels")]
)
def test_sizes_claim_no_length_that_the_picture_does_not_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], study: str, unit: str
) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (2, 21, 34, 3), dtype=np.uint8)
    place = tmp_path / study
    if study == "png":
        Pillow.fromarray(pixels[0]).save(place, format="PNG")
    else:
        dataset = cine(pixels if study == "cine" else pixels[:1])
        if study != "unknown":
            dataset.SequenceOfUltrasoundRegions = Sequence([region((0, 0, 33, 20), (0.03, 0.02))])
        save_series([dataset], place, order=[0])
    with pytest.raises(SystemExit) as left:
        outputs = ["--table", str(tmp_path / "t.csv"), "--json", str(tmp_path / "a.json")]
        main(["run", str(brightest(tmp_path)), str(place), "-o", str(tmp_path / "out.nii.gz"), *outputs])
    assert left.value.code == 0
    count = int((pixels[: 2 if study == "cine" else 1].argmax(axis=3) == 1).sum())
    area = count * 0.2 * 0.3
    said = capsys.readouterr().out
    assert f"g: {count} pixels" in said if unit == "pixels" else f"g: {area:.4g} mm2" in said
    assert "mL" not in said
    answer = json.loads((tmp_path / "a.json").read_text())
    assert (answer["voxels"]["g"], answer["volumes_ml"]) == (count, {})
    assert answer["areas_mm2"].get("g") == (pytest.approx(area) if unit == "mm2" else None)
    if study != "png":
        known_mm = [None, 0.2, 0.3] if study != "unknown" else [None] * 3
        assert answer["geometry"]["spacing_mm_zyx"] == known_mm
    row = next(iter(csv.DictReader((tmp_path / "t.csv").open())))
    assert (row["volume_ml"], row["area_mm2"] != "", row["diameter_mm"] != "") == ("", unit == "mm2", unit == "mm2")


def test_the_frames_of_a_cine_go_through_one_by_one(tmp_path: Path) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (3, 21, 34, 3), dtype=np.uint8)
    save_series([cine(pixels)], tmp_path / "cine", order=[0])
    result = predict(brightest(tmp_path), tmp_path / "cine")
    assert (result.labels.array[0] == pixels.argmax(axis=3)).all()


def test_a_recipe_sees_a_radiograph_as_it_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = radiograph(WindowCenter=1500, WindowWidth=1000, PhotometricInterpretation="MONOCHROME1")
    save_series([dataset], tmp_path / "chest", order=[0])
    one = '[[input.channels]]\nname = "film"'
    weights = np.ones((1, 1, 1, 1), np.float32)
    classes = '[[output.labels]]\nvalue = 0\nname = "mean"'
    stored = predict(saved(tmp_path, weights, "classification", "classes", one, classes), tmp_path / "chest")
    assert stored.scores["mean"] == pytest.approx(dataset.pixel_array.mean())
    shown = read_image(tmp_path / "chest", displayed=True).volume.array.mean()
    model = saved(tmp_path, weights, "classification", "classes", one, classes, 'values = "displayed"')
    assert predict(model, tmp_path / "chest").scores["mean"] == pytest.approx(shown)
    plain = saved(tmp_path, weights, "classification", "classes", one, classes)
    assert predict(plain, tmp_path / "chest", displayed=True).scores["mean"] == pytest.approx(shown)
    with pytest.raises(SystemExit) as left:
        main(["run", str(plain), str(tmp_path / "chest"), "--displayed"])
    assert left.value.code == 0
    assert f"mean: {shown:.4f}" in capsys.readouterr().out


def test_a_picture_that_a_model_does_not_see_is_refused(tmp_path: Path) -> None:
    two = "\n".join(f'[[input.channels]]\nname = "{name}"' for name in ("t1", "t2"))
    model = saved(tmp_path, np.ones((2, 2, 1, 1), np.float32), "segmentation", "logits", two, LABELS)
    Pillow.fromarray(picture()[0]).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="3 channels and the model sees 2: t1, t2"):
        predict(model, tmp_path / "a.png")
    with pytest.raises(UsageError, match="displayed and straighten are for DICOM"):
        predict(brightest(tmp_path), tmp_path / "a.png", displayed=True)


def windowed(folder: Path, kind: str = "segmentation", more: str = "") -> Path:
    """A network of windows of 64 × 64, a smoothing and the brightest colour of it (or the mean of each colour)."""
    weights = np.zeros((3, 3, 5, 5), np.float32)
    for colour in range(3):
        weights[colour, colour] = 1 / 25
    if kind == "classes":
        return saved(folder, weights[:, :, 2:3, 2:3] * 25, "classification", "classes", RGB, LABELS, WINDOW + more)
    return saved(folder, weights, "segmentation", "logits", RGB, LABELS, WINDOW + more, size=(64, 64), pads=2)


WINDOW = 'window = "sliding"\n[input.sliding]\nroi_zyx = [64, 64]\n'


@pytest.mark.parametrize("kind", ["tiff", "dicom", "png"])
def test_a_slide_goes_through_in_windows_that_leave_no_seam(tmp_path: Path, kind: str) -> None:
    array = np.random.default_rng(7).integers(0, 256, (200, 330, 3), dtype=np.uint8)
    study: Path = tmp_path / "study"
    if kind == "tiff":
        pyramid(study, array)
    elif kind == "png":
        Pillow.fromarray(array).save(study, format="PNG")
    else:
        save_series([level(array, "rle", 0.0005, "1.2.3")], study, order=[0])
    result = predict(windowed(tmp_path), study, tmp_path / "out.tif")
    outside = 0 if kind == "png" else 255
    padded = np.pad(array.astype(np.float32), ((2, 2), (2, 2), (0, 0)), constant_values=outside)
    smooth = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(0, 1)).sum(axis=(3, 4))
    best = np.sort(smooth, axis=2)
    clear = best[..., 2] - best[..., 1] > 0.5  # elsewhere two colours are the same but for rounding
    with tifffile.TiffFile(tmp_path / "out.tif") as opened:
        page = opened.pages.first
        assert page.is_tiled
        assert page.compression == 8
        found = page.asarray()
        if kind != "png":
            assert page.resolutionunit == 3
            assert float(page.resolution[0]) == pytest.approx(20_000)
    assert found.dtype == np.uint8
    assert (found == smooth.argmax(axis=2))[clear].all()
    assert clear.mean() > 0.95
    assert result.voxels["g"] == (found == 1).sum()
    if kind == "png":  # which tells no lengths
        assert result.areas_mm2 == {}
        assert result.sizes["g"] == f"{(found == 1).sum()} pixels"
    else:
        assert result.areas_mm2["g"] == pytest.approx((found == 1).sum() * 0.0005**2)
    assert any(line.startswith("level 1 of") for line in result.warnings)


def test_classes_of_windows_become_a_map(tmp_path: Path) -> None:
    array = np.random.default_rng(7).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
    result = predict(windowed(tmp_path, "classes", ""), tmp_path / "a.tif",
                     tmp_path / "map.tif")  # fmt: skip
    found = tifffile.imread(tmp_path / "map.tif")
    wanted = array.reshape(2, 64, 3, 64, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert result.scores["g"] == pytest.approx(array[..., 1].mean(), rel=1e-4)


def test_what_cannot_be_done_of_a_slide_is_said_first(tmp_path: Path) -> None:
    pyramid(tmp_path / "a.tif", np.zeros((200, 330, 3), np.uint8))
    with pytest.raises(UsageError, match=r"must end in \.tif"):
        predict(windowed(tmp_path), tmp_path / "a.tif", tmp_path / "out.nii.gz")
    with pytest.raises(UnsupportedError, match="looks at the whole picture"):
        more = '[input.intensity]\nscaling = "z-score"'
        predict(windowed(tmp_path, more=more), tmp_path / "a.tif")
    with pytest.raises(InputError, match="no level of the slide is within a tenth"):
        more = "[input.grid]\nspacing_mm_xyz = [0.002, 0.002]"
        predict(windowed(tmp_path, more=more), tmp_path / "a.tif")
    result = predict(windowed(tmp_path, more=more), tmp_path / "a.tif", volume=2)
    assert any(line.startswith("level 2 of 2") for line in result.warnings)
    Pillow.fromarray(picture()[0]).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="seen in 2-D windows"):
        predict(brightest(tmp_path), tmp_path / "a.png", tmp_path / "out.tif")
