"""Colour ramps shared by every class, so that no class can be told by its colours alone."""

from __future__ import annotations

import colorsys
import math
from typing import Final

import numpy as np
import numpy.typing as npt

Ramp = npt.NDArray[np.uint8]

INK, SHADOW, DUSK, MIDDLE, LIGHT, GLINT = range(6)
TONES: Final = 6

_HUE_SATURATION_VALUE: Final[dict[str, tuple[float, float, float]]] = {
    "crimson": (0.975, 0.78, 0.74),
    "scarlet": (0.010, 0.76, 0.89),
    "orange": (0.065, 0.78, 0.94),
    "amber": (0.105, 0.76, 0.95),
    "gold": (0.130, 0.68, 0.93),
    "lemon": (0.150, 0.58, 0.97),
    "lime": (0.230, 0.62, 0.82),
    "leaf": (0.310, 0.58, 0.68),
    "forest": (0.390, 0.60, 0.52),
    "teal": (0.470, 0.62, 0.66),
    "aqua": (0.500, 0.48, 0.87),
    "sky": (0.555, 0.48, 0.93),
    "azure": (0.590, 0.66, 0.86),
    "navy": (0.625, 0.62, 0.56),
    "indigo": (0.690, 0.54, 0.70),
    "violet": (0.760, 0.54, 0.76),
    "magenta": (0.850, 0.56, 0.80),
    "pink": (0.930, 0.40, 0.95),
    "rose": (0.960, 0.58, 0.90),
    "umber": (0.060, 0.62, 0.46),
    "brown": (0.065, 0.58, 0.62),
    "tan": (0.085, 0.46, 0.80),
    "cream": (0.110, 0.26, 0.95),
    "bone": (0.120, 0.12, 0.92),
    "steel": (0.580, 0.14, 0.76),
    "slate": (0.620, 0.22, 0.54),
    "coal": (0.680, 0.26, 0.34),
    "snow": (0.580, 0.06, 0.96),
    "porcelain": (0.065, 0.28, 0.98),
    "peach": (0.070, 0.38, 0.94),
    "olive": (0.075, 0.46, 0.80),
    "sienna": (0.060, 0.50, 0.64),
    "cocoa": (0.050, 0.52, 0.46),
}
# Hue shift, saturation and value of each tone: shadows lean to blue and lights to yellow, as painters do.
_TONES: Final = (
    (0.055, 1.10, 0.34),
    (0.040, 1.10, 0.62),
    (0.018, 1.05, 0.82),
    (0.000, 1.00, 1.00),
    (-0.016, 0.80, 1.14),
    (-0.030, 0.36, 1.40),
)
_VARIANTS: Final = 16
_COOL_HUE: Final = 0.68

FAMILIES: Final = tuple(_HUE_SATURATION_VALUE)


def _towards_cool(hue: float, amount: float) -> float:
    distance = (_COOL_HUE - hue + 0.5) % 1.0 - 0.5
    step = math.copysign(min(abs(amount), abs(distance)), amount * distance)
    return (hue + step) % 1.0


def _ramp(hue: float, saturation: float, value: float) -> list[list[float]]:
    tones = []
    for shift, saturation_share, value_share in _TONES:
        tone_value = min(value * value_share + (0.06 if value_share < 1.0 else 0.0), 1.0)
        tones.append(
            list(colorsys.hsv_to_rgb(_towards_cool(hue, shift), min(saturation * saturation_share, 1.0), tone_value))
        )
    return tones


def _all_ramps() -> Ramp:
    """Families x variants x tones x RGB; the variants walk the golden ratio so that none look alike."""
    ramps = np.zeros((len(FAMILIES), _VARIANTS, TONES, 3))
    for family, (hue, saturation, value) in enumerate(_HUE_SATURATION_VALUE.values()):
        for variant in range(_VARIANTS):
            first, second, third = (((variant + 1) * ratio) % 1.0 - 0.5 for ratio in (0.8192, 0.6710, 0.5497))
            ramps[family, variant] = _ramp(
                (hue + 0.030 * first) % 1.0,
                min(saturation * (1.0 + 0.20 * second), 1.0),
                min(value * (1.0 + 0.16 * third), 1.0),
            )
    return np.round(ramps * 255.0).astype(np.uint8)


_RAMPS: Final = _all_ramps()
_INDEX: Final = {family: index for index, family in enumerate(FAMILIES)}


def ramp(family: str, variant_share: float) -> Ramp:
    """One of the variants of a colour family; `variant_share` in [0, 1) says which."""
    tones: Ramp = _RAMPS[_INDEX[family], int(variant_share * _VARIANTS)]
    return tones


LEAVES: Final = ("lime", "leaf", "leaf", "forest", "forest", "teal", "aqua")
EARTH: Final = ("umber", "brown", "tan", "sienna")
METAL: Final = ("steel", "slate", "bone", "gold")
CLOTH: Final = (
    *("crimson", "scarlet", "orange", "amber", "lime", "leaf", "forest", "teal", "aqua", "azure", "navy"),
    *("indigo", "violet", "magenta", "rose", "brown", "cream", "slate", "snow", "coal"),
)
VIVID: Final = (
    *("crimson", "scarlet", "orange", "amber", "gold", "lime", "leaf", "teal", "aqua", "sky", "azure"),
    *("indigo", "violet", "magenta", "pink", "rose"),
)
SKIN: Final = ("porcelain", "peach", "peach", "olive", "sienna", "cocoa")
HAIR: Final = (
    "umber",
    "brown",
    "amber",
    "gold",
    "cream",
    "coal",
    "scarlet",
    "orange",
    "steel",
    "pink",
    "azure",
    "leaf",
)
