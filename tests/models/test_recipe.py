"""Recipes: the shipped ones are sound, and every kind of mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxelrt.errors import ModelError, UsageError
from voxelrt.models.recipe import load_recipe, parse_recipe, shipped_recipes, source_path

SMALL = """
name = "mine"
task = "segmentation"
[source]
path = "net.onnx"
[input]
name = "x"
channels = [{ name = "ct" }]
[output]
name = "y"
kind = "logits"
labels = [{ value = 1, name = "liver" }]
"""


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipe(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.licence
    assert recipe.citation


def test_brain_extraction() -> None:
    recipe = load_recipe("brain-extraction")
    assert recipe.source.constants == {"training": False}
    assert recipe.input.grid.shape_xyz == (128, 128, 128)
    assert recipe.input.grid.orientation == "stored"
    (label,) = recipe.output.labels
    assert label.code is not None
    assert (label.code.scheme, label.code.value, label.code.meaning) == ("SCT", "12738006", "Brain")


def test_a_recipe_beside_its_network(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(SMALL)
    recipe = load_recipe(file)
    with pytest.raises(UsageError, match="not a file beside it"):
        source_path(recipe)
    (tmp_path / "net.onnx").touch()
    assert source_path(recipe) == tmp_path / "net.onnx"
    assert recipe.output.labels[0].code is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('task = "segmentation"', 'tusk = "segmentation"', "unknown key tusk; did you mean task?"),
        ('kind = "logits"', 'kind = "logits"\nthreshhold = 1.0', "output.threshhold; did you mean threshold?"),
        ('kind = "logits"', 'kind = "logit"', "output.kind is 'logit'; did you mean logits?"),
        ('kind = "logits"', "kind = 3", "output.kind is 3"),
        ('kind = "logits"', 'kind = "probability"\nthreshold = 1.5', "within 0..1"),
        ('kind = "logits"', 'kind = "logits"\nthreshold = true', "output.threshold must be a number, not True"),
        ('kind = "logits"', 'kind = "logits"\nthreshold = nan', "must be a number"),
        ("value = 1,", 'value = "1",', r"output.labels\[0\].value must be a whole number"),
        ("value = 1,", "value = 70000,", "0 to 65535"),
        ('[{ value = 1, name = "liver" }]', '{ value = 1, name = "liver" }', "must be a list"),
        ('{ value = 1, name = "liver" }', '{value=1,name="a"},{value=1,name="b"}', "same value"),
        ('name = "liver"', 'name = "liver", code = { scheme = "SCT" }', r"labels\[0\].code lacks value, meaning"),
        ('path = "net.onnx"', 'path = "../net.onnx"', "stay inside"),
        ('path = "net.onnx"', 'path = "/net.onnx"', "stay inside"),
        ('path = "net.onnx"', "", "give one of path, package"),
        ('path = "net.onnx"', 'package = "--index-url=x"\nversion = "1"\nfile = "a"\nsha256 = "b"', "package '--index"),
        ('path = "net.onnx"', 'package = "a"\nversion = "1"\nfile = "a"\nsha256 = "b"', "64 hexadecimal"),
        ("[source]", "source = 1\n[sauce]", "did you mean source?|source must be a table"),
        ('name = "mine"', "", "the recipe lacks name"),
        ('name = "mine"', 'name = "mine"\nfolder = "/"', "unknown key folder"),
        ('name = "x"', 'name = "x"\ngrid = { orientation = "LPA" }', "three letters"),
        ('name = "x"', 'name = "x"\nintensity = { scaling = "window", lower = 3 }', "lower < upper"),
        ('{ name = "ct" }', '{ name = "ct", series = ["("] }', "regular expression"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(UsageError, match=message):
        parse_recipe(SMALL.replace(old, new, 1))


def test_what_is_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a TOML file"):
        parse_recipe("a = = 1")
    file = tmp_path / "binary.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="UTF-8"):
        load_recipe(file)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"did you mean brain-extraction\?"):
        load_recipe("brain-extracton")
