"""What lies behind the figure: plain colour, washed paper, brush work, a board, or panes of glass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from fusain.worlds.caricature_parts.curves import Points, ellipse, points, smooth, stroke
from fusain.worlds.caricature_parts.palettes import GROUNDS
from fusain.worlds.caricature_parts.styles import PAPER, Colour, mix, saturated

_UNITS: Final = 64
_KEPT_SIDE: Final = 256
_BOARDS: Final[Mapping[str, Colour]] = {
    "white": (104, 108, 114),
    "blue": (34, 58, 112),
    "pink": (128, 48, 84),
    "yellow": (136, 106, 18),
    "green": (26, 84, 56),
    "purple": (78, 46, 118),
}
_BLACK_LEAD: Final[Colour] = (18, 16, 24)

Layers = list[tuple[Points, Colour]]


def ground(style: str, background: str, side: int) -> Image.Image:
    """A picture of `side` pixels that may be drawn on."""
    if side <= _KEPT_SIDE:
        return _kept_ground(style, background, side).copy()
    return _painted(style, background, side)


@lru_cache(maxsize=64)
def _kept_ground(style: str, background: str, side: int) -> Image.Image:
    return _painted(style, background, side)


def _painted(style: str, background: str, side: int) -> Image.Image:
    base, layers = _PAINTERS[style](background)
    image = Image.new("RGB", (side, side), base)
    brush = ImageDraw.Draw(image)
    for area, colour in layers:
        brush.polygon((area * (side / _UNITS)).ravel().tolist(), fill=colour)
    return image


def _flat(background: str) -> tuple[Colour, Layers]:
    return GROUNDS[background], []


def _ink(background: str) -> tuple[Colour, Layers]:
    """A wash that leaves a rim of paper and dries darker at its edge."""
    wash = mix(saturated(GROUNDS[background], 1.1), PAPER, 0.12) if background != "white" else PAPER
    if background == "white":
        return PAPER, []
    angle = np.linspace(0.0, 2 * np.pi, 26, endpoint=False)
    reach = 31.0 + 1.6 * np.sin(angle * 3 + 0.5) + 0.9 * np.sin(angle * 7)
    square = np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle))) ** 0.8
    rim = np.stack([32 + reach * np.cos(angle) / square, 32 + reach * np.sin(angle) / square], 1)
    outer, inner = smooth(rim), smooth((rim - 32) * 0.965 + 32)
    return PAPER, [(outer, mix(wash, (60, 50, 90), 0.16)), (inner, wash)]


def _caricature(background: str) -> tuple[Colour, Layers]:
    """Broad strokes of a lighter paint."""
    base = saturated(GROUNDS[background], 1.35, 0.97) if background != "white" else GROUNDS["white"]
    light = mix(base, (255, 255, 255), 0.30) if background != "white" else mix(base, (120, 120, 140), 0.10)
    lines = (((4, 20), (26, 6), (50, 4)), ((4, 38), (30, 20), (60, 12)), ((6, 56), (34, 38), (60, 28)))
    return base, [(stroke(smooth(line, closed=False), 7.0, 0.5), light) for line in lines]


def _chalk(background: str) -> tuple[Colour, Layers]:
    """A board with the traces of a sponge."""
    base = _BOARDS[background]
    layers: Layers = []
    for across, down, wide, high, share in ((18, 14, 26, 12, 0.05), (48, 30, 24, 14, 0.07), (14, 50, 22, 9, 0.06)):
        layers.append((ellipse(across, down, wide, high, -0.5), mix(base, (255, 255, 255), share)))
    return base, layers


def _glass(background: str) -> tuple[Colour, Layers]:
    """A round window: panes that fan out from the middle, with lead between and around them."""
    base = saturated(GROUNDS[background], 1.35)
    tones = (mix(base, (255, 255, 255), 0.25), base, mix(base, (40, 20, 80), 0.14))
    layers: Layers = [(ellipse(32, 32, 33.5, 33.5), _BLACK_LEAD)]
    angles = np.linspace(0.0, 2 * np.pi, 13) + 0.25
    for number, (start, end) in enumerate(pairwise(angles.tolist())):
        layers.append((_wedge(start, end), tones[number % 3]))
    for angle in angles[:-1].tolist():
        layers.append((stroke(points((32, 34), _on_circle(angle, 32.0)), 1.2), _BLACK_LEAD))
    return mix(base, (30, 10, 60), 0.55), layers


def _on_circle(angle: float, radius: float) -> tuple[float, float]:
    return 32 + radius * float(np.cos(angle)), 32 + radius * float(np.sin(angle))


def _wedge(start: float, end: float) -> Points:
    return points((32.0, 32.0), *(_on_circle(angle, 31.8) for angle in np.linspace(start, end, 5).tolist()))


_PAINTERS: Final[Mapping[str, Callable[[str], tuple[Colour, Layers]]]] = {
    "flat": _flat,
    "ink": _ink,
    "caricature": _caricature,
    "chalk": _chalk,
    "glass": _glass,
}
