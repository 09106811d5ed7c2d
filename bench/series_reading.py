"""``python -m bench.series_reading``: a CT series into memory, beside loops of pydicom and SimpleITK on its files.

The series is made up: ellipsoids in noise of a CT's strength, 300 slices of 512 × 512, raw, RLE and JPEG 2000
(lossless). Every reader must give the same values in HU before anything is printed; rounds alternate, and the files are
in the system's cache. The seconds of all cores tell who works on several: GDCM decodes JPEG 2000 on threads too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from bench.segmentation import ellipsoids
from tests.phantoms import dicom_series, save_series
from voxelrt import environment
from voxelrt.io import read_image

Array = NDArray[Any]
SYNTAXES = ("raw", "rle", "jpeg2000")


def phantom(slices: int, size: int) -> Array:
    """Stored values of a CT: air, tissues, noise of 12 HU."""
    noise = np.random.default_rng(0).normal(0, 12, (slices, size, size)).astype(np.float32)
    organs = ellipsoids((slices, size, size), 27).astype(np.float32) * 9
    return np.clip(np.rint(noise + np.where(organs > 0, organs + 900, 20)), 0, 4095).astype(np.uint16)


def write(values: Array, folder: Path, syntax: str) -> None:
    """The series as files."""
    import imagecodecs

    series = dicom_series(values, RescaleSlope=1, RescaleIntercept=-1024, BitsStored=12, HighBit=11)
    for dataset, plane in zip(series, values, strict=True):
        if syntax == "rle":
            dataset.compress(RLELossless, generate_instance_uid=False)
        elif syntax == "jpeg2000":
            code = imagecodecs.jpeg2k_encode(plane, level=0, codecformat="j2k", reversible=True, bitspersample=12)
            dataset.PixelData = encapsulate([code])
            dataset["PixelData"].is_undefined_length = True
            dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    save_series(series, folder, order=list(range(len(series))))


def by_pydicom(folder: Path) -> Array:
    """The loop that everybody writes: read, sort by position, stack, rescale."""
    read = [pydicom.dcmread(file) for file in folder.iterdir()]
    read.sort(key=lambda dataset: float(dataset.ImagePositionPatient[2]))
    first = read[0]
    stack = np.stack([dataset.pixel_array for dataset in read]).astype(np.int16)
    return stack * np.int16(first.RescaleSlope) + np.int16(first.RescaleIntercept)


def by_simpleitk(folder: Path) -> Array:
    """GDCM's series reader."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return np.asarray(SimpleITK.GetArrayFromImage(reader.Execute()))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.series_reading", description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--syntax", action="append", choices=SYNTAXES)
    parser.add_argument("--data", type=Path, help="a folder to keep the series in, for another run")
    given = parser.parse_args()
    readers: dict[str, Callable[[Path], Array]] = {
        "VoxelRT": lambda folder: np.asarray(read_image(folder).volume.array[0]),
        "pydicom": by_pydicom,
        "SimpleITK": by_simpleitk,
    }
    values = phantom(given.slices, given.size)
    wanted = values.astype(np.int16) - 1024
    print(
        f"{given.slices} slices of {given.size} × {given.size}, {environment.threads()} threads, rounds {given.rounds}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for syntax in given.syntax or SYNTAXES:
            folder = (given.data or Path(scratch)) / f"{syntax}-{given.slices}-{given.size}"
            if not folder.is_dir():
                write(values, folder, syntax)
            seconds: dict[str, list[float]] = {name: [] for name in readers}
            of_cores: dict[str, list[float]] = {name: [] for name in readers}
            for number in range(given.rounds + 1):
                for name, read in readers.items():
                    start, before = time.perf_counter(), time.process_time()
                    found = read(folder)
                    took, worked = time.perf_counter() - start, time.process_time() - before
                    if number == 0:  # the first round is for the cache, and for the check
                        if not (found == wanted).all():
                            raise SystemExit(f"{name} reads other values of {syntax}")
                    else:
                        seconds[name].append(took)
                        of_cores[name].append(worked)
                    del found
            medians = {name: float(np.median(times)) for name, times in seconds.items()}
            fastest = min(medians["pydicom"], medians["SimpleITK"])
            row = ", ".join(
                f"{name} {medians[name]:.2f} s ({min(times):.2f} to {max(times):.2f}; {np.median(of_cores[name]):.2f} "
                "of cores)"
                for name, times in seconds.items()
            )
            print(f"{syntax:9} {row}; {fastest / medians['VoxelRT']:.2f} times the faster peer", flush=True)


if __name__ == "__main__":
    main()
