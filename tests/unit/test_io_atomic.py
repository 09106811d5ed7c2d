"""A result is on disk whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from voxelrt.errors import OutputError
from voxelrt.io.atomic import atomic_path


def test_the_file_appears_whole_and_alone(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.nii.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"whole")
        assert not (tmp_path / "a.nii.gz").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]
    assert (tmp_path / "a.nii.gz").read_bytes() == b"whole"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_interrupted_write_leaves_nothing_and_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a").write_text("old")

    def write() -> None:
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"), atomic_path(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_and_a_folder_as_target_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"), atomic_path(tmp_path / "not here" / "a"):
        pass
    with pytest.raises(OutputError, match="is a folder"), atomic_path(tmp_path):
        pass


def test_a_name_of_the_greatest_length_works(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 248 + ".nii.gz")
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"1")
    assert target.is_file()


def test_the_umask_decides_the_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_bytes(b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
