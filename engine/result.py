"""Result: what a study gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as made_by
from pathlib import Path
from typing import Any

from voxelrt.errors import UsageError, VoxelRTError
from voxelrt.io import read_image
from voxelrt.io.dicom.geometry import GeometryReport
from voxelrt.io.fields import Field
from voxelrt.postprocess.sizes import words_of
from voxelrt.volume import Volume


@dataclass(frozen=True, eq=False)
class Result:
    """What a study gave.

    Parameters
    ----------
    volume
        The labels, or the image that the network made, on the study's grid; None for a study that failed.
    voxels
        Label name -> how many.
    volumes_ml
        Label name -> mL; empty of pictures, which have no depth, and of what tells no lengths.
    areas_mm2
        Label name -> mm², of a picture or slide that tells its lengths; else empty.
    scores
        Class name -> score, for networks that classify.
    timings
        Stage -> seconds.
    warnings
        Sentences for the user; no patient identifiers.
    geometry
        Of a DICOM study: what was found of its geometry and done about it; else None.
    peak_memory_bytes
        The most memory that this process has held so far.
    out
        The file that was written.
    skipped
        A session resumed, and the file was there already.
    error
        Why the study failed, in a session; ``predict`` raises it instead.
    details
        Of a task beside segmentation: all its numbers, as JSON has them.
    maps
        Of such a task: name -> volume on the study's grid.
    field
        Of a registration: the displacement field in mm.
    lines
        What a command says of it.
    """

    volume: Volume | None = made_by(default=None, repr=False)
    voxels: dict[str, int] = made_by(default_factory=dict)
    volumes_ml: dict[str, float] = made_by(default_factory=dict)
    areas_mm2: dict[str, float] = made_by(default_factory=dict)
    scores: dict[str, float] = made_by(default_factory=dict)
    timings: dict[str, float] = made_by(default_factory=dict)
    warnings: tuple[str, ...] = ()
    geometry: GeometryReport | None = None
    peak_memory_bytes: int = 0
    out: Path | None = None
    skipped: bool = False
    error: VoxelRTError | None = None
    details: Mapping[str, Any] = made_by(default_factory=dict)
    maps: Mapping[str, Volume] = made_by(default_factory=dict, repr=False)
    field: Field | None = made_by(default=None, repr=False)
    lines: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, str]:
        """Label name -> its size as it is shown: in mL, mm2 or pixels, the best that is known."""
        return words_of(self.voxels, self.volumes_ml, self.areas_mm2)

    @property
    def labels(self) -> Volume:
        """The label volume with its names.

        Raises
        ------
        VoxelRTError : the study's own error, if it failed.
        UsageError : the network makes no volume.
        """
        if self.error is not None:
            raise self.error
        if self.volume is not None:
            return self.volume
        if self.skipped and self.out is not None:
            return read_image(self.out).volume
        raise UsageError("this network gives scores, not a volume: see result.scores")
