"""Names planted wherever a file may hold them appear in no log, error, report, picture or file that reading makes."""

from __future__ import annotations

import gzip
import json
import logging
import warnings
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from tests.phantoms import dicom_series, octants, save_series
from tests.unit.test_dicom_pictures import cine, radiograph
from tests.unit.test_dicom_study import enhanced
from tests.unit.test_slides import level
from voxelrt.cli import main

# Each is planted in another place, so that a leak says where it came from.
PLANTED = "Zyxwvut"
FREE_TEXT = (
    "PatientName", "PatientID", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "PatientAddress",
    "PatientComments", "AdditionalPatientHistory", "ReferringPhysicianName", "PerformingPhysicianName",
    "OperatorsName", "InstitutionName", "InstitutionAddress", "StationName", "StudyDescription", "SeriesDescription",
    "ProtocolName", "ImageComments", "AccessionNumber", "StudyID", "RequestedProcedureDescription",
    "MedicalRecordLocator",
    "DeviceSerialNumber", "BodyPartExamined", "ManufacturerModelName", "ContentLabel", "DerivationDescription",
    "PatientOrientation", "ViewPosition", "Laterality", "ImageType", "WindowCenterWidthExplanation", "Modality",
    "RescaleType", "Units", "PresentationIntentType", "VOILUTFunction",
)  # fmt: skip


def planted(dataset: FileDataset, *, everywhere: bool = True) -> FileDataset:
    """Names in every element that may hold one, also such as should hold a code; and in private and nested ones."""
    with warnings.catch_warnings(action="ignore"):
        for number, name in enumerate(FREE_TEXT):
            if everywhere or number < FREE_TEXT.index("BodyPartExamined"):
                setattr(dataset, name, f"{PLANTED}{number}"[:16])
        dataset.PatientBirthDate = "19611231"
        dataset.add_new((0x0009, 0x0010), "LO", f"{PLANTED} private")
        dataset.add_new((0x0009, 0x1001), "LO", f"{PLANTED} private")
        item = Dataset()
        item.CodeMeaning, item.CodeValue = f"{PLANTED} code", f"{PLANTED}"
        dataset.RequestedProcedureCodeSequence = Sequence([item])
        dataset.ViewCodeSequence = Sequence([item])
    return dataset


def studies(root: Path) -> dict[str, Path]:
    """Sound and broken studies with names in them, by kind."""
    names = [f"{PLANTED}_{k}.dcm" for k in range(6)]

    def named(folder: Path) -> Path:
        for file, name in zip(sorted(folder.iterdir()), names, strict=False):
            file.rename(folder / name)
        return folder

    gap = [planted(d, everywhere=False) for d in dicom_series(octants())]
    made = {
        "series": named(save_series([planted(d, everywhere=False) for d in dicom_series(octants())], root / "a")),
        "codes": named(save_series([planted(d) for d in dicom_series(octants())], root / "b")),
        "gap": save_series(gap[:2] + gap[4:], root / "c"),
        "film": save_series([planted(radiograph(), everywhere=False)], root / "d", order=[0]),
        "cine": save_series([planted(cine(np.zeros((2, 9, 8, 3), np.uint8)), everywhere=False)], root / "e", order=[0]),
        "enhanced": save_series([planted(enhanced(octants()), everywhere=False)], root / "f", order=[0]),
        "slide": save_series([planted(level(np.zeros((99, 99, 3), np.uint8), "full", 0.001, "1.2.3"),
                                      everywhere=False)], root / "g", order=[0]),
    }  # fmt: skip
    cut = save_series([planted(d) for d in dicom_series(octants())], root / "h")
    for file in cut.iterdir():
        file.write_bytes(file.read_bytes()[:900])
    made["cut"] = named(cut)
    swallowing = save_series([planted(d) for d in dicom_series(octants())], root / "i")
    for file in swallowing.iterdir():
        file.write_bytes(file.read_bytes().replace(b"US\2\0\x08\0", b"US\xff\0\x08\0", 1))
    made["swallowing"] = swallowing
    with zipfile.ZipFile(root / "j.zip", "w") as archive:
        for file in made["series"].iterdir():
            archive.write(file, f"{PLANTED}/{file.name}")
    made["zip"] = root / "j.zip"
    header = nibabel.Nifti1Image(octants(), np.eye(4))
    header.header["descrip"], header.header["db_name"] = f"{PLANTED}".encode(), f"{PLANTED}".encode()
    header.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", f"{PLANTED} extension".encode()))
    nibabel.save(header, root / "k.nii")
    (root / "k.nii.gz").write_bytes(gzip.compress((root / "k.nii").read_bytes()[:-50]))
    made |= {"nifti": root / "k.nii", "cut nifti": root / "k.nii.gz"}
    said = PngInfo()
    said.add_text("Comment", f"{PLANTED} text")
    Pillow.fromarray(np.zeros((9, 8), np.uint8)).save(root / "l.png", pnginfo=said)
    tifffile.imwrite(root / "m.tif", np.zeros((9, 8), np.uint8), description=f"{PLANTED} text", software=PLANTED)
    (root / "n.tif").write_bytes((root / "m.tif").read_bytes()[:-60])
    return made | {"png": root / "l.png", "tiff": root / "m.tif", "cut tiff": root / "n.tif"}


def test_no_planted_name_comes_out_of_any_reading_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "in").mkdir()
    made = studies(tmp_path / "in")
    caplog.clear()  # making them, pydicom remarks on the names
    outputs = tmp_path / "out"
    outputs.mkdir()
    ended = {}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for kind, study in made.items():
            name = kind.replace(" ", "-")
            commands: list[list[Any]] = [
                ["info", study, "--json", outputs / f"{name}-info.json"],
                ["convert", study, "-o", outputs / f"{name}.nii.gz", "--json", outputs / f"{name}.json"],
                ["convert", study, "-o", outputs / f"{name}-repaired.nii", "--repair", "--displayed"],
                ["convert", study, "-o", outputs / f"{name}-other.nii", "--series", "77", "--volume", "99"],
            ]
            for command in commands:
                with pytest.raises(SystemExit) as left:
                    main([str(word) for word in command])
                ended.setdefault(kind, []).append(left.value.code)
    captured = capsys.readouterr()
    texts = {"output": captured.out, "errors": captured.err, "log": caplog.text,
             "warnings": " ".join(str(one.message) for one in warned)}  # fmt: skip
    for path in sorted(outputs.rglob("*")):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        texts[path.name] = path.name + data.decode("latin-1")
    for where, text in texts.items():
        assert PLANTED.lower() not in text.lower(), f"{where}: {text[max(0, text.lower().find('zyx') - 200) :][:300]}"
        assert "19611231" not in text
    # What should be read was, and what should not was refused by an error of ours.
    assert all(
        codes[:2] == [0, 0] for kind, codes in ended.items() if kind in ("series", "film", "cine", "nifti", "zip")
    )
    assert all(code in (0, 2, 3, 4) for codes in ended.values() for code in codes), ended
    assert json.loads((outputs / "series.json").read_text())["shape_zyx"] == [6, 8, 10]
