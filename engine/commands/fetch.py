"""voxelrt fetch: bring a recipe's network into the cache folder."""

from __future__ import annotations

from typing import Annotated

import typer

from voxelrt.commands.console import Screen
from voxelrt.commands.options import JsonOption, QuietOption
from voxelrt.models.fetch import fetch, fetch_demo
from voxelrt.models.recipe import load_recipe, shipped_recipes


def fetch_command(
    recipes: Annotated[
        list[str] | None, typer.Argument(metavar="RECIPE...", help="Names of recipes or .toml files; none lists them.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Also the demo study and its reference mask.")] = False,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Download the networks of recipes into the cache folder, each checked by its SHA-256; or list the recipes.

    [bold]Examples[/]

      voxelrt fetch

      voxelrt fetch brain-extraction --demo
    """
    screen = Screen(quiet=quiet, json_to=json)
    if not recipes:
        known = [load_recipe(name) for name in shipped_recipes()]
        screen.table(("recipe", "what it does", "licence"), ((r.name, r.title, r.licence) for r in known))
        screen.json({"recipes": [{"name": r.name, "title": r.title, "licence": r.licence} for r in known]})
        return
    found: dict[str, str] = {}
    with screen.progress() as (_, say):
        for name in recipes:
            recipe = load_recipe(name)
            found[recipe.name] = str(fetch(recipe, progress=say))
            if demo:
                image, reference = fetch_demo(recipe, progress=say)
                found[f"{recipe.name} demo"] = str(image)
                if reference is not None:
                    found[f"{recipe.name} reference"] = str(reference)
    for name, path in found.items():
        screen.line(f"{name}: {path}")
    screen.json({"files": found})
