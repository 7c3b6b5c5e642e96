"""The head and what carries it, in units of a 64th of the picture around the middle of the head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from fusain.worlds.caricature_parts.curves import Pairs, Points, ellipse, mirrored, points, smooth, stroke, symmetrical
from fusain.worlds.caricature_parts.shapes import Part, form, mark, shade


@dataclass(frozen=True)
class Layout:
    """The right half of a head's outline and where the features sit on it."""

    profile: Pairs
    eye_across: float
    eye_down: float
    nose_down: float
    mouth_down: float
    chin_down: float


LAYOUTS: Final[Mapping[str, Layout]] = {
    "round": Layout(
        ((0, -19), (9.5, -17.5), (16.5, -10), (18.2, 0), (16, 10), (9.5, 17.5), (0, 19.7)), 7.2, -1.0, 4.5, 11.8, 19.7
    ),
    "long": Layout(
        ((0, -20.5), (7.5, -19.5), (12.6, -14), (13.4, -2), (12.6, 11), (8.2, 20.5), (0, 23.5)),
        *(6.3, -2.0, 5.5, 13.8, 23.5),
    ),
    "square": Layout(
        ((0, -18.5), (12, -18.2), (16.4, -14), (16.8, 0), (16.8, 13), (14, 18.6), (7, 19.6), (0, 19.6)),
        *(7.2, -1.0, 4.5, 11.8, 19.6),
    ),
    "heart": Layout(
        ((0, -19.4), (10.5, -18.4), (18.0, -12.5), (19.0, -4), (14.8, 6), (7.6, 15.4), (2.2, 20.8), (0, 21.4)),
        *(7.2, -2.0, 4.2, 11.2, 21.4),
    ),
}

_EAR_DOWN: Final = 1.5


@lru_cache
def outline(shape: str) -> Points:
    return smooth(symmetrical(LAYOUTS[shape].profile))


def half_width(shape: str, down: float) -> float:
    """How far the head reaches to the right at a height."""
    right = outline(shape)
    right = right[right[:, 0] >= 0]
    right = right[np.argsort(right[:, 1])]
    return float(np.interp(down, right[:, 1], right[:, 0]))


@lru_cache
def head(shape: str) -> Part:
    edge = outline(shape)
    right = edge[(edge[:, 0] > 0.5) & (edge[:, 1] > -14)]
    right = right[np.argsort(right[:, 1])]
    inner = right * (0.8, 1.0) + (0.0, -1.2)
    return (form(edge, "skin"), shade(np.vstack([right, inner[::-1]]), "skin shade"))


@lru_cache
def blush(shape: str) -> Part:
    layout = LAYOUTS[shape]
    across, down = half_width(shape, layout.nose_down + 3) - 4.2, layout.nose_down + 2.6
    return tuple(mark(ellipse(side * across, down, 3.0, 2.1), "blush") for side in (-1, 1))


@lru_cache
def ears(kind: str, shape: str) -> Part:
    across = half_width(shape, _EAR_DOWN)
    if kind == "pointed":
        tip = across + 9.0
        right = smooth(
            ((across - 2, -3), (across + 2, -5.5), (tip, -12), (across + 5.5, -1), (across + 1.5, 4.5), (across - 2, 6))
        )
        inner = points((across, 2), (across + 2.0, -3.2), (across + 6.4, -8.6), (across + 3.0, 0))
    else:
        wide, high = (6.6, 7.4) if kind == "big" else (2.6, 3.4)
        middle = across + (3.4 if kind == "big" else 0.8)
        right = ellipse(middle, _EAR_DOWN, wide, high)
        inner = ellipse(middle + 0.6, _EAR_DOWN, wide * 0.55, high * 0.58)
    inside = [mark(inner, "nose")] if kind != "small" else []
    left = [mark(mirrored(shape_.area), "nose") for shape_ in inside]
    return (form(right, "skin"), *inside, form(mirrored(right), "skin"), *left)


@lru_cache
def neck(slim: bool) -> Part:
    half = 2.6 if slim else 5.6
    area = smooth(((-half, 10), (half, 10), (half, 20), (half + 1.5, 23), (0, 25.5), (-half - 1.5, 23), (-half, 20)))
    return (form(area, "skin"), shade(ellipse(0.6, 19.5, half * 0.95, 3.4), "skin shade"))


@lru_cache
def shirt(slim: bool) -> Part:
    reach = 16.5 if slim else 24.5
    right = ((0, 21.5), (5, 21.6), (reach * 0.58, 23.4), (reach * 0.9, 26.6), (reach, 32), (reach + 0.8, 40), (0, 42))
    area = smooth(symmetrical(right))
    shadow = smooth(
        (
            (reach * 0.72, 24.6),
            (reach * 0.9, 26.8),
            (reach, 32),
            (reach + 0.4, 38),
            (reach * 0.7, 38),
            (reach * 0.66, 30),
        )
    )
    return (form(area, "clothes"), shade(shadow, "clothes shade"))


@lru_cache
def collar(kind: str, slim: bool) -> Part:
    half = 4.4 if slim else 8.0
    if kind == "round":
        line = smooth(((-half, 21.6), (-half * 0.7, 25.2), (0, 27), (half * 0.7, 25.2), (half, 21.6)), closed=False)
        return (mark(stroke(line, 2.2), "collar"),)
    if kind == "flaps":
        right = points((1.0, 25.0), (half - 2.4, 20.6), (half + 1.6, 21.8), (half - 0.4, 29.5))
        return (form(right, "collar"), form(mirrored(right), "collar"))
    right = stroke(points((half - 0.6, 21.2), (half * 0.5, 25.0), (0, 30.0)), 2.2)
    inside = points((-half + 1.4, 21.8), (half - 1.4, 21.8), (0, 29.4))
    return (mark(inside, "skin"), mark(right, "collar"), mark(mirrored(right), "collar"))
