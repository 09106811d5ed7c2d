"""predict: recipes, grids, channels, refusals, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import voxelrt as vx
from tests.phantoms import PATIENT_ID, PATIENT_NAME, dicom_series, octants, save_series
from tests.pipeline.counting import LABELS, counting, identity, save
from voxelrt.errors import GeometryError, InputError, OutputError, UsageError
from voxelrt.io import read_image, write_nifti
from voxelrt.pipeline import predict
from voxelrt.volume import Volume

MR = 'modality = "MR"\nbody_parts = ["HEAD"]'
SECRET_PART = "MRS DOE"
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def study(folder: Path, array: NDArray[Any] | None = None, name: str = "in.nii.gz") -> Path:
    path = folder / name
    write_nifti(Volume(octants() if array is None else array, AFFINE), path)
    return path


def test_a_recipe_beside_an_onnx_file(tmp_path: Path) -> None:
    path = save(tmp_path, counting())
    stages: list[str] = []
    result = predict(
        path,
        study(tmp_path),
        tmp_path / "out.nii.gz",
        picture=tmp_path / "out.png",
        progress=lambda stage, step, steps: stages.append(stage),
    )
    np.testing.assert_array_equal(result.labels.array[0], octants())
    assert result.labels.labels[3] == "octant 3"
    voxels = int((octants() == 3).sum())
    assert result.volumes_ml["octant 3"] == pytest.approx(voxels * 6 / 1000)
    assert list(dict.fromkeys(stages)) == ["compile", "read", "preprocess", "run", "postprocess", "write", "draw"]
    assert set(result.timings) == {"read", "preprocess", "run", "postprocess", "write", "draw"}
    assert result.peak_memory_bytes > 2**20
    assert (tmp_path / "out.png").stat().st_size > 1000
    np.testing.assert_array_equal(read_image(tmp_path / "out.nii.gz").volume.array[0], octants())


def test_the_plan_is_compiled_once_and_a_damaged_one_again(tmp_path: Path, own_cache: Path) -> None:
    path = save(tmp_path, counting((6, 8, 10)))
    predict(path, study(tmp_path))
    (kept,) = (own_cache / "plans").iterdir()
    first = kept.stat().st_mtime_ns
    predict(path, study(tmp_path))
    assert kept.stat().st_mtime_ns == first
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    np.testing.assert_array_equal(predict(path, study(tmp_path)).labels.array[0], octants())
    assert kept.stat().st_size == len(whole)
    path.with_suffix(".toml").write_text(path.with_suffix(".toml").read_text() + "\n", "utf-8")
    predict(path, study(tmp_path))
    assert len(list((own_cache / "plans").iterdir())) == 2


def test_a_saved_plan_carries_its_recipe(tmp_path: Path) -> None:
    vx.compile(save(tmp_path, counting((6, 8, 10)))).save(tmp_path / "net.vxp")
    result = vx.predict(vx.Plan.open(tmp_path / "net.vxp"), Volume(octants(), AFFINE))
    np.testing.assert_array_equal(result.labels.array[0], octants())


@pytest.mark.parametrize(
    "grid",
    [
        "shape_xyz = [20, 16, 12]",
        'shape_xyz = [20, 16, 12]\nfit = "pad"',
        'shape_xyz = [20, 16, 12]\nfit = "pad"\npadding = "border"',
        'shape_xyz = [20, 16, 12]\nfit = "crop-or-pad"\npadding = "minimum"',
        'shape_xyz = [20, 16, 12]\ninterpolation = "nearest"',
        "spacing_mm_xyz = [0.5, 1.0, 1.5]",
        'spacing_mm_xyz = [0.5, 1.0, 1.5]\norientation = "RAS"\npadding = "border"',
    ],
)
def test_grids_that_lose_nothing(grid: str, tmp_path: Path) -> None:
    """Twice as many voxels, or more round it: each voxel's label survives the way there and back."""
    nearest = '\nthreshold_on = "network-grid"\n' if "nearest" in grid else "\n"
    path = save(tmp_path, counting(), grid=grid, output=f'kind = "logits"{nearest}{LABELS}')
    labels = predict(path, study(tmp_path)).labels.array[0]
    inner = (slice(1, -1),) * 3 if "fit" not in grid and "nearest" not in grid and "border" not in grid else ()
    away = np.ones(labels.shape, bool)
    if "fit" not in grid and "nearest" not in grid:
        away[:, :, 4:6] = away[:, 3:5] = away[2:4] = False  # where octants meet, interpolation mixes labels
    np.testing.assert_array_equal(labels[inner][away[inner]], octants()[inner][away[inner]])


