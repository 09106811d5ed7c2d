"""``python -m bench.segmentation``: DICOM segmentations of many classes, beside what highdicom does by default.

The series and the labels are made up: ellipsoids of 118 classes in 600 CT slices of 512 × 512. Both writers' files are
read back, and must hold as many voxels of each class, before anything is printed.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from numpy.typing import NDArray

from tests.phantoms import dicom_series, save_series
from voxelrt.io import DicomSource, read_image
from voxelrt.io.dicom.derived import Algorithm, Segment
from voxelrt.io.dicom.segmentation import SegKind, write_segmentation
from voxelrt.volume import Volume

ALGORITHM = Algorithm("bench", "0", "0" * 64, "fp32")


def ellipsoids(shape: tuple[int, int, int], classes: int) -> NDArray[np.uint8]:
    """Each class an ellipsoid in its own cell of the volume."""
    edge = math.ceil(classes ** (1 / 3))
    z, y, x = (((np.arange(n) * edge / n) % 1 * 2 - 1) ** 2 for n in shape)
    cells = [np.arange(n) * edge // n for n in shape]
    number = (cells[0][:, None, None] * edge + cells[1][:, None]) * edge + cells[2] + 1
    inside = z[:, None, None] + y[:, None] + x < 0.9
    return np.where(inside & (number <= classes), number, 0).astype(np.uint8)


def by_highdicom(labels: Volume, source: DicomSource, segments: list[Segment], out: Path, kind: SegKind) -> None:
    """With the defaults of its Segmentation, from the files' datasets."""
    from highdicom.content import AlgorithmIdentificationSequence
    from pydicom.sr.codedict import codes

    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in source.files]
    for name in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(images[0], name, "")
    algorithm = AlgorithmIdentificationSequence("bench", codes.cid7162.ArtificialIntelligence, "0")
    tissue = codes.SCT.Tissue
    described = [
        highdicom.seg.SegmentDescription(s.value, s.name, tissue, tissue, "AUTOMATIC", algorithm) for s in segments
    ]
    made = highdicom.seg.Segmentation(
        images, labels.array[0], kind.upper(), described, highdicom.UID(), 1, highdicom.UID(), 1, "m", "m", "0", "0"
    )
    made.save_as(out)


def total(out: Path, classes: int) -> dict[int, int]:
    """Voxels of each segment, as the file's frames hold them."""
    file = pydicom.dcmread(out)
    counts = dict.fromkeys(range(1, classes + 1), 0)
    for index, item in enumerate(file.PerFrameFunctionalGroupsSequence):
        frame = pydicom.pixels.pixel_array(file, index=index)
        if file.SegmentationType == "BINARY":
            counts[int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)] += int(frame.sum())
        else:
            for value, count in enumerate(np.bincount(frame.reshape(-1))):
                if value:
                    counts[value] += int(count)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.segmentation", description=__doc__)
    parser.add_argument("--kind", choices=("binary", "labelmap"), default="labelmap")
    parser.add_argument("--classes", type=int, default=118)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    shape = (given.slices, given.size, given.size)
    with tempfile.TemporaryDirectory() as folder:
        study = save_series(dicom_series(np.zeros(shape, np.int16)), Path(folder) / "series")
        image = read_image(study)
        labels = image.volume.with_array(ellipsoids(shape, given.classes))
        segments = [Segment(k, f"class {k}") for k in range(1, given.classes + 1)]
        source: Any = image.source
        ours, theirs = Path(folder) / "ours.dcm", Path(folder) / "theirs.dcm"
        runs: dict[str, tuple[Path, Callable[[], None]]] = {
            "VoxelRT": (ours, lambda: write_segmentation(labels, ours, source, segments, ALGORITHM, kind=given.kind)),
            "highdicom's defaults": (theirs, lambda: by_highdicom(labels, source, segments, theirs, given.kind)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(given.rounds):
            for name, (_, write) in runs.items():
                start = time.perf_counter()
                write()
                seconds[name].append(time.perf_counter() - start)
        wanted = dict(enumerate(np.bincount(labels.array.reshape(-1), minlength=given.classes + 1).tolist()))
        del wanted[0]
        for name, (out, _) in runs.items():
            if total(out, given.classes) != wanted:
                raise SystemExit(f"{name} wrote other labels")
        print(f"{given.kind}, {given.classes} classes, {shape[0]} × {shape[1]} × {shape[2]}, rounds {given.rounds}")
        for name, (out, _) in runs.items():
            print(f"{name:22} {np.median(seconds[name]):7.1f} s {out.stat().st_size / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()
