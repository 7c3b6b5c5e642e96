"""What a face is made of: the names and values of everything that a picture shows and a caption may say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

KEPT_BACK_STYLE: Final = "glass"
STYLES: Final[tuple[str, ...]] = ("flat", "ink", "caricature", "chalk", KEPT_BACK_STYLE)

ATTRIBUTES: Final[Mapping[str, tuple[str, ...]]] = {
    "style": STYLES,
    "shape": ("round", "long", "square", "heart"),
    "skin": ("fair", "tan", "brown", "dark", "green"),
    "hair": ("black", "brown", "blond", "red", "grey", "blue"),
    "cut": ("bald", "short", "long", "curly", "spiky", "bun"),
    "eyes": ("round", "sleepy", "closed", "wide"),
    "glasses": ("none", "round", "square", "dark"),
    "nose": ("small", "big", "pointed"),
    "mouth": ("smile", "open", "frown", "flat"),
    "beard": ("none", "moustache", "goatee", "full"),
    "hat": ("none", "cap", "beanie", "top hat", "crown"),
    "hat_colour": ("red", "blue", "green", "yellow"),
    "ears": ("small", "big", "pointed"),
    "background": ("white", "blue", "pink", "yellow", "green", "purple"),
    "position": ("left", "centre", "right"),
    "clothes": ("red", "blue", "green", "white", "black"),
}

NONE_SHARES: Final[Mapping[str, float]] = {"glasses": 0.5, "beard": 0.4, "hat": 0.4}
"""How often there is none; the other values share the rest."""


@dataclass(frozen=True)
class Face:
    """The value of every attribute, and the seed of the small variations that have no name."""

    attributes: Mapping[str, str]
    seed: int


def unseen(face: Face) -> frozenset[str]:
    """The attributes that cannot be told from the picture of this face."""
    values = face.attributes
    hidden = {
        "hat_colour": values["hat"] == "none",
        "hair": values["cut"] == "bald" and values["beard"] == "none",
        "eyes": values["glasses"] == "dark",
    }
    return frozenset(name for name, is_hidden in hidden.items() if is_hidden)