def test_what_is_cropped_away_has_no_label(tmp_path: Path) -> None:
    path = save(tmp_path, counting(), grid='shape_xyz = [4, 8, 6]\nfit = "crop-or-pad"')
    labels = predict(path, study(tmp_path)).labels.array[0]
    np.testing.assert_array_equal(labels[:, :, 3:7], octants()[:, :, 3:7])
    assert not labels[:, :, :3].any()
    assert not labels[:, :, 7:].any()


def test_a_study_larger_than_a_padded_grid_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, counting(), grid='shape_xyz = [4, 8, 6]\nfit = "pad"')
    with pytest.raises(InputError, match="10 voxels along x"):
        predict(path, study(tmp_path))


@pytest.mark.parametrize("layout", ["NCZYX", "NCXYZ", "NZYXC", "NXYZC"])
def test_layouts(layout: str, tmp_path: Path) -> None:
    axes = [layout.index(letter) for letter in "NCZYX"]
    back = ["NCZYX".index(letter) for letter in layout]
    model = counting()
    (conv,) = model.graph.node
    conv.input[0], conv.output[0] = "turned", "counted"
    model.graph.node.insert(0, helper.make_node("Transpose", ["image"], ["turned"], perm=axes, name="there"))
    model.graph.node.append(helper.make_node("Transpose", ["counted"], ["scores"], perm=back, name="back"))
    for value in (model.graph.input[0], model.graph.output[0]):
        dims = value.type.tensor_type.shape.dim
        sizes = [dims[i].SerializeToString() for i in back]
        for dim, raw in zip(dims, sizes, strict=True):
            dim.ParseFromString(raw)
    path = save(tmp_path, model, input=f'layout = "{layout}"', output=f'kind = "logits"\nlayout = "{layout}"\n{LABELS}')
    np.testing.assert_array_equal(predict(path, study(tmp_path)).labels.array[0], octants())


def test_a_threshold_and_the_largest_component(tmp_path: Path) -> None:
    array = np.zeros((6, 8, 10), np.float32)
    array[1:3, 1:4, 1:5] = 0.9
    array[4, 5:7, 6:8] = 0.8
    array[0, 0, 9] = 0.4
    labels = '[[output.labels]]\nvalue = 5\nname = "lump"\n'
    output = 'kind = "probability"\nthreshold = 0.5\nlargest_component = {}\n' + labels
    all_of_it = predict(save(tmp_path, identity(), output=output.format("false")), study(tmp_path, array)).labels.array
    np.testing.assert_array_equal(all_of_it[0], np.where(array > 0.5, 5, 0))
    largest = predict(save(tmp_path, identity(), output=output.format("true")), study(tmp_path, array))
    np.testing.assert_array_equal(largest.labels.array[0], np.where(array == np.float32(0.9), 5, 0))
    assert largest.volumes_ml == {"lump": pytest.approx(2 * 3 * 4 * 6 / 1000)}


