"""A study: what a folder or zip of DICOM files holds, told by content, with what was skipped and why.

Messages count files and give numbers of series; they hold no names of files, no UIDs and no descriptions, because any
of these may name a patient.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.uid import UID

from voxelrt.errors import InputError, UsageError
from voxelrt.io.dicom.contents import list_contents
from voxelrt.io.dicom.header import Header, read_header, series_said
from voxelrt.io.dicom.planar import is_picture
from voxelrt.io.dicom.series import Series

Place = str | os.PathLike[str]

# SOP classes that hold no slices of a volume, by the beginning of their UID (PS3.4 B.5, PS3.6 A).
NO_SLICES = (
    ("1.2.840.10008.1.3.10", "DICOMDIR"),
    ("1.2.840.10008.5.1.4.1.1.7", "secondary capture"),
    ("1.2.840.10008.5.1.4.1.1.9", "waveform"),
    ("1.2.840.10008.5.1.4.1.1.11", "presentation state"),
    ("1.2.840.10008.5.1.4.1.1.66", "segmentation, registration or raw data"),
    ("1.2.840.10008.5.1.4.1.1.88.67", "dose report"),
    ("1.2.840.10008.5.1.4.1.1.88", "structured report"),
    ("1.2.840.10008.5.1.4.1.1.104", "encapsulated document"),
    ("1.2.840.10008.5.1.4.1.1.481", "radiotherapy object"),
)
LOCALISER, ZIP = "localiser", "zip inside, opened only where it is given itself"
# PS3.5 9.1, with as many parts as the UID of a series has at least.
WHOLE_UID = re.compile(r"[0-2](\.(0|[1-9]\d*)){2,}")


@dataclass(frozen=True)
class Damaged:
    """A file that is DICOM and cannot be read.

    Parameters
    ----------
    sentence
        What is wrong with it.
    series_uid
        Of which series it says to be; "" where it does not come so far.
    """

    sentence: str
    series_uid: str = field(repr=False)

    def may_belong_to(self, series: Series) -> bool:
        """Whether it may be a slice of a series: unless it names another one, nobody can know."""
        return not WHOLE_UID.fullmatch(self.series_uid) or series.uid.startswith(self.series_uid)


@dataclass(frozen=True, eq=False)
class DicomStudy:
    """What is in a folder, a zip or among files.

    Parameters
    ----------
    series
        Those with images, sorted by number.
    skipped
        What was passed over -> how many files.
    damaged
        The files that are DICOM and cannot be read.
    """

    series: tuple[Series, ...]
    skipped: Counter[str]
    damaged: tuple[Damaged, ...] = field(repr=False)

    @property
    def warnings(self) -> list[str]:
        """Sentences on what was skipped."""
        return [f"skipped {count} {'file' if count == 1 else 'files'}: {what}" for what, count in self.skipped.items()]

    def warnings_of(self, series: Series) -> list[str]:
        """Sentences on what was skipped where this series was chosen, damaged files of others included."""
        others = sum(not one.may_belong_to(series) for one in self.damaged)
        what = "damaged file of another series" if others == 1 else "damaged files of other series"
        return self.warnings + ([f"skipped {others} {what}"] if others else [])

    def choose(
        self, which: int | str | None = None, *, patterns: Sequence[str] = (), modality: str = ""
    ) -> Series:  # fmt: skip
        """The one series that is meant.

        Parameters
        ----------
        which
            SeriesNumber, "#" and the place in the study's list, SeriesInstanceUID, or None.
        patterns
            Regular expressions for SeriesDescription that a recipe gives; used only where several series are left.
        modality
            Of the recipe; used like the patterns.

        Raises
        ------
        UsageError : no series of this number or UID.
        InputError : no images, several series and no choice, a damaged file that may be of the series.
        """
        if self.damaged and not self.series:
            raise _refused(self.damaged[0])
        if not self.series:
            listed = ", ".join(f"{count} {what}" for what, count in self.skipped.items())
            index = set(self.skipped) == {"DICOMDIR"}
            advice = "; a DICOMDIR is an index: give the folder that it is in" if index else ""
            raise InputError(f"no DICOM images of a volume here ({listed or 'no files'}){advice}")
        left = [series for series in self.series if which is None or _is(series, which)]
        if not left:
            known = str(which).removeprefix("#").isdigit()
            shown = f"number {which}" if known else "UID that was given"
            raise UsageError(f"no series has the {shown}; there are: {_listed(self.series)}")
        if which is None:
            left = _narrowed(left, patterns, modality)
        # A slice that is missing at the end of a stack leaves no gap: it must not be passed over.
        suspect = next((one for one in self.damaged if any(one.may_belong_to(series) for series in left)), None)
        if suspect is not None:
            raise _refused(suspect)
        if len(left) > 1:
            raise InputError(
                f"{len(left)} series where one is needed: {_listed(left)}; choose one by its number, by its place "
                "in the list of voxelrt info (#2), or by its UID (--series, series=...), or give the folder of one"
            )
        return left[0]


def _refused(one: Damaged) -> InputError:
    return InputError(
        f"{one.sentence}; take it out (files are counted in the order of their names), or give the folder of one series"
    )


def open_dicom(path: Place | Sequence[Place]) -> DicomStudy:
    """Look at every file of a folder (with its subfolders) or zip; no pixel is read.

    Parameters
    ----------
    path
        A folder, a zip, a file, or files. Files are told by content, never by name.

    Raises
    ------
    InputError : nothing there, a folder or file that cannot be read, a damaged zip.
    """
    places: Path | list[Path] = Path(path) if isinstance(path, (str, os.PathLike)) else [Path(p) for p in path]
    if isinstance(places, Path) and not places.exists():
        raise InputError(f"{places.name!r} does not exist")
    try:
        contents, skipped = list_contents(places)
    except OSError as error:
        raise InputError(f"cannot read the study: {error.strerror or type(error).__name__}") from None
    found: list[Header] = []
    damaged: list[Damaged] = []
    for index, content in enumerate(contents):
        number = f"DICOM file {index + 1} of {len(contents)}" if len(contents) > 1 else "the DICOM file"
        try:
            header = read_header(content, number)
        except InputError as error:
            damaged.append(Damaged(str(error), series_said(content)))
            continue
        reason = _no_slice(header) if header else ZIP if content.read(0, 4) == b"PK\3\4" else "not DICOM"
        if header is not None and header.pixels is None and not reason:
            uid = header.text("SeriesInstanceUID")
            lost = "no whole pixel data" if uid else "it says neither its series nor its pixels"
            damaged.append(Damaged(f"{number} is damaged or truncated: {lost}", uid))
            continue
        if header is None or reason:
            skipped[reason] += 1
        else:
            found.append(header)
    return DicomStudy(_by_series(_without_copies(found, skipped)), skipped, tuple(damaged))


def _no_slice(header: Header) -> str:
    """Why this object is no slice of a volume, "" if it may be one."""
    sop_class = header.text("SOPClassUID")
    if is_picture(header):
        return ""
    for prefix, what in NO_SLICES:
        if sop_class == prefix or sop_class.startswith(prefix + "."):
            return what
    if header.pixels is None and _holds_no_image(sop_class):
        return "no image"
    # CT and MR scouts have the SOP class of the images; the third value of ImageType tells them (PS3.3 C.8.2.1.1.1).
    words = header.words("ImageType")
    if "LOCALIZER" in words:
        return LOCALISER
    return "screen save" if "SCREEN SAVE" in words else ""


def _holds_no_image(sop_class: str) -> bool:
    """Whether the standard names this class, and not as one of images (spectra, protocols, registers and the like)."""
    name = UID(sop_class, validation_mode=pydicom.config.IGNORE).name
    return name not in ("", sop_class) and not any(word in name for word in ("Image", "Volume", "Map", "Dose"))


def _by_series(headers: Sequence[Header]) -> tuple[Series, ...]:
    by_uid: dict[str, list[Header]] = {}
    for header in headers:
        by_uid.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    found = sorted((Series(0, tuple(members)) for members in by_uid.values()), key=_order)
    return tuple(Series(index, series.headers) for index, series in enumerate(found, start=1))


def _order(series: Series) -> tuple[int, str]:
    return (2**40 if series.number is None else series.number, series.uid)


def _is(series: Series, which: int | str) -> bool:
    text = str(which)
    if text.startswith("#"):
        return text[1:] == str(series.index)
    return series.number == int(text) if text.lstrip("-").isdigit() else bool(text) and series.uid == text


def _narrowed(series: list[Series], patterns: Sequence[str], modality: str) -> list[Series]:
    """Those of the modality, then those whose description fits, as long as one is left."""
    if len(series) > 1 and modality:
        series = [one for one in series if one.modality == modality] or series
    if len(series) > 1 and patterns:
        series = [one for one in series if any(re.search(p, one.description) for p in patterns)] or series
    return series


def _listed(series: Sequence[Series]) -> str:
    return ", ".join(sorted(one.title for one in series))


def _without_copies(headers: list[Header], skipped: Counter[str]) -> list[Header]:
    """Keep the first of files with the same SOP Instance UID: by the standard they are the same object."""
    kept: dict[str, Header] = {}
    for index, header in enumerate(headers):
        kept.setdefault(header.text("SOPInstanceUID") or f"without {index}", header)
    if len(kept) < len(headers):
        skipped["copies of others (same SOP Instance UID)"] += len(headers) - len(kept)
    return list(kept.values())
