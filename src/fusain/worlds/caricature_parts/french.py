"""French for faces, with the agreements that its nouns ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fusain.worlds.caricature_parts.phrases import Phrases
from fusain.worlds.dice import Dice

_WHO: Final = ("une personne", "quelqu'un", "un personnage")
_MEDIUMS: Final = {
    "flat": ("un dessin plat", "une image plate"),
    "ink": ("un dessin à l'encre", "un portrait à l'encre"),
    "caricature": ("une caricature", "un portrait en caricature"),
    "chalk": ("un dessin à la craie", "un portrait à la craie"),
    "glass": ("un vitrail", "un portrait en vitrail"),
    "": ("une image", "un portrait"),
}
_MANNERS: Final = {
    "flat": "dans un style plat",
    "ink": "à l'encre",
    "caricature": "en caricature",
    "chalk": "à la craie",
    "glass": "en vitrail",
}
_SIMPLE: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "shape": {
        "round": ("un visage rond", "une tête ronde"),
        "long": ("un visage long", "une tête longue"),
        "square": ("un visage carré", "une tête carrée"),
        "heart": ("un visage en cœur", "une tête en cœur"),
    },
    "skin": {
        "fair": ("la peau claire",),
        "tan": ("la peau bronzée",),
        "brown": ("la peau brune",),
        "dark": ("la peau foncée",),
        "green": ("la peau verte",),
    },
    "eyes": {
        "round": ("des yeux ronds", "les yeux ronds"),
        "sleepy": ("des yeux endormis", "les yeux endormis"),
        "closed": ("les yeux fermés",),
        "wide": ("des yeux écarquillés", "les yeux grands ouverts"),
    },
    "nose": {
        "small": ("un petit nez",),
        "big": ("un gros nez", "un grand nez"),
        "pointed": ("un nez pointu",),
    },
    "mouth": {
        "smile": ("un sourire", "une bouche souriante"),
        "open": ("une bouche ouverte", "la bouche ouverte"),
        "frown": ("une moue", "une bouche triste"),
        "flat": ("une bouche droite", "la bouche droite"),
    },
    "ears": {
        "small": ("de petites oreilles",),
        "big": ("de grandes oreilles",),
        "pointed": ("des oreilles pointues",),
    },
}
_COLOURS: Final[Mapping[str, tuple[str, str]]] = {
    "black": ("noir", "noire"),
    "brown": ("brun", "brune"),
    "blond": ("blond", "blonde"),
    "grey": ("gris", "grise"),
    "red": ("rouge", "rouge"),
    "blue": ("bleu", "bleue"),
    "green": ("vert", "verte"),
    "yellow": ("jaune", "jaune"),
    "white": ("blanc", "blanche"),
    "pink": ("rose", "rose"),
    "purple": ("violet", "violette"),
}
_RED_HAIR: Final = ("roux", "rousse")
_CUTS: Final = {"short": "courts", "long": "longs", "curly": "bouclés", "spiky": "hérissés"}
_GLASSES: Final = {
    "round": ("des lunettes rondes",),
    "square": ("des lunettes carrées",),
    "dark": ("des lunettes noires", "des lunettes de soleil"),
}
_MASCULINE, _FEMININE = 0, 1
_BEARDS: Final = {
    "moustache": ("une moustache", _FEMININE),
    "goatee": ("un bouc", _MASCULINE),
    "full": ("une grande barbe", _FEMININE),
}
_HATS: Final = {
    "": ("un chapeau", _MASCULINE),
    "cap": ("une casquette", _FEMININE),
    "beanie": ("un bonnet", _MASCULINE),
    "top hat": ("un haut-de-forme", _MASCULINE),
    "crown": ("une couronne", _FEMININE),
}
_POSITIONS: Final = {"left": ("à gauche",), "centre": ("au centre", "au milieu"), "right": ("à droite",)}
_ABSENCES: Final = {"glasses": "sans lunettes", "beard": "sans barbe", "hat": "sans chapeau"}


def traits(said: Mapping[str, str], is_bald: bool, dice: Dice) -> list[str]:
    """What belongs to the person: face, skin, hair, eyes, nose, mouth, ears and beard."""
    found = [dice.pick(_SIMPLE[name][value]) for name, value in said.items() if name in _SIMPLE]
    beard, gender = _BEARDS.get(said.get("beard", "none"), ("", _FEMININE))
    colour = said.get("hair", "")
    if is_bald:
        found += ["un crâne chauve"] if "cut" in said else []
        found += [f"des poils {_hair_plural(colour)} au visage"] if colour and not beard else []
        return found + ([f"{beard} {_hair_colour(colour, gender)}".strip()] if beard else [])
    found += [beard] if beard else []
    return found + ([_hair(colour, said.get("cut", ""), dice)] if colour or "cut" in said else [])


def _hair(colour: str, cut: str, dice: Dice) -> str:
    shade = _hair_plural(colour) if colour else ""
    if cut == "bun":
        return f"des cheveux {shade} en chignon" if shade else "des cheveux en chignon"
    if cut == "long" and dice.chance(0.4):
        return f"de longs cheveux {shade}".strip()
    adjectives = [word for word in (_CUTS.get(cut, ""), shade) if word]
    return f"des cheveux {' et '.join(adjectives)}"


def _hair_colour(colour: str, gender: int) -> str:
    return (_RED_HAIR if colour == "red" else _COLOURS[colour])[gender] if colour else ""


def _hair_plural(colour: str) -> str:
    word = _hair_colour(colour, _MASCULINE)
    return word if word[-1] in "sx" else f"{word}s"


def worn(said: Mapping[str, str], dice: Dice) -> list[str]:
    """Glasses, hat and shirt."""
    found = [dice.pick(_GLASSES[said["glasses"]])] if said.get("glasses", "none") != "none" else []
    colour = said.get("hat_colour", "")
    if said.get("hat", "none") != "none" or colour:
        noun, gender = _HATS[said.get("hat", "")]
        found.append(f"{noun} {_COLOURS[colour][gender]}" if colour else noun)
    if "clothes" in said:
        masculine, feminine = _COLOURS[said["clothes"]]
        found.append(dice.pick((f"une chemise {feminine}", f"un pull {masculine}")))
    return found


def places(said: Mapping[str, str], dice: Dice) -> list[str]:
    found = [dice.pick(_POSITIONS[said["position"]])] if "position" in said else []
    if "background" in said:
        found.append(f"{dice.pick(('sur un fond', 'sur fond'))} {_COLOURS[said['background']][_MASCULINE]}")
    return found


def absent(said: Mapping[str, str]) -> list[str]:
    return [words for name, words in _ABSENCES.items() if said.get(name) == "none"]


def opening(said: Mapping[str, str], dice: Dice) -> str:
    medium, who = dice.pick(_MEDIUMS[said.get("style", "")]), dice.pick(_WHO)
    return f"{medium} {_of(who)}"


def sentence(said: Mapping[str, str], phrases: Phrases, dice: Dice) -> str:
    starts_with_style = dice.chance(0.6)
    parts = [opening(said, dice) if starts_with_style else dice.pick(_WHO)]
    if phrases.traits:
        parts[-1] += f" avec {_joined(phrases.traits)}"
    if phrases.worn:
        parts.append(f"portant {_joined(phrases.worn)}")
    parts += [*phrases.absent, *phrases.places]
    if not starts_with_style and "style" in said:
        parts.append(_MANNERS[said["style"]])
    return ", ".join(parts)


def _of(who: str) -> str:
    return f"de {who}" if who.startswith("q") else f"d'{who}"


def _joined(items: Sequence[str]) -> str:
    return " et ".join(part for part in (", ".join(items[:-1]), items[-1]) if part)