def test_several_channels_by_name(tmp_path: Path) -> None:
    second = '\n[[input.channels]]\nname = "flair"'
    output = 'kind = "labels"\n[[output.labels]]\nvalue = 1\nname = "one"\n'
    path = save(tmp_path, identity(channels=2), channel=second, output=output)
    one, two = study(tmp_path, octants() // 2, "a.nii"), study(tmp_path, octants() - octants() // 2, "b.nii")
    result = predict(path, {"image": one, "flair": two})
    np.testing.assert_array_equal(result.labels.array[0], octants())
    assert result.volumes_ml["label 8"] > 0
    with pytest.raises(UsageError, match="give them by name"):
        predict(path, one)
    with pytest.raises(UsageError, match="unknown t2; missing flair"):
        predict(path, {"image": one, "t2": two})
    with pytest.raises(GeometryError, match="bring both onto one grid"):
        predict(path, {"image": one, "flair": study(tmp_path, octants((5, 8, 10)), "c.nii")})
    moved = AFFINE.copy()
    moved[0, 3] = 0.5
    with pytest.raises(GeometryError, match=r"0\.5 mm apart"):
        predict(path, {"image": Volume(octants(), AFFINE), "flair": Volume(octants(), moved)})


@pytest.mark.parametrize("layout", ["NCYX", "NYXC"])
def test_a_2d_network_sees_every_plane(layout: str, tmp_path: Path) -> None:
    k = np.arange(9, dtype=np.float32)
    nodes = [helper.make_node("Conv", ["turned", "w", "b"], ["counted"], name="count")]
    axes, back = [layout.index(a) for a in "NCYX"], ["NCYX".index(a) for a in layout]
    nodes.insert(0, helper.make_node("Transpose", ["image"], ["turned"], perm=axes, name="there"))
    nodes.append(helper.make_node("Transpose", ["counted"], ["scores"], perm=back, name="back"))
    sizes = [dict(zip("NCYX", (1, channels, 8, 10), strict=True)) for channels in (1, 9)]
    graph = helper.make_graph(
        nodes,
        "planes",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [sizes[0][a] for a in layout])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [sizes[1][a] for a in layout])],
        [numpy_helper.from_array(k.reshape(-1, 1, 1, 1), "w"), numpy_helper.from_array(-(k**2) / 2, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    output = f'kind = "logits"\nlayout = "{layout}"\n{LABELS}'
    path = save(tmp_path, model, input=f'layout = "{layout}"', output=output)
    np.testing.assert_array_equal(predict(path, study(tmp_path)).labels.array[0], octants())


def test_a_classifier_gives_scores(tmp_path: Path) -> None:
    model = identity((6, 8, 10))
    model.graph.node[0].output[0] = "summed"
    model.graph.node.append(helper.make_node("GlobalMaxPool", ["summed"], ["scores"], name="largest"))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1, 1, 1, 1]))
    output = 'kind = "classes"\n[[output.labels]]\nvalue = 0\nname = "octant"\n'
    path = save(tmp_path, model, output=output)
    result = predict(path, study(tmp_path))
    assert result.scores == {"octant": 8.0}
    with pytest.raises(UsageError, match="scores"):
        _ = result.labels
    predict(path, study(tmp_path), tmp_path / "heat.nii")  # where the scores come from
    assert read_image(tmp_path / "heat.nii").volume.shape_zyx == (6, 8, 10)


