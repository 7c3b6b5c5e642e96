"""The names of a text encoder's weights: of CLIP written with `text_model.`, read with and without it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

PREFIX: Final = "text_model."
"""Before each key of a CLIP text encoder everywhere but in transformers since 5.6."""
OUTSIDE: Final = ("text_projection",)
"""What stands beside the tower, in every layout."""
BUFFERS: Final = ("embeddings.position_ids",)
"""Counted up from 0 by the class itself; older files hold them."""

OF_CLIP: Final = ("text_encoder", "text_encoder_2")
"""The components that are such an encoder."""

T5_TABLE: Final = "shared.weight"
"""T5's table of words..."""
T5_COPIES: Final = ("encoder.embed_tokens.weight",)
"""...and its other name, under which some files hold it."""

Value = TypeVar("Value")


def as_written(found: Mapping[str, Value]) -> dict[str, Value]:
    """Every name in the layout with the prefix, without buffers."""
    kept = {name: value for name, value in found.items() if not name.endswith(BUFFERS)}
    return {name if name.startswith((PREFIX, *OUTSIDE)) else PREFIX + name: value for name, value in kept.items()}


def with_both_tables(found: Mapping[str, Value]) -> dict[str, Value]:
    """T5's table of words under all of its names, of which files hold one."""
    names = (T5_TABLE, *T5_COPIES)
    return {**found, **{name: found[held] for held in names if held in found for name in names}}


def as_class(found: Mapping[str, Value], own: Iterable[str]) -> dict[str, Value]:
    """Every name as the class at hand has it, `own` being the names of its state."""
    if any(name.startswith(PREFIX) for name in own):
        return dict(found)
    return {name.removeprefix(PREFIX): value for name, value in found.items()}
