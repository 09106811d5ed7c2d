"""Segments in DICOM's coded terms: what the recipe coded, and otherwise only that it is tissue."""

from __future__ import annotations

from typing import Any

LONG_STRING = 64  # characters of VR LO


def segment_description(
    name: str,
    number: int,
    value: int,
    code: tuple[str, str, str] | None,
    colour: tuple[int, ...],
    identification: Any,
) -> Any:
    """One item of the SegmentSequence (PS3.3 C.8.20.2).

    A term is never guessed from a name: a label without code is category and type "Tissue" with its name as
    SegmentLabel. A coded lesion (PS3.16 CID 7159) is a morphologically abnormal structure, other coded terms are
    anatomical structures.

    Parameters
    ----------
    name, value
        Of the label.
    number
        SegmentNumber.
    code
        Scheme, value, meaning, or None.
    colour
        sRGB, 0 to 255, or empty.
    identification
        highdicom's AlgorithmIdentificationSequence.
    """
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    tissue = codes.SCT.Tissue
    kind = tissue if code is None else _code(*code)
    made = SegmentDescription(
        segment_number=number,
        segment_label=_text(name),
        segmented_property_category=tissue if code is None else _category(code),
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=identification,
        display_color=CIELabColor.from_rgb(*colour) if colour else None,
    )
    made.SegmentDescription = f"value {value} of the label map"
    return made


def _code(scheme: str, value: str, meaning: str) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value, scheme, meaning)


def _category(code: tuple[str, str, str]) -> Any:
    from pydicom.sr.codedict import codes

    terms = [getattr(codes.cid7159, name) for name in codes.cid7159.dir()]
    lesions = {(term.scheme_designator, term.value) for term in terms}
    return codes.SCT.MorphologicallyAbnormalStructure if code[:2] in lesions else codes.SCT.AnatomicalStructure


def _text(name: str) -> str:
    """As the VR LO takes it: without backslashes and control characters, 64 characters at most."""
    kept = "".join(" " if c == "\\" or not c.isprintable() else c for c in name).strip()
    return kept[:LONG_STRING] or "label"
