"""The names of a CLIP text encoder's weights: written with `text_model.`, read with and without it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

PREFIX: Final = "text_model."
"""Before each key of a CLIP text encoder everywhere but in transformers since 5.6."""
OUTSIDE: Final = ("text_projection",)
"""What stands beside the tower, in every layout."""
BUFFERS: Final = ("embeddings.position_ids",)
"""Counted up from 0 by the class itself; older files hold them."""

Value = TypeVar("Value")


def as_written(found: Mapping[str, Value]) -> dict[str, Value]:
    """Every name in the layout with the prefix, without buffers."""
    kept = {name: value for name, value in found.items() if not name.endswith(BUFFERS)}
    return {name if name.startswith((PREFIX, *OUTSIDE)) else PREFIX + name: value for name, value in kept.items()}


def as_class(found: Mapping[str, Value], own: Iterable[str]) -> dict[str, Value]:
    """Every name as the class at hand has it, `own` being the names of its state."""
    if any(name.startswith(PREFIX) for name in own):
        return dict(found)
    return {name.removeprefix(PREFIX): value for name, value in found.items()}
