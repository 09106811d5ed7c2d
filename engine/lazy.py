"""Names of a package that are loaded when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any


def found_at(package: str, homes: Mapping[str, str], name: str) -> Any:
    """For a package's ``__getattr__`` (PEP 562): the object of this name, from the module that ``homes`` names.

    Raises
    ------
    AttributeError : the package has no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(homes[name]), name)
    setattr(sys.modules[package], name, value)
    return value
