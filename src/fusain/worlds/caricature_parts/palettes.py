"""The colours of every role of a face, from its attributes and its style."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from fusain.worlds.caricature_parts.styles import Colour, Style, mix, style_named

GROUNDS: Final[Mapping[str, Colour]] = {
    "white": (248, 246, 241),
    "blue": (138, 198, 240),
    "pink": (250, 178, 200),
    "yellow": (255, 228, 122),
    "green": (164, 218, 152),
    "purple": (186, 160, 228),
}
_SKINS: Final[Mapping[str, Colour]] = {
    "fair": (255, 221, 196),
    "tan": (234, 178, 122),
    "brown": (176, 114, 70),
    "dark": (112, 70, 54),
    "green": (126, 176, 74),
}
_HAIRS: Final[Mapping[str, Colour]] = {
    "black": (38, 34, 46),
    "brown": (118, 68, 36),
    "blond": (242, 196, 74),
    "red": (226, 92, 30),
    "grey": (172, 174, 182),
    "blue": (58, 112, 224),
}
_HATS: Final[Mapping[str, Colour]] = {
    "red": (214, 44, 58),
    "blue": (44, 84, 196),
    "green": (30, 146, 82),
    "yellow": (250, 200, 30),
}
_CLOTHES: Final[Mapping[str, Colour]] = {
    "red": (204, 46, 60),
    "blue": (46, 92, 190),
    "green": (32, 134, 80),
    "white": (252, 252, 255),
    "black": (46, 44, 56),
}
_COLLARS: Final[Mapping[str, Colour]] = {
    "red": (250, 214, 150),
    "blue": (226, 236, 250),
    "green": (240, 236, 190),
    "white": (150, 166, 190),
    "black": (150, 150, 166),
}
_NOSE: Final[Colour] = (240, 80, 108)
_SHADOW: Final[Colour] = (58, 26, 70)
_LIGHT: Final[Colour] = (255, 250, 236)
_CREAM: Final[Colour] = (246, 240, 226)


@lru_cache
def colours_of_skin(style_name: str, skin: str) -> Mapping[str, Colour]:
    style = style_named(style_name)
    plain = style.tone(_SKINS[skin])
    is_dark = skin in ("brown", "dark")
    red = style.tone((236, 70, 84)) if skin != "green" else style.tone((220, 214, 60))
    line = _CREAM if style.light_lines_on_dark_skin and is_dark else style.line_colour
    nose = mix(plain, style.tone(_NOSE), 0.8)
    return {
        **_with_second("skin", plain, style),
        "skin shade": mix(plain, _SHADOW, 0.16 if is_dark else 0.13),
        "skin light": mix(plain, _LIGHT, 0.55),
        **_with_second("nose", nose, style),
        "nose shade": mix(nose, _SHADOW, 0.5),
        "nose light": mix(plain, _LIGHT, 0.5),
        "blush": mix(plain, red, 0.34),
        "lid": mix(plain, _LIGHT, 0.24) if is_dark else mix(plain, _SHADOW, 0.16),
        "lens": mix(plain, (240, 250, 255), 0.62),
        "brow": line if line == _CREAM else mix(style.line_colour, plain, 0.12),
        "line": line,
    }


@lru_cache
def colours_of_hair(style_name: str, hair: str) -> Mapping[str, Colour]:
    style = style_named(style_name)
    plain = style.tone(_HAIRS[hair])
    return {
        **_with_second("hair", plain, style),
        "hair shade": mix(plain, _LIGHT, 0.22) if hair == "black" else mix(plain, _SHADOW, 0.3),
        "hair light": mix(plain, _LIGHT, 0.25 if hair == "black" else 0.42),
    }


@lru_cache
def colours_of_hat(style_name: str, hat_colour: str) -> Mapping[str, Colour]:
    style = style_named(style_name)
    plain = style.tone(_HATS[hat_colour])
    return {
        **_with_second("hat", plain, style),
        **_with_second("hat shade", mix(plain, _SHADOW, 0.24), style),
        **_with_second("hat light", mix(plain, _LIGHT, 0.28), style),
        **_with_second("hat dark", mix(plain, _SHADOW, 0.42), style),
        "band": style.tone((50, 38, 54)),
    }


@lru_cache
def colours_of_clothes(style_name: str, clothes: str) -> Mapping[str, Colour]:
    style = style_named(style_name)
    plain = style.tone(_CLOTHES[clothes])
    return {
        **_with_second("clothes", plain, style),
        "clothes shade": mix(plain, _LIGHT, 0.12) if clothes == "black" else mix(plain, _SHADOW, 0.18),
        **_with_second("collar", style.tone(_COLLARS[clothes]), style),
    }


@lru_cache
def colours_of_style(style_name: str) -> Mapping[str, Colour]:
    """The roles that no attribute changes."""
    style = style_named(style_name)
    white = style.tone((255, 255, 255))
    return {
        "edge": style.edge_colour,
        **_with_second("white", white, style),
        "pupil": (30, 24, 36),
        **_with_second("mouth", style.tone((132, 26, 44)), style),
        "tongue": style.tone((240, 110, 120)),
        "round frame": style.tone((150, 84, 10)),
        "square frame": (26, 24, 34),
        **_with_second("dark frame", (30, 28, 40), style),
        "shine": (150, 170, 200),
        "jewel": style.tone((240, 248, 255)),
        **_with_second("pompom", style.tone((255, 252, 244)), style),
    }


def _with_second(role: str, colour: Colour, style: Style) -> dict[str, Colour]:
    return {role: colour, f"{role} 2": style.second(colour)}
