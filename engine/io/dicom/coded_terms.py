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

    made = SegmentDescription(
        segment_number=number,
        segment_label=short_text(name),
        segmented_property_category=category_of(code),
        segmented_property_type=code_of(code),
        algorithm_type="AUTOMATIC",
        algorithm_identification=identification,
        display_color=CIELabColor.from_rgb(*colour) if colour else None,
    )
    made.SegmentDescription = f"value {value} of the label map"
    return made


def code_of(code: tuple[str, str, str] | None) -> Any:
    """The term that the recipe gave, else "Tissue"."""
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    if code is None:
        return codes.SCT.Tissue
    scheme, value, meaning = code
    return CodedConcept(value, scheme, meaning)


def category_of(code: tuple[str, str, str] | None) -> Any:
    """A coded lesion (PS3.16 CID 7159) is a morphologically abnormal structure, other terms are anatomical ones."""
    from pydicom.sr.codedict import codes

    if code is None:
        return codes.SCT.Tissue
    terms = [getattr(codes.cid7159, name) for name in codes.cid7159.dir()]
    lesions = {(term.scheme_designator, term.value) for term in terms}
    return codes.SCT.MorphologicallyAbnormalStructure if code[:2] in lesions else codes.SCT.AnatomicalStructure


def short_text(name: str) -> str:
    """As the VR LO takes it: without backslashes and control characters, 64 characters at most."""
    kept = "".join(" " if c == "\\" or not c.isprintable() else c for c in name).strip()
    return kept[:LONG_STRING] or "label"
