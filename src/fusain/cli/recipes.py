"""`fusain recipes`: what there is to start from."""

from __future__ import annotations

import click

from fusain.cli import output


@click.group()
def verb() -> None:
    """List and show the recipes.

    \b
    Examples:
      fusain recipes ls
      fusain recipes show unconditional
    """


@verb.command("ls")
@output.format_option
def list_all() -> None:
    """One line for each recipe."""
    from fusain.settings import recipes

    found = [recipes.load(name) for name in recipes.names()]
    width = max((len(recipe.name) for recipe in found), default=0)
    output.show(
        {"recipes": [{"name": recipe.name, "title": recipe.title} for recipe in found]},
        [f"{recipe.name:<{width}}  {recipe.title}" for recipe in found],
        quiet=[recipe.name for recipe in found],
    )


@verb.command("show")
@click.argument("name")
@output.format_option
def show_one(name: str) -> None:
    """The file of one recipe: what differs from the defaults."""
    from fusain.settings import recipes

    recipe = recipes.load(name)
    data = {"name": recipe.name, "description": recipe.description, "values": recipe.values}
    output.show(data, recipe.text.splitlines(), quiet=recipe.text.splitlines())
