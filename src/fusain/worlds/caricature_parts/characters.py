"""Six characters with names, for teaching a model someone it has never seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fusain.worlds.caricature_parts.attributes import ATTRIBUTES, Face
from fusain.worlds.dice import Dice

_FIXED: Final = ("shape", "skin", "hair", "cut", "eyes", "glasses", "nose", "mouth", "beard", "ears")
_LOOKS: Final = {
    "Ada": ("heart", "brown", "blue", "curly", "wide", "round", "small", "smile", "none", "small"),
    "Basile": ("long", "fair", "grey", "spiky", "round", "square", "pointed", "open", "goatee", "big"),
    "Grom": ("square", "green", "red", "bald", "sleepy", "none", "big", "frown", "full", "pointed"),
    "Mirette": ("round", "tan", "red", "bun", "closed", "none", "pointed", "smile", "none", "pointed"),
    "Otto": ("square", "dark", "blond", "short", "round", "dark", "big", "flat", "moustache", "big"),
    "Pia": ("heart", "green", "black", "long", "wide", "square", "small", "open", "none", "pointed"),
}
_CHARACTER_STREAM: Final = 21

CHARACTERS: Final[Mapping[str, Mapping[str, str]]] = {
    name: dict(zip(_FIXED, looks, strict=True)) for name, looks in _LOOKS.items()
}


def is_character(values: Mapping[str, str]) -> bool:
    """Whether a face agrees with a character in everything that a character is."""
    return any(all(values[name] == value for name, value in looks.items()) for looks in CHARACTERS.values())


def character(
    name: str,
    seed: int,
    *,
    style: str = "flat",
    hats: Sequence[str] = ("none",),
    backgrounds: Sequence[str] | None = None,
    positions: Sequence[str] | None = None,
) -> Face:
    """A named character in one of the hats, on one of the backgrounds, at one of the positions (None: all)."""
    dice = Dice(_CHARACTER_STREAM, seed)
    around = {
        "style": style,
        "hat": dice.pick(hats),
        "hat_colour": dice.pick(ATTRIBUTES["hat_colour"]),
        "background": dice.pick(backgrounds or ATTRIBUTES["background"]),
        "position": dice.pick(positions or ATTRIBUTES["position"]),
        "clothes": dice.pick(ATTRIBUTES["clothes"]),
    }
    values = {**CHARACTERS[name], **around}
    return Face({attribute: values[attribute] for attribute in ATTRIBUTES}, seed)
