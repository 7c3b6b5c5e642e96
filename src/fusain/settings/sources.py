"""Where the value of one setting would come from, told without loading any of the code that it sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusain.settings import described, layers, recipes, user_file
from fusain.settings.layers import Layer, Origin

Found = list[tuple[Origin, Any]]
"""Each source that sets it with its value; the last one holds."""


def of(key: str, source: str | None = None) -> Found:
    """What the user's own settings say of `key`, and a settings file or a recipe with them."""
    stack = _written(source) if source is not None else []
    kinds: dict[str, str] = dict(described.load().kinds)
    for layer in stack:
        kinds |= {
            name: named for name in kinds if isinstance(named := described.look_up(dict(layer.values), name), str)
        }
    users = user_file.layer(kinds)
    found = [(layer, described.look_up(dict(layer.values), key)) for layer in ([users] if users else []) + stack]
    return [(layer.origin(tuple(key.split("."))), value) for layer, value in found if value is not None]


def of_users(name: str) -> Found:
    """What the user's own file says of one of its own settings."""
    path = user_file.path()
    value = layers.from_file(path).values.get(name) if path.is_file() else None
    return [] if value is None else [(layers.from_file(path).origin((name,)), value)]


def _written(source: str) -> list[Layer]:
    if not Path(source).is_file() and source in recipes.names():
        return [layers.from_recipe(source)]
    file = layers.from_file(Path(source))
    recipe = file.values.get("recipe")
    below = [layers.from_recipe(recipe, str(file.origin(("recipe",))))] if isinstance(recipe, str) else []
    return [*below, file]
