"""Session.stream: labels of a scan while its slices come are those of the whole volume."""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import voxelrt as vx
from voxelrt.arriving import ArrivingCase
from voxelrt.case import prepare_case
from voxelrt.errors import CancelledError, InputError, OutputError, UnsupportedError, UsageError
from voxelrt.models.nnunet_settings import NnunetSettings, Normalisation, settings_from_json

FOLDERS = Path(__file__).parents[1] / "models" / "data" / "nnunet_folders.tar.xz"
AFFINE = np.array([[1.1, 0, 0, -30], [0, 1.3, 0.1, 5], [0, 0, 2.4, 7], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> vx.Plan:
    root = tmp_path_factory.mktemp("stream")
    with tarfile.open(FOLDERS) as archive:
        archive.extractall(root, filter="data")
    return vx.compile(root / "Dataset801_Plain", tune="off", verify=False)


def _scan(size: tuple[int, int, int], seed: int = 0) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 150, [n // 4 + 2 for n in size])
    smooth = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)[tuple(slice(0, n) for n in size)]
    return np.rint(smooth + rng.normal(0, 10, size)).astype(np.int16)


def test_what_clipping_to_the_slices_so_far_changes_is_counted(plan: vx.Plan) -> None:
    settings = settings_from_json(plan.info.model_settings)
    scan = _scan((24, 33, 35)) // 8  # within what the model clips intensities to
    scan[-1] = 2 * scan.max()

    def grown(planes: NDArray[np.int16]) -> ArrivingCase:
        case = ArrivingCase(settings, vx.Volume(planes, AFFINE))
        for plane in planes:
            case.add(plane)
        return case

    late = grown(scan)
    whole = prepare_case(vx.Volume(scan, AFFINE), settings).data
    differing = int((np.abs(late.case.data - whole) > 1e-4).sum())
    assert 0 < differing <= late.narrowed
    early = scan.copy()
    early[0] = np.where(np.arange(early[0].size).reshape(early[0].shape) % 2, scan.min(), scan.max())
    early[0] += early[0] // 8
    known = grown(early)
    assert known.narrowed == 0
    np.testing.assert_allclose(known.case.data, prepare_case(vx.Volume(early, AFFINE), settings).data, atol=1e-4)
    with vx.Session(plan, mirroring=False) as session:
        warnings = session.stream(iter(scan), scan.shape, AFFINE).result().warnings
    assert warnings == (
        f"{late.narrowed} voxels of the network's input were clipped to the range of the slices that had come, which "
        "later ones made wider: labels around them may differ from a run of the whole volume",
    )


@pytest.mark.parametrize("spacing_z", [2.4, 3.0, 12.0], ids=["resampled", "as it is", "slices apart"])
@pytest.mark.parametrize("descending", [False, True])
def test_labels_are_those_of_the_whole_volume(
    plan: vx.Plan, descending: bool, spacing_z: float, tmp_path: Path
) -> None:
    scan, affine = _scan((29, 33, 35)), AFFINE.copy()
    affine[:3, 2] *= spacing_z / np.linalg.norm(affine[:3, 2])
    whole = vx.predict(plan, vx.Volume(scan, affine), mirroring=False).labels.array[0]
    came: list[int] = []

    def slices() -> Iterator[NDArray[np.int16]]:
        for plane in scan[::-1] if descending else scan:
            came.append(len(came) + 1)
            yield plane

    with vx.Session(plan, mirroring=False) as session:
        stream = session.stream(slices(), scan.shape, affine, descending=descending, out=tmp_path / "out.nii.gz")
        made = np.full_like(whole, 255)
        for first, slab in stream:
            made[first : first + len(slab)] = slab
        result = stream.result()
    differing = int((made != whole).sum())
    assert differing <= whole.size * 1e-4
    np.testing.assert_array_equal(result.labels.array[0], made)
    assert result.out is not None
    assert result.out.exists()
    assert len(came) == len(scan)
    assert "after the last slice" in result.timings


def test_windows_run_before_the_last_slice_is_there_and_beside_other_studies(plan: vx.Plan) -> None:
    scan, half = _scan((50, 33, 35)), threading.Event()

    def slices() -> Iterator[NDArray[np.int16]]:
        yield from scan[:42]
        assert half.wait(60), "no labels came before the last slices"
        yield from scan[42:]

    with vx.Session(plan, mirroring=False) as session:
        stream = session.stream(slices(), scan.shape, AFFINE)
        beside = session.submit(vx.Volume(scan, AFFINE)).result()  # ends before the stream does
        first, slab = next(stream)
        assert (first, len(slab) > 0) == (0, True)
        half.set()
        assert int((stream.result().labels.array != beside.labels.array).sum()) <= scan.size * 1e-4


def test_what_goes_wrong_is_told_and_nothing_is_written(plan: vx.Plan, tmp_path: Path) -> None:
    scan, out, over = _scan((20, 33, 35)), tmp_path / "out.nii", threading.Event()

    def broken() -> Iterator[NDArray[np.int16]]:
        yield scan[0]
        raise OSError("the scanner is gone")

    def endless() -> Iterator[NDArray[np.int16]]:
        yield scan[0]
        over.wait()

    wrong: list[tuple[Any, type[BaseException], str]] = [
        (iter(scan[:7]), InputError, "ended after 7 of 20 slices"),
        (iter([*scan, scan[0]]), InputError, "more slices came than the 20"),
        (iter(scan[:, :, 1:]), InputError, r"slice 1 has the shape \(1, 33, 34\)"),
        (broken(), OSError, "scanner is gone"),
    ]
    with vx.Session(plan, mirroring=False) as session:
        for slices, kind, message in wrong:
            with pytest.raises(kind, match=message):
                session.stream(slices, scan.shape, AFFINE, out=out).result()
        with pytest.raises(UsageError, match=r"\.nii"):
            session.stream(iter(scan), scan.shape, AFFINE, out=tmp_path / "out.txt")
        with pytest.raises(OutputError):
            session.stream(iter(scan), scan.shape, AFFINE, out=tmp_path / "none" / "out.nii")
        assert session.stream(iter(scan), scan.shape, AFFINE).result().labels.shape_zyx == scan.shape
        left = session.stream(endless(), scan.shape, AFFINE, out=out)
    with pytest.raises(CancelledError):
        left.result()
    over.set()
    assert not list(tmp_path.iterdir())
    with vx.Session(plan, memory="8GiB") as session, pytest.raises(UsageError, match="memory"):
        session.stream(iter(scan), scan.shape, AFFINE)


def test_models_that_need_the_whole_volume_are_refused_and_a_z_score_takes_given_statistics(plan: vx.Plan) -> None:
    settings = settings_from_json(plan.info.model_settings)
    (channel,) = settings.channels
    grid = vx.Volume(np.zeros((20, 30, 30), np.uint8), AFFINE)

    def scaled(scheme: Any, **options: Any) -> NnunetSettings:
        return replace(settings, channels=(replace(channel, normalisation=Normalisation(scheme, **options)),))

    for wrong, why in (
        (replace(settings, reader="NibabelIOWithReorient"), "turns the whole volume"),
        (replace(settings, transpose_forward=(2, 0, 1)), "first axis"),
        (scaled("z-score"), r"statistics=\[\(mean, deviation\)\]"),
        (scaled("z-score", only_inside_mask=True), "inside a mask"),
        (scaled("rescale-0-1"), "whole volume's range"),
    ):
        with pytest.raises(UnsupportedError, match=why):
            ArrivingCase(wrong, grid)
    with pytest.raises(UsageError, match="for 2 channels"):
        ArrivingCase(settings, grid, statistics=[(0, 1), (0, 1)])
    scan = _scan((20, 30, 30))
    case = ArrivingCase(scaled("z-score"), vx.Volume(scan, AFFINE), statistics=[(scan.mean(), scan.std())])
    for plane in scan:
        case.add(plane)
    whole = prepare_case(vx.Volume(scan, AFFINE), scaled("z-score")).data
    assert np.abs(case.case.data - whole).max() < 1e-4


def test_not_finite_voxels_and_zero_edges_are_told(plan: vx.Plan) -> None:
    scan = _scan((18, 33, 35)).astype(np.float32)
    scan[0] = 0
    scan[3, 4, 5] = np.nan
    with vx.Session(plan, mirroring=False) as session:
        warnings = session.stream(iter(scan), scan.shape, AFFINE).result().warnings
    assert len(warnings) == 2
    assert "NaN" in warnings[0]
    assert "crop" in warnings[1]
