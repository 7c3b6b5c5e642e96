"""English for faces: short phrases of few words, each of which tells the value it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fusain.worlds.caricature_parts.phrases import Phrases
from fusain.worlds.dice import Dice

_WHO: Final = ("a person", "someone", "a character")
_MEDIUMS: Final = {
    "flat": ("a flat drawing", "a flat picture"),
    "ink": ("an ink drawing", "an ink portrait"),
    "caricature": ("a caricature", "a caricature portrait"),
    "chalk": ("a chalk drawing", "a chalk portrait"),
    "glass": ("a stained glass window", "a stained glass portrait"),
    "": ("a picture", "a portrait"),
}
_MANNERS: Final = {
    "flat": "in flat style",
    "ink": "drawn in ink",
    "caricature": "in caricature style",
    "chalk": "drawn in chalk",
    "glass": "in stained glass",
}
_SIMPLE: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "shape": {
        "round": ("a round face", "a round head"),
        "long": ("a long face", "a long head"),
        "square": ("a square face", "a square head"),
        "heart": ("a heart shaped face", "a heart shaped head"),
    },
    "skin": {value: (f"{value} skin",) for value in ("fair", "tan", "brown", "dark", "green")},
    "eyes": {
        "round": ("round eyes",),
        "sleepy": ("sleepy eyes",),
        "closed": ("closed eyes", "eyes closed"),
        "wide": ("wide eyes", "wide open eyes"),
    },
    "nose": {
        "small": ("a small nose", "a little nose"),
        "big": ("a big nose", "a large nose"),
        "pointed": ("a pointed nose",),
    },
    "mouth": {
        "smile": ("a smile", "a smiling mouth"),
        "open": ("an open mouth", "the mouth open"),
        "frown": ("a frown", "a frowning mouth"),
        "flat": ("a straight mouth",),
    },
    "ears": {
        "small": ("small ears", "little ears"),
        "big": ("big ears", "large ears"),
        "pointed": ("pointed ears",),
    },
}
_GLASSES: Final = {
    "round": ("round glasses",),
    "square": ("square glasses",),
    "dark": ("dark glasses", "sunglasses"),
}
_BEARDS: Final = {"moustache": ("moustache",), "goatee": ("goatee",), "full": ("full", "beard")}
_POSITIONS: Final = {
    "left": ("on the left", "to the left"),
    "centre": ("in the centre", "in the middle"),
    "right": ("on the right", "to the right"),
}
_ABSENCES: Final = {"glasses": "no glasses", "beard": "no beard", "hat": "no hat"}


def traits(said: Mapping[str, str], is_bald: bool, dice: Dice) -> list[str]:
    """What belongs to the person: face, skin, hair, eyes, nose, mouth, ears and beard."""
    found = [dice.pick(_SIMPLE[name][value]) for name, value in said.items() if name in _SIMPLE]
    beard = _BEARDS.get(said.get("beard", "none"), ())
    colour = said.get("hair", "")
    if is_bald:
        found += ["a bald head"] if "cut" in said else []
        found += [f"{colour} facial hair"] if colour and not beard else []
        coloured = [*beard[:-1], colour, *beard[-1:]] if colour else beard
        return found + ([f"a {' '.join(coloured)}"] if beard else [])
    found += [f"a {' '.join(beard)}"] if beard else []
    return found + ([_hair(colour, said.get("cut", ""), dice)] if colour or "cut" in said else [])


def _hair(colour: str, cut: str, dice: Dice) -> str:
    if cut == "bun":
        return f"{colour} hair in a bun".strip()
    adjectives = [word for word in (cut, colour) if word]
    joined = " and ".join(adjectives) if len(adjectives) == 2 and dice.chance(0.3) else " ".join(adjectives)
    return f"{joined} hair"


def worn(said: Mapping[str, str], dice: Dice) -> list[str]:
    """Glasses, hat and shirt."""
    found = [dice.pick(_GLASSES[said["glasses"]])] if said.get("glasses", "none") != "none" else []
    hat, colour = said.get("hat", "none"), said.get("hat_colour", "")
    if hat != "none" or colour:
        found.append(" ".join(word for word in ("a", colour, "hat" if hat == "none" else hat) if word))
    if "clothes" in said:
        found.append(dice.pick((f"a {said['clothes']} shirt", f"{said['clothes']} clothes")))
    return found


def places(said: Mapping[str, str], dice: Dice) -> list[str]:
    found = [dice.pick(_POSITIONS[said["position"]])] if "position" in said else []
    if "background" in said:
        found.append(f"{dice.pick(('on', 'against'))} a {said['background']} background")
    return found


def absent(said: Mapping[str, str]) -> list[str]:
    return [words for name, words in _ABSENCES.items() if said.get(name) == "none"]


def opening(said: Mapping[str, str], dice: Dice) -> str:
    return f"{dice.pick(_MEDIUMS[said.get('style', '')])} of {dice.pick(_WHO)}"


def sentence(said: Mapping[str, str], phrases: Phrases, dice: Dice) -> str:
    starts_with_style = dice.chance(0.6)
    parts = [opening(said, dice) if starts_with_style else dice.pick(_WHO)]
    if phrases.traits or phrases.absent:
        parts[-1] += f" with {_joined([*phrases.traits, *phrases.absent])}"
    if phrases.worn:
        parts.append(f"wearing {_joined(phrases.worn)}")
    parts += phrases.places
    if not starts_with_style and "style" in said:
        parts.append(_MANNERS[said["style"]])
    return ", ".join(parts)


def _joined(items: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(items[:-1]), items[-1]) if part)
