"""The factor from Bq/mL to the standardised uptake value by body weight (QIBA FDG-PET profile, appendix G).

SUVbw [g/mL] = activity [Bq/mL] × weight [g] / dose at the time to which the images are decay-corrected [Bq].
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from voxelrt.io.dicom.header import Header

DAY_S = 86_400.0
# A tracer that lasts longer than this may have been given on another day; one that has decayed so often is gone.
LONG_S, MOST_HALF_LIVES = DAY_S / 4, 20


def suv_factor(headers: Sequence[Header]) -> tuple[float | None, str]:
    """The factor of a series, or None and why there is none.

    Parameters
    ----------
    headers
        Of the series' images, in any order.
    """
    first = headers[0]
    corrected = first.words("CorrectedImage")
    if not {"ATTN", "DECY"} <= set(corrected):
        return None, "the files do not say that attenuation and decay were corrected"
    weight = first.number_of("PatientWeight")
    if weight is None or not 0.2 < weight < 1000:
        return None, "the patient's weight is not stated"
    sequence = first.nested.get("RadiopharmaceuticalInformationSequence")
    item = sequence[0] if sequence else None
    dose, half_life = _number(item, "RadionuclideTotalDose"), _number(item, "RadionuclideHalfLife")
    if dose is None or half_life is None or dose <= 0 or half_life <= 0:
        return None, "dose or half-life of the tracer are not stated"
    dose = dose * 1e6 if dose < 1e5 else dose  # some files state MBq; no patient is given less than 0.1 MBq
    way = first.code("DecayCorrection")
    if way == "ADMIN":
        return 1000 * weight / dose, ""
    if way != "START":
        return None, "the files do not say to which time decay was corrected"
    injected, scanned = _injection(item), _scan_start(headers)
    if injected is None or scanned is None:
        return None, "the time of injection or of the scan is not stated"
    if half_life <= LONG_S:
        # Injected within half a day before: dates, which are often made up when names are removed, are not asked.
        waited = (scanned[1] - injected[1]) % DAY_S
        if waited > DAY_S / 2:
            return None, "the scan seems to begin before the injection"
    elif not (injected[0] and scanned[0]):
        return None, "the tracer lasts for days, and the date of its injection or of the scan is not stated"
    else:
        waited = DAY_S * (_days(scanned[0]) - _days(injected[0])) + scanned[1] - injected[1]
        if not 0 <= waited <= MOST_HALF_LIVES * half_life:
            return None, "the dates of injection and scan do not fit together"
    return 1000 * weight / (dose * 2 ** (-waited / half_life)), ""


def _number(item: Any, name: str) -> float | None:
    try:
        value = float(item.get(name))
    except (AttributeError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _days(date: str) -> int:
    return datetime.strptime(date, "%Y%m%d").toordinal()


def _injection(item: Any) -> tuple[str, float] | None:
    stamp = str(item.get("RadiopharmaceuticalStartDateTime") or "")
    if len(stamp) > 8:
        return _moment(stamp[:8], stamp[8:])
    return _moment("", str(item.get("RadiopharmaceuticalStartTime") or ""))


def _scan_start(headers: Sequence[Header]) -> tuple[str, float] | None:
    """That of the series, unless it is later than its first image: then that is a later reconstruction's."""
    acquired = [m for h in headers if (m := _moment(h.text("AcquisitionDate"), h.text("AcquisitionTime"))) is not None]
    series = _moment(headers[0].text("SeriesDate"), headers[0].text("SeriesTime"))
    if not acquired or series is None:
        return series if series is not None else min(acquired) if acquired else None
    first = min(acquired)
    if not (series[0] and first[0]):  # a date is missing: times of day alone
        return "", min(series[1], first[1])
    return min(series, first)


def _moment(date: str, time: str) -> tuple[str, float] | None:
    """A date (YYYYMMDD, "" where there is none) and a time of day; None without a time."""
    clock = _clock(time)
    try:
        _days(date.strip())
    except ValueError:
        date = ""
    return None if clock is None else (date.strip(), clock)


def _clock(text: str) -> float | None:
    """HHMMSS.FFFFFF as seconds of the day."""
    found = re.match(r"(\d\d)(\d\d)(\d\d(?:\.\d{1,6})?)", text)
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None