def test_an_image_out(tmp_path: Path) -> None:
    path = save(tmp_path, identity(), output='kind = "image"')
    image = predict(path, study(tmp_path), tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(image.labels.array[0], octants().astype(np.float32))
    assert image.volumes_ml == {}
    assert read_image(tmp_path / "out.nii.gz").volume.array.dtype == np.float32


def test_without_a_recipe(tmp_path: Path) -> None:
    onnx.save(identity((6, 8, 10)), tmp_path / "bare.onnx")
    np.testing.assert_array_equal(predict(tmp_path / "bare.onnx", study(tmp_path)).labels.array[0], octants())
    with pytest.raises(UsageError, match=r"takes \(1, 1, 6, 8, 10\).*suffix \.toml(.|\n)*name = \"image\""):
        predict(tmp_path / "bare.onnx", study(tmp_path, octants((5, 8, 10))))


def test_ct_is_refused_by_its_header_and_by_its_values(tmp_path: Path) -> None:
    path = save(tmp_path, counting(), head=MR)
    ct = save_series(dicom_series(octants()), tmp_path / "ct")
    with pytest.raises(InputError, match="the study is CT and counting is for MR"):
        predict(path, ct, tmp_path / "out.nii.gz")
    assert not (tmp_path / "out.nii.gz").exists()
    forced = predict(path, ct, force=True)
    np.testing.assert_array_equal(forced.labels.array[0], octants())
    assert "the study is CT" in forced.warnings[0]
    hounsfield = np.where(octants() > 4, octants(), -1000).astype(np.int16)
    with pytest.raises(InputError, match="looks like CT"):
        predict(path, study(tmp_path, hounsfield))


def test_another_body_part_is_refused_and_another_contrast_warned_of(tmp_path: Path) -> None:
    path = save(tmp_path, counting(), head=MR, channel='series = ["(?i)t1"]')
    knee = save_series(dicom_series(octants(), Modality="MR", BodyPartExamined="KNEE"), tmp_path / "knee")
    with pytest.raises(InputError, match="shows KNEE and counting is for HEAD"):
        predict(path, knee)
    head = save_series(
        dicom_series(octants(), Modality="MR", BodyPartExamined="HEAD", SeriesDescription=f"T2 {PATIENT_NAME}"),
        tmp_path / "head",
    )
    (warning,) = predict(path, head).warnings
    assert "does not look like image" in warning
    assert PATIENT_NAME not in warning
    right = save_series(
        dicom_series(octants(), Modality="MR", BodyPartExamined="HEAD", SeriesDescription="3D T1 MPRAGE"),
        tmp_path / "right",
    )
    assert predict(path, right).warnings == ()


def test_no_identifier_leaves_the_study(tmp_path: Path, own_cache: Path) -> None:
    path = save(tmp_path, counting(), head=MR, channel='series = ["(?i)t1"]')
    folder = save_series(dicom_series(octants(), Modality="MR", BodyPartExamined=SECRET_PART), tmp_path / "series")
    with pytest.raises(InputError) as caught:
        predict(path, folder)
    result = predict(path, folder, tmp_path / "out.nii", picture=tmp_path / "out.png", force=True)
    said = f"{caught.value} {result} {result.warnings}"
    kept = b"".join(p.read_bytes() + p.name.encode() for p in own_cache.rglob("*") if p.is_file())
    written = (tmp_path / "out.nii").read_bytes() + (tmp_path / "out.png").read_bytes()
    for secret in (PATIENT_NAME, PATIENT_ID, SECRET_PART):
        assert secret not in said
        assert secret.encode() not in kept + written


def test_voxels_that_are_no_numbers(tmp_path: Path) -> None:
    array = octants(dtype=np.float32)
    array[0, 0, 0], array[5, 7, 9] = np.nan, np.inf
    path = save(tmp_path, counting())
    result = predict(path, study(tmp_path, array))
    expected = octants()
    expected[0, 0, 0] = expected[5, 7, 9] = 0
    np.testing.assert_array_equal(result.labels.array[0], expected)
    assert any("taken as 0" in warning for warning in result.warnings)
    array[...] = np.nan
    with pytest.raises(InputError, match="no voxel that is a finite number"):
        predict(path, study(tmp_path, array))


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    path, image = save(tmp_path, counting()), study(tmp_path)
    for out, error in (("mask.xyz", UsageError), ("nowhere/mask.nii.gz", OutputError), ("in.nii.gz", UsageError)):
        before = image.read_bytes()
        with pytest.raises(error):
            predict(path, image, tmp_path / out)
        assert image.read_bytes() == before
    with pytest.raises(UsageError, match=r"\.png"):
        predict(path, image, picture=tmp_path / "mask.jpg")


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, image = save(tmp_path, counting()), study(tmp_path)
    (tmp_path / "out").mkdir()

    def stop(stage: str, step: int, steps: int) -> None:
        if stage == at:
            raise KeyboardInterrupt

    for at in ("read", "run", "postprocess", "write", "draw"):
        with pytest.raises(KeyboardInterrupt):
            predict(path, image, tmp_path / "out" / "m.nii.gz", picture=tmp_path / "out" / "m.png", progress=stop)
        names = {p.name for p in (tmp_path / "out").iterdir()}
        assert names <= ({"m.nii.gz"} if at == "draw" else set())


def test_sliding_windows_give_the_same_labels(tmp_path: Path) -> None:
    window = 'window = "sliding"\nsliding = { roi_zyx = [4, 8, 5], overlap = [0.5, 0.0, 0.3], mode = "gaussian" }'
    path = save(tmp_path, counting(), input=window)
    np.testing.assert_array_equal(predict(path, study(tmp_path)).labels.array[0], octants())
