"""`fusain new`: a settings file from a recipe."""

from __future__ import annotations

from pathlib import Path

import click

from fusain.cli import output
from fusain.errors import UsageError


@click.command()
@click.argument("recipe")
@click.option("--data", type=click.Path(path_type=Path), help="The folder of your images.")
@click.option("-o", "--output", "path", type=click.Path(path_type=Path), default=Path("run.toml"), show_default=True)
@click.option("--schema/--no-schema", default=True, help="Put the schema beside it, by which editors help and check.")
@click.option("--yes", is_flag=True, help="Write over a file that is there.")
@output.format_option
def verb(recipe: str, data: Path | None, path: Path, schema: bool, yes: bool) -> None:
    """Write a settings file from a recipe.

    \b
    Examples:
      fusain new unconditional --data my_images -o run.toml
      fusain new class-conditional --data my_folders
      fusain recipes ls
    """
    from fusain.settings import editors, template

    if path.exists() and not yes:
        raise UsageError("E-USE-007", path=path)
    template.write_toml(recipe, data=data, output=path, schema=schema)
    if schema and not editors.is_beside(path):
        output.talk(f"{path.parent / editors.NAME} is something else and stays; editors will not know the settings.")
    if data is None:
        output.talk(f"Set data.path in {path} to the folder of your images.")
    output.talk(f"Next: fusain plan {path}   then: fusain train {path}")
    output.show({"settings": str(path), "recipe": recipe}, [str(path)], quiet=[str(path)])
