"""A classifier's scores as DICOM Structured Report (PS3.16 TID 1500, groups of TID 1501) by highdicom."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from voxelrt.errors import OutputError, UsageError
from voxelrt.io.atomic import atomic_path
from voxelrt.io.dicom.coded_terms import code_of, short_text
from voxelrt.io.dicom.derived import Algorithm, UidKind, Uids, refuse_whole, require_highdicom, series_number
from voxelrt.io.dicom.quiet import quiet_pydicom
from voxelrt.io.dicom.report import coded, document_of, evidence_of, slice_of
from voxelrt.io.dicom.single_images import REFUSED, as_single_images
from voxelrt.io.image import DicomSource

Code = tuple[str, str, str]
# How sure a device is of a finding, 0 to 100 % (PS3.16 TID 4014).
CERTAINTY = (("DCM", "111012", "Certainty of Finding"), ("UCUM", "%", "Percent"))
SCORE = (("99VOXELRT", "score", "Score"), ("UCUM", "1", "no units"))


def write_scores(
    scores: Mapping[str, float],
    path: str | os.PathLike[str],
    source: DicomSource,
    codes: Mapping[str, Code],
    algorithm: Algorithm,
    *,
    probabilities: bool = True,
    uids: UidKind = "fresh",
) -> Any:
    """Write scores as one DICOM object (Comprehensive 3D SR), whole or not at all: a group for each class.

    Parameters
    ----------
    scores
        Class -> score.
    path
        The file.
    source
        The series, as the reader returned it. Its patient and study are copied; every group refers to its images.
    codes
        Class -> scheme, value, meaning, where the recipe codes it; other classes are told by their name alone.
    algorithm
        What made the scores.
    probabilities
        Whether they are: then they are the certainty of the finding in percent, else scores without unit.
    uids
        "fresh" or "reproducible".

    Raises
    ------
    UsageError : no scores. UsageError, InputError : as `refuse_whole`.
    OutputError : the source's elements or the file cannot be written. MissingExtraError : highdicom is missing.
    """
    require_highdicom()
    refuse_whole(source)
    if not scores:
        raise UsageError("there are no scores to report")
    frames = list(source.volume.frames) if source.volume is not None else []
    new = Uids(uids, "scores", dict(scores), source.sop_instance_uids, dict(codes), algorithm)
    try:
        with quiet_pydicom():
            images = as_single_images(frames, source)
            slices = [slice_of(frame) for frame in frames]
            groups = [
                _group(number, name, score, codes.get(name), probabilities, algorithm, slices, new)
                for number, (name, score) in enumerate(scores.items())
            ]
            evidence = evidence_of(frames, images[0])
            made = document_of(groups, evidence, None, algorithm, new, series_number(frames) + 1)
            new.settle(made, images[0])
            with atomic_path(path) as temporary:
                made.save_as(temporary)
            return made
    except REFUSED as error:
        raise OutputError(
            f"no DICOM report can be made of this series: an element of its header is not what the standard allows "
            f"({type(error).__name__}); write .json instead"
        ) from None


def _group(
    number: int,
    name: str,
    score: float,
    code: Code | None,
    probabilities: bool,
    algorithm: Algorithm,
    images: list[Any],
    new: Uids,
) -> Any:
    from highdicom import sr

    what, unit = (coded(*term) for term in (CERTAINTY if probabilities else SCORE))
    made_by = sr.AlgorithmIdentification(
        name=algorithm.name[:64], version=algorithm.version, parameters=[f"plan_sha256={algorithm.plan_sha256}"]
    )
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=new(f"class {number}"), identifier=short_text(name)),
        finding_type=None if code is None else code_of(code),
        measurements=[sr.Measurement(name=what, value=100 * score if probabilities else score, unit=unit)],
        source_images=images,
        algorithm_id=made_by,
    )
