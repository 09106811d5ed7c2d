"""Sheets and films: each slice where it belongs, letters of the right sides, and nothing that names the patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.phantoms import PATIENT_ID, PATIENT_NAME, dicom_series, forty_eight, octants, save_series
from voxelrt.cli import main
from voxelrt.errors import GeometryError, UsageError
from voxelrt.postprocess.slices import _Scene, draw_sheet, write_film, write_sheet
from voxelrt.postprocess.views import VIEWS
from voxelrt.volume import Volume


def ball(linear: np.ndarray) -> Volume:
    """Bright where it is left, anterior and superior; the rest grey."""
    affine = np.eye(4)
    affine[:3, :3] = linear @ np.diag([1.0, 2.0, 3.0])
    shape = (9, 12, 20)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape[::-1]), indexing="ij"))
    world = np.einsum("ij,jxyz->izyx", affine[:3, :3], index)
    middle = world.reshape(3, -1).mean(axis=1)[:, None, None, None]
    where = (world - middle) * np.array([1, -1, 1])[:, None, None, None] > 0
    return Volume(np.where(where.all(axis=0), 200, 50).astype(np.int16), affine)


@pytest.mark.parametrize("index", range(0, 48, 5))
def test_sides_are_where_the_letters_say(index: int) -> None:
    scene = _Scene(ball(forty_eight()[index]), None, 0)
    assert len(scene.indices(24)) == 9
    # Of the half that is left, anterior or superior (beyond the middle across the view), the picture shows a quarter.
    bright = [k for k in scene.indices(24) if (scene.view.cut(scene.image[0], k) == 200).any()]
    assert 3 <= len(bright) <= 5
    rows, columns = np.nonzero(scene.view.cut(scene.image[0], bright[0]) == 200)
    height, width = scene.view.cut(scene.image[0], bright[0]).shape
    left, right, top, bottom = scene.view.letters
    horizontal = right if columns.mean() > width / 2 else left
    vertical = bottom if rows.mean() > height / 2 else top
    assert {horizontal, vertical} <= {"L", "A", "S"}
    assert scene.view in VIEWS


def test_a_film_has_all_slices_and_outlines(tmp_path: Path) -> None:
    volume = Volume(octants((9, 12, 20)), np.diag([1.0, 2.0, 3.0, 1.0]))
    labels = volume.with_array((volume.array == 5).astype(np.uint8))
    write_film(volume, tmp_path / "a.gif", labels=labels)
    with Pillow.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 9
        assert film.info["loop"] == 0
        film.seek(8)
        assert any(r > 200 and g < 130 for _, (r, g, b) in film.convert("RGB").getcolors(2**24))
    write_sheet(volume, tmp_path / "a.png", labels=labels, title="Phantom")
    with Pillow.open(tmp_path / "a.png") as sheet:
        assert not sheet.info


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 300), (60, 2, 3), (25, 1, 1)])
def test_odd_shapes(shape: tuple[int, int, int], tmp_path: Path) -> None:
    volume = Volume(np.full(shape, np.nan, np.float32), np.eye(4))
    assert draw_sheet(volume).width >= 900
    write_film(volume, tmp_path / "a.gif")


def test_what_is_refused() -> None:
    volume = Volume(octants(), np.eye(4))
    with pytest.raises(UsageError):
        draw_sheet(volume, channel=1)
    with pytest.raises(UsageError):
        draw_sheet(volume, labels=volume.with_array(np.full((6, 8, 10), 0.5)))
    with pytest.raises(GeometryError):
        draw_sheet(volume, labels=Volume(octants(), 2 * np.eye(4)))


@pytest.mark.parametrize("name", ["out.png", "out.gif"])
def test_convert_draws_a_study_without_its_patient(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = save_series(dicom_series(octants()), tmp_path / "a")
    with pytest.raises(SystemExit) as left:
        main(["convert", str(study), "-o", str(tmp_path / name)])
    assert left.value.code == 0
    printed = capsys.readouterr()
    for secret in (PATIENT_NAME, PATIENT_ID):
        assert secret.encode() not in (tmp_path / name).read_bytes()
        assert secret not in printed.out + printed.err
