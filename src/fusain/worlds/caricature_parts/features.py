"""Eyes, brows, nose, mouth, beard and glasses."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from fusain.worlds.caricature_parts.curves import (
    Points,
    box,
    ellipse,
    grown,
    mirrored,
    points,
    smooth,
    stroke,
    symmetrical,
)
from fusain.worlds.caricature_parts.heads import LAYOUTS, half_width, outline
from fusain.worlds.caricature_parts.shapes import Part, form, mark

_EYE_RADIUS: Final = {"round": 3.7, "sleepy": 3.9, "wide": 5.2}
_BROW_DOWN: Final = {"round": -7.4, "sleepy": -6.6, "wide": -8.4, "closed": -6.6, "": -8.0}


@lru_cache
def eyes(kind: str, shape: str, gaze: float) -> Part:
    layout = LAYOUTS[shape]
    parts: list[Part] = []
    for side in (-1, 1):
        across, down = side * layout.eye_across, layout.eye_down
        parts.append(_closed_eye(across, down) if kind == "closed" else _open_eye(kind, across, down, gaze))
    return sum(parts, ())


def _open_eye(kind: str, across: float, down: float, gaze: float) -> Part:
    radius = _EYE_RADIUS[kind]
    ball = ellipse(across, down, radius, radius)
    if kind == "sleepy":
        lid = ball[ball[:, 1] <= down + 0.4]
        lid = lid[np.argsort(lid[:, 0])]
        pupil = mark(ellipse(across + gaze, down + 1.5, 1.7, 1.6), "pupil")
        edge = stroke(points((across - radius - 0.7, down + 0.3), (across + radius + 0.7, down + 0.3)), 1.5)
        return (form(ball, "white"), pupil, mark(grown(lid, 0.3), "lid"), mark(edge, "line"))
    size = 1.55 if kind == "wide" else 2.2
    pupil = mark(ellipse(across + gaze, down, size, size), "pupil")
    if kind == "wide":
        return (form(ball, "white"), pupil)
    glint = mark(ellipse(across + gaze - 0.7, down - 0.8, 0.7, 0.7), "white")
    return (form(ball, "white"), pupil, glint)


def _closed_eye(across: float, down: float) -> Part:
    lash = smooth(((across - 4.2, down - 0.4), (across, down + 2.8), (across + 4.2, down - 0.4)), closed=False)
    return (mark(ellipse(across, down - 0.2, 4.2, 3.2), "lid"), mark(stroke(lash, 1.9, 0.3), "line"))


@lru_cache
def brows(eye: str, shape: str, mouth: str) -> Part:
    """Brows that take part in the mood; they keep their height where no eye is seen (an empty `eye`)."""
    layout = LAYOUTS[shape]
    down = layout.eye_down + _BROW_DOWN[eye]
    lean = {"frown": 1.5, "smile": -0.9, "open": -1.2, "flat": 0.0}[mouth]
    across = layout.eye_across
    line = smooth(((across - 3.6, down + lean), (across, down - 0.7), (across + 3.6, down - lean)), closed=False)
    right = stroke(line, 1.7, 0.3)
    return (mark(right, "brow"), mark(mirrored(right), "brow"))


@lru_cache
def nose(kind: str, shape: str, large: bool) -> Part:
    down = LAYOUTS[shape].nose_down
    size = 1.0 if not large else 1.1 if kind == "big" else 1.25  # a big one hides the eyes else

    def sized(area: Points) -> Points:
        around = np.asarray([0.0, down - 1.0])
        grown_area: Points = (area - around) * size + around
        return grown_area

    if kind == "small":
        return (mark(sized(ellipse(0, down + 0.6, 2.3, 1.7)), "nose"),)
    if kind == "big":
        wings = tuple(form(sized(ellipse(side * 5.3, down + 0.9, 2.8, 2.4)), "nose") for side in (-1, 1))
        shadow = mark(sized(ellipse(0.6, down + 2.4, 6.7, 3.6)), "skin shade")
        shine = mark(sized(ellipse(-1.9, down - 2.6, 1.7, 1.4)), "nose light")
        return (shadow, *wings, form(sized(ellipse(0, down - 0.7, 6.0, 5.5)), "nose"), shine)
    blade = points((-0.8, down - 7.0), (1.0, down - 7.0), (9.6, down + 1.4), (8.8, down + 2.6), (-2.4, down + 2.4))
    under = points((-1.4, down + 0.2), (9.6, down + 1.4), (8.8, down + 2.6), (-2.4, down + 2.4))
    return (form(sized(blade), "nose"), mark(sized(under), "nose shade"))


@lru_cache
def mouth(kind: str, shape: str) -> Part:
    down = LAYOUTS[shape].mouth_down + 0.3
    if kind == "open":
        edge = smooth(
            symmetrical(((0, down - 2.2), (5.6, down - 2.8), (6.6, down - 1.2), (4.2, down + 3.6), (0, down + 4.8)))
        )
        teeth = box(-5.0, down - 2.4, 5.0, down - 0.2, 0.8)
        return (form(edge, "mouth"), mark(ellipse(0, down + 3.0, 3.2, 1.6), "tongue"), mark(teeth, "white"))
    if kind == "flat":
        return (mark(stroke(points((-5.8, down), (0, down), (5.8, down)), 2.2), "line"),)
    bend = 3.4 if kind == "smile" else -3.2
    middle = down + 0.7
    line = smooth(((-7.2, middle - bend / 2), (0, middle + bend / 2), (7.2, middle - bend / 2)), closed=False)
    curve = mark(stroke(line, 2.2), "line")
    if kind == "frown":
        return (curve,)
    dimple = stroke(points((6.0, middle - 2.6), (8.2, middle - 1.2)), 1.6)
    return (curve, mark(dimple, "line"), mark(mirrored(dimple), "line"))


@lru_cache
def beard_below_mouth(kind: str, shape: str) -> Part:
    layout = LAYOUTS[shape]
    down, chin = layout.mouth_down, layout.chin_down
    if kind == "goatee":
        half = ((0, down + 4.6), (4.4, down + 4.2), (5.6, down + 6.6), (4.4, chin + 1.5), (0, chin + 5.0))
        return (form(smooth(symmetrical(half)), "hair"),)
    if kind != "full":
        return ()
    edge = grown(outline(shape), 1.8)
    jaw = edge[(edge[:, 1] > 1.5) & (edge[:, 0] >= 0)]
    jaw = jaw[np.argsort(jaw[:, 1])]
    jaw[:, 1] += np.clip((jaw[:, 1] - down) / (chin - down), 0, 1) * 2.2
    wide = half_width(shape, 2.0)
    inner = smooth(
        ((0, down - 5.6), (6, down - 6.0), (9.5, down - 4.0), (wide - 2.6, 3.5), (wide - 0.6, 1.5)), closed=False
    )
    lips = ellipse(0, down + 0.7, 8.6, 4.4)
    return (form(symmetrical(np.vstack([inner, jaw])), "hair"), mark(lips, "skin"))


@lru_cache
def moustache(kind: str, shape: str) -> Part:
    if kind != "moustache":
        return ()
    down = LAYOUTS[shape].mouth_down
    right = ((0, -4.0), (3.6, -5.8), (8.0, -4.6), (11.8, -5.0), (9.8, -1.6), (4.0, -1.3), (0, -2.4))
    lobes = smooth(symmetrical(points(*right))) + points((0.0, down))
    return (form(lobes, "hair"),)


@lru_cache
def lenses(kind: str, shape: str) -> Part:
    """The glass of clear glasses, below the eyes."""
    if kind not in ("round", "square"):
        return ()
    return tuple(mark(_rim(kind, shape, side, 0.0), "lens") for side in (-1, 1))


@lru_cache
def frames(kind: str, shape: str) -> Part:
    if kind == "none":
        return ()
    layout = LAYOUTS[shape]
    across, down, wide = layout.eye_across, layout.eye_down, half_width(shape, layout.eye_down)
    bridge = mark(stroke(points((-1.6, down - 1.2), (1.6, down - 1.2)), 1.9), f"{kind} frame")
    temple = stroke(points((across + 5.6, down - 1.2), (wide, down - 1.8)), 1.9)
    arms = (bridge, mark(temple, f"{kind} frame"), mark(mirrored(temple), f"{kind} frame"))
    if kind == "dark":
        rims = [form(_rim(kind, shape, side, 0.9), "dark frame") for side in (-1, 1)]
        shine = [
            mark(stroke(points((side * across - 2.6, down + 1.2), (side * across + 0.4, down - 2.2)), 1.5), "shine")
            for side in (-1, 1)
        ]
        return (*arms, *rims, *shine)
    return (*arms, *(mark(_ring(_rim(kind, shape, side, 0.0)), f"{kind} frame") for side in (-1, 1)))


def _rim(kind: str, shape: str, side: int, grow: float) -> Points:
    layout = LAYOUTS[shape]
    across, down = layout.eye_across, layout.eye_down
    if kind == "round":
        return ellipse(side * across, down, 5.9 + grow, 5.9 + grow)
    half = 5.9
    if kind == "square":
        return box(side * across - half, down - 5.0, side * across + half, down + 5.2, 0.6)
    top = ((across - 5.6, down - 3.8), (across, down - 4.4), (across + 6.4, down - 4.0))
    right = smooth((*top, (across + 5.6, down + 2.4), (across + 1.0, down + 5.0), (across - 4.4, down + 2.6)))
    return right if side > 0 else mirrored(right)


def _ring(edge: Points) -> Points:
    """The rim as an area: once around outside, once back inside."""
    outer, inner = grown(edge, 1.0), grown(edge, -1.0)
    return np.vstack([outer, outer[:1], inner[:1], inner[::-1]])
