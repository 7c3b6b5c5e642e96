"""Writes a settings file from a recipe: its basic settings with their values, and what each one does."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from fusain.settings import described, editors, recipes, user_file
from fusain.settings.described import Described


def write_toml(recipe: str, *, data: Path | None, output: Path, schema: bool = True) -> Path:
    """Makes the settings file `output`, and the schema beside it; the caller has seen to it that nothing is lost."""
    text = toml_text(recipes.load(recipe), data=data)
    output.parent.mkdir(parents=True, exist_ok=True)
    has_schema = schema and editors.put_beside(output)
    output.write_text(f"{editors.COMMENT}\n{text}" if has_schema else text, encoding="utf-8")
    return output


def toml_text(recipe: recipes.Recipe, *, data: Path | None) -> str:
    """The text of a settings file: the recipe's name, and the basic settings that exist under it."""
    description = described.load()
    kinds = description.under(recipe.values)
    values = {entry.key: _value(entry, recipe) for entry in description.settings if entry.exists(kinds)}
    users = user_file.layer(kinds)
    if users is not None:
        of_users = {key: described.look_up(dict(users.values), key) for key in values}
        given = {key: value for key, value in of_users.items() if value is not None}
        values |= {key: value for key, value in given.items() if described.look_up(recipe.values, key) is None}
    if data is not None:
        values["data.path"] = str(data)
    lines = [f"# {line}".rstrip() for line in recipe.description.splitlines()]
    lines += [
        "# What stands here can be changed; what was left out has the recipe's value or its default.",
        "# All settings: fusain train --help-all   One of them: fusain explain train.steps",
        "",
        f"recipe = {_toml(recipe.name)}",
    ]
    sections: dict[str, list[str]] = {}
    for entry in description.settings:
        if entry.exists(kinds) and not entry.key.endswith(".kind") and _belongs(entry, recipe):
            sections.setdefault(entry.section, ["", f"[{entry.section}]"]).extend(_setting(entry, values[entry.key]))
    return "\n".join([*lines, *(line for section in sections.values() for line in section)]) + "\n"


def _belongs(entry: Described, recipe: recipes.Recipe) -> bool:
    """What the recipe gives, and what people meet first; a section within another one only where the recipe has it."""
    if described.look_up(recipe.values, entry.key) is not None:
        return True
    is_within = "." in entry.section
    return entry.basic and not (is_within and described.look_up(recipe.values, entry.section) is None)


def _setting(entry: Described, value: Any) -> list[str]:
    name = entry.key.rpartition(".")[2]
    usual = f" Usually {entry.usual[0]:g} to {entry.usual[1]:g}." if entry.usual else ""
    words = " ".join(f"{entry.help} [{entry.type}]{usual}".split())
    comment = textwrap.wrap(words, 110, initial_indent="# ", subsequent_indent="#   ")
    if value is None and entry.required:
        return [*comment, f'{name} = "path/to/your/images"' if entry.key == "data.path" else f"# {name} ="]
    return [*comment, f"# {name} =" if value is None else f"{name} = {_toml(value)}"]


def _value(entry: Described, recipe: recipes.Recipe) -> Any:
    own = described.look_up(recipe.values, entry.key)
    if own is not None:
        return own
    # What the recipe gives in its place makes the default void.
    rival = f"{entry.section}.{entry.instead_of}" if entry.instead_of else ""
    return None if rival and described.look_up(recipe.values, rival) is not None else entry.default


def _toml(value: Any) -> str:
    import tomlkit  # Heavier than the rest of this module, and only `fusain new` writes.

    text: str = tomlkit.item(value).as_string()
    return text
