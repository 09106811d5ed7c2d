"""A folder of cases as nnU-Net keeps them: a file a channel, ``<case>_0000.nii.gz``, ``.png`` or ``.tif`` and so on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_NAME = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})(?P<ending>\.nii(\.gz)?|\.png|\.jpe?g|\.tiff?)")


def cases_in(folder: Path, channels: Sequence[str]) -> list[dict[str, Path]]:
    """The cases of a folder, sorted by name; none where its files are not named so.

    Parameters
    ----------
    folder : looked at, not below.
    channels : the model's names for 0000, 0001 and so on.

    Returns
    -------
    cases : each the model's names -> files. An image that is missing is missing there, one too many is under its
        number, so that the case is refused when it is opened and the others are not.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        name = _NAME.fullmatch(path.name)
        if name and path.is_file():
            number = int(name["channel"])
            channel = channels[number] if number < len(channels) else name["channel"]
            found.setdefault(name["case"], {})[channel] = path
    return list(found.values())


def case_name(files: Mapping[str, Any]) -> str | None:
    """What the files of a case have in common; None where they are not named as a case's."""
    names = {
        m["case"] if (m := _NAME.fullmatch(Path(file).name)) else None for file in files.values() if _is_path(file)
    }
    return names.pop() if len(names) == 1 and all(_is_path(file) for file in files.values()) else None


def _is_path(given: Any) -> bool:
    return isinstance(given, (str, Path))
