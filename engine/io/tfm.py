"""ITK's text files of transforms (.tfm, .txt): one affine, from points of the fixed image to the moving one, LPS mm.

y = A·(x − c) + t + c, with Parameters A row by row and t, and FixedParameters c (ITK, itk::MatrixOffsetTransformBase).
Rigid ones give A as three angles or as a versor, the vector part of a unit quaternion; similarities also a scale.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import InputError
from voxelrt.io.atomic import atomic_path

FIRST_LINE = "#Insight Transform File V1.0"
MAX_BYTES = 1 << 16
_MATRICES = re.compile(r"(AffineTransform|MatrixOffsetTransformBase)_(double|float)_3_3")
_EULER = re.compile(r"Euler3DTransform_(double|float)_3_3")
_VERSOR = re.compile(r"(VersorRigid3D|Similarity3D)Transform_(double|float)_3_3")
_SHIFT = re.compile(r"TranslationTransform_(double|float)_3_3")
_IDENTITY = re.compile(r"IdentityTransform_(double|float)_3_3")

Matrix = NDArray[np.float64]


def read_tfm(path: str | os.PathLike[str]) -> Matrix:
    """The affine, rigid or similarity transform of an ITK text file as a (4, 4) matrix.

    Raises
    ------
    InputError : no such file, another kind of transform or several, numbers that are missing or not finite, singular.
    """
    file = Path(path)
    name = repr(file.name)
    try:
        with open(file, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or type(error).__name__}") from error
    text = raw.decode("ascii", "replace")
    if len(raw) > MAX_BYTES or not text.startswith(FIRST_LINE):
        raise InputError(f"{name} is not ITK's text file of an affine: it does not begin with {FIRST_LINE!r}")
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            fields.setdefault(key.strip(), []).append(value.strip())
    kinds = fields.get("Transform", [])
    if len(kinds) != 1:
        raise InputError(f"{name} holds {len(kinds)} transforms; give one affine to a file")
    matrix = np.eye(4)
    if _MATRICES.fullmatch(kinds[0]):
        values, centre = _numbers(fields, "Parameters", 12, name), _numbers(fields, "FixedParameters", 3, name)
        matrix = _about(centre, values[:9].reshape(3, 3), values[9:])
    elif _EULER.fullmatch(kinds[0]):
        # Older files have no fourth number: the order of the turns about y and x.
        values, given = _numbers(fields, "Parameters", 6, name), _euler_fixed(fields, name)
        x, y, z = (_turn(axis, float(values[axis])) for axis in range(3))
        matrix = _about(given[:3], z @ y @ x if given[3] else z @ x @ y, values[3:])
    elif versor := _VERSOR.fullmatch(kinds[0]):
        scaled = versor[1] == "Similarity3D"
        values, centre = _numbers(fields, "Parameters", 6 + scaled, name), _numbers(fields, "FixedParameters", 3, name)
        matrix = _about(centre, _of_versor(values[:3], name) * (values[6] if scaled else 1.0), values[3:6])
    elif _SHIFT.fullmatch(kinds[0]):
        matrix[:3, 3] = _numbers(fields, "Parameters", 3, name)
    elif not _IDENTITY.fullmatch(kinds[0]):
        raise InputError(
            f"{name} holds a {kinds[0][:60]}; read are affine, rigid, "
            "similarity and translation transforms in three axes"
        )
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise InputError(f"{name} holds a singular matrix")
    return matrix


def _about(centre: Matrix, turned: Matrix, shift: Matrix) -> Matrix:
    matrix = np.eye(4)
    matrix[:3, :3] = turned
    matrix[:3, 3] = shift + centre - turned @ centre
    return matrix


def _turn(axis: int, angle: float) -> Matrix:
    """By an angle in radians about x, y or z."""
    made, (a, b) = np.eye(3), ((axis + 1) % 3, (axis + 2) % 3)
    made[a, a] = made[b, b] = np.cos(angle)
    made[b, a] = np.sin(angle)
    made[a, b] = -made[b, a]
    return made


def _of_versor(vector: Matrix, name: str) -> Matrix:
    """The rotation of a unit quaternion whose vector part this is: 1 + 2 w V + 2 V², V the cross product with it."""
    square = float(vector @ vector)
    if square > 1.0 + 1e-9:
        raise InputError(f"{name} holds a versor longer than 1")
    x, y, z = vector
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + 2.0 * np.sqrt(max(0.0, 1.0 - square)) * cross + 2.0 * cross @ cross)


def _euler_fixed(fields: dict[str, list[str]], name: str) -> Matrix:
    words = " ".join(fields.get("FixedParameters", [])).split()
    given = _numbers(fields, "FixedParameters", 4 if len(words) == 4 else 3, name)
    return given if len(given) == 4 else np.append(given, 0.0)


def write_tfm(matrix: Matrix, path: str | os.PathLike[str]) -> None:
    """Write a (4, 4) matrix as an ITK affine about the origin. Whole or not at all.

    Raises
    ------
    OutputError : the file cannot be written.
    """
    values = [*matrix[:3, :3].ravel(), *matrix[:3, 3]]
    lines = [
        FIRST_LINE,
        "#Transform 0",
        "Transform: AffineTransform_double_3_3",
        "Parameters: " + " ".join(repr(float(v)) for v in values),
        "FixedParameters: 0 0 0",
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", "ascii")


def _numbers(fields: dict[str, list[str]], key: str, count: int, name: str) -> Matrix:
    try:
        numbers = np.array([float(word) for word in " ".join(fields.get(key, [])).split()])
    except ValueError as error:
        raise InputError(f"{name}: {key} are not all numbers") from error
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise InputError(f"{name}: {key} are {len(numbers)} numbers where {count} finite ones are wanted")
    return numbers
