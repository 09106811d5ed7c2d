"""Every exception of VoxelRT, one base class.

A message says what was wrong, the value, and what to do about it. It never holds a patient identifier.
``exit_code`` is what the command line returns for the error, so that scripts can tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class VoxelRTError(Exception):
    """Base of every error that VoxelRT raises on purpose."""

    exit_code = 1


class UsageError(VoxelRTError):
    """An argument or option that cannot be met: wrong value, wrong combination, unknown name."""

    exit_code = 2


class InputError(VoxelRTError):
    """A file or study that cannot be read, is damaged, or is not what the model needs."""

    exit_code = 3


class GeometryError(InputError):
    """A study whose voxels cannot be placed in space: gaps, tilt, repeated positions, singular affine."""


class OutputError(VoxelRTError):
    """A result that could not be written."""

    exit_code = 3


class ModelError(VoxelRTError):
    """A model file that is damaged, malformed, or not a model."""

    exit_code = 4


class UnsupportedError(ModelError):
    """A model that is sound but uses what the chosen backends do not have.

    Parameters
    ----------
    message : what could not be done.
    nodes : one line for each node that is in the way, ``name (op): reason``; all of them, not only the first.
    """

    def __init__(self, message: str, nodes: Sequence[str] = ()) -> None:
        self.nodes = tuple(nodes)
        listed = "".join(f"\n  - {node}" for node in self.nodes)
        super().__init__(message + listed)


class PlanError(VoxelRTError):
    """A plan file that is damaged, truncated, foreign, newer than this library, or built for another target."""

    exit_code = 5


class ParityError(VoxelRTError):
    """A compiled plan whose answer departs from the network's own by more than the asked precision allows."""

    exit_code = 6


class ShapeError(UsageError):
    """An input whose shape or dtype the plan was not compiled for."""


class MissingExtraError(VoxelRTError):
    """An optional dependency that is not installed.

    Parameters
    ----------
    package : the import that failed.
    extra : the extra of voxelrt that brings it.
    purpose : what needed it.
    """

    exit_code = 7

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'voxelrt[{extra}]'")


class MissingPackageError(VoxelRTError):
    """A package of the user's own environment, such as a reference, that is not installed there.

    Parameters
    ----------
    package : the import that failed.
    python : the interpreter that was asked.
    purpose : what needed it.
    """

    exit_code = 7

    def __init__(self, package: str, python: str, purpose: str) -> None:
        self.package = package
        super().__init__(
            f"{purpose} needs {package}, which {Path(python).name} does not have: pip install {package} there, or name "
            "the interpreter of an environment that has it with --python"
        )


class NativeLibraryError(VoxelRTError):
    """The compiled library is missing, is of another version, or cannot run on this processor."""

    exit_code = 8


class DeviceError(VoxelRTError):
    """No GPU, or one that cannot run the kernel; or a compiler of GPU kernels that is missing or refused."""

    exit_code = 10


class FetchError(VoxelRTError):
    """A download that failed or whose checksum is not the one that was pinned."""

    exit_code = 9


class TimeLimitError(VoxelRTError):
    """A study that was not finished within the time it was given."""

    exit_code = 12


class EngineError(VoxelRTError):
    """What TensorRT reported as an error while it built or loaded an engine."""

    exit_code = 11


class CancelledError(VoxelRTError):
    """The work was stopped by its owner (Ctrl-C or a cancel flag) between two steps."""

    exit_code = 130
