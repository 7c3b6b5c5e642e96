"""Hair, whose cut shows below every hat: at the temples, at the sides, on the shoulders."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from fusain.worlds.caricature_parts.curves import Points, ellipse, grown, mirrored, points, smooth, stroke
from fusain.worlds.caricature_parts.heads import half_width, outline
from fusain.worlds.caricature_parts.shapes import Part, Shape, form, lock, mark, shade

_NOTHING: Final[Part] = ()
_PRESSED_DOWN: Final = 1.6


@lru_cache
def hair_behind(cut: str, shape: str, under_hat: bool, roomy_side: int) -> Part:
    """What lies behind the head; on the roomy side (-1 left, 1 right) there is more of the picture left."""
    if cut == "long":
        return _curtain(shape, under_hat)
    if cut == "curly":
        return _cloud(shape, under_hat)
    if cut == "spiky":
        return _rays(shape, under_hat)
    if cut == "bun":
        return _bun(shape, roomy_side if under_hat else 0)
    return _tufts(shape) if cut == "short" and under_hat else _NOTHING


@lru_cache
def hair_before(cut: str, shape: str, under_hat: bool) -> Part:
    """What lies on the head."""
    if cut == "bald":
        return _NOTHING if under_hat else (mark(ellipse(-5.5, -13.5, 3.4, 1.5, -0.5), "skin light"),)
    side, hairline = _hairline(cut, shape)
    if under_hat:
        hairline = hairline + points((0.0, _PRESSED_DOWN))
    cap = (lock if cut == "curly" else form)(_cap(shape, side, hairline), "hair")
    if under_hat:
        return (cap, *_fringe_curls(cut, shape, under_hat))
    return (cap, _gloss(cut), *_fringe_curls(cut, shape, under_hat))


def _hairline(cut: str, shape: str) -> tuple[float, Points]:
    """How far down the sides the hair goes, and its lower edge from right to left."""
    wide = half_width(shape, -8)
    if cut == "short":
        fringe = ((wide - 2.2, -1.5), (wide - 2.8, -7.5), (wide - 8, -10.5), (-2, -9), (-wide + 6, -12.5))
        return -0.5, smooth(points(*fringe, (-wide + 2.6, -8), (-wide + 2.2, -1.5)), closed=False)
    if cut == "long":
        parting = ((wide - 1.2, 5), (wide - 2.6, -3), (wide - 7.5, -9.5), (0, -15), (-wide + 7.5, -9.5))
        return 6.0, smooth(points(*parting, (-wide + 2.6, -3), (-wide + 1.2, 5)), closed=False)
    if cut == "spiky":
        teeth = ((1.0, -3), (0.86, -10), (0.62, -6.8), (0.42, -11), (0.14, -7), (-0.1, -11), (-0.4, -7), (-0.6, -11))
        zigzag = [(share * wide, down) for share, down in (*teeth, (-0.84, -7.2), (-0.9, -10), (-1.0, -3))]
        return -3.0, points(*zigzag)
    combed = ((wide - 1.0, -2), (wide - 3.0, -9), (wide * 0.5, -12.6), (0, -13.4), (-wide * 0.5, -12.6))
    return -2.0, smooth(points(*combed, (-wide + 3.0, -9), (-wide + 1.0, -2)), closed=False)


def _cap(shape: str, side: float, hairline: Points) -> Points:
    """The area between the top of the head, made a little larger, and the hairline."""
    edge = grown(outline(shape), 1.5)
    top = edge[edge[:, 1] < side]
    order = np.argsort(np.arctan2(top[:, 0], -top[:, 1]))
    return np.vstack([top[order], hairline])


def _gloss(cut: str) -> Shape:
    """A band of light on the hair."""
    if cut == "spiky":
        return shade(stroke(points((-8, -13), (-3, -15.5)), 1.8), "hair light")
    line = smooth(((-12, -12.5), (-8.5, -16), (-4, -17.6)), closed=False)
    return shade(stroke(line, 1.9, 0.6), "hair light")


def _fringe_curls(cut: str, shape: str, under_hat: bool) -> Part:
    if cut != "curly":
        return _NOTHING
    wide = half_width(shape, -10) - 2.5
    shares = (-1.0, -0.5, 0.0, 0.5, 1.0)
    curls = [ellipse(share * wide, -10.5 - 2.5 * (1 - share**2), 4.2, 3.8) for share in shares]
    if not under_hat:
        curls += [
            ellipse(share * wide * 0.9, -17.5 - 3.0 * (1 - share**2), 4.8, 4.4) for share in (-0.8, 0.8, -0.3, 0.3)
        ]
    return tuple(lock(curl, "hair") for curl in curls) + _curl_lights(wide)


def _curl_lights(wide: float) -> Part:
    return tuple(
        mark(ellipse(share * wide - 1, -12.2 - 2.5 * (1 - share**2), 1.3, 0.9), "hair light") for share in (-0.5, 0.5)
    )


def _curtain(shape: str, under_hat: bool) -> Part:
    """Two falls of hair to the shoulders."""
    wide = max(half_width(shape, -6), 15.5)
    top = -14.0 if under_hat else -21.5
    right = ((0, top), (wide * 0.75, top + 2), (wide + 2.5, -8), (wide + 3.6, 6), (wide + 5, 20), (wide + 4, 26.5))
    inner = ((wide - 2, 28), (wide - 8, 26), (wide - 9.5, 18), (0, 12))
    half = np.asarray((*right, *inner), dtype=np.float64)
    curve = smooth(np.vstack([half, mirrored(half[1:-1])]))
    strand = stroke(smooth(((wide + 0.2, 8), (wide + 1.5, 16), (wide + 0.6, 24)), closed=False), 1.5, 0.7)
    return (form(curve, "hair"), shade(strand, "hair shade"), shade(mirrored(strand), "hair shade"))


def _cloud(shape: str, under_hat: bool) -> Part:
    """Curls standing out all around, or at the sides below a hat."""
    wide = half_width(shape, -6) + 1.0
    sides = [
        ellipse(side * (wide + out), down, 5.4, 5.0)
        for down, out in ((6, 0.2), (-1, 2.2), (-8, 2.4))
        for side in (-1, 1)
    ]
    below_ear = half_width(shape, 11) + 2.6
    sides += [ellipse(side * below_ear, 11.5, 5.2, 4.8) for side in (-1, 1)]
    if not under_hat:
        crown = ((0.95, -15), (0.62, -20.5), (0.22, -23.2))
        sides += [ellipse(side * share * wide, down, 5.8, 5.4) for share, down in crown for side in (-1, 1)]
    return tuple(lock(curl, "hair") for curl in sides)


def _rays(shape: str, under_hat: bool) -> Part:
    """A star of spikes around the upper head, or at the sides, above and below the ears, where there is a hat."""
    edge = outline(shape)
    if under_hat:
        wide, jaw = half_width(shape, -8), half_width(shape, 10)
        above_ear = ((wide - 5, -14), (wide + 9.5, -14.5), (wide + 2.8, -9), (wide + 9, -6), (wide - 2, 4))
        below_ear = ((jaw + 1, 6), (jaw + 8.5, 10), (jaw + 2.5, 11.5), (jaw + 6, 17.5), (jaw - 4, 14))
        right = points(*above_ear, *below_ear)
        return (form(right, "hair"), form(mirrored(right), "hair"))
    angles = np.linspace(-1.95, 1.95, 17)
    reach = np.where(np.arange(17) % 2 == 0, 1.04, 1.5)
    reach[[1, 15]] = 1.42
    turned = np.arctan2(edge[:, 0], -edge[:, 1])
    order = np.argsort(turned)
    radius = np.interp(angles, turned[order], np.hypot(edge[order, 0], edge[order, 1]), period=2 * np.pi)
    spikes = np.stack([np.sin(angles) * radius * reach, -np.cos(angles) * radius * reach], 1)
    spikes[:, 1] = np.maximum(spikes[:, 1], -28.5)
    return (form(spikes, "hair"),)


def _tufts(shape: str) -> Part:
    """What a hat leaves of short hair, enough to show its colour."""
    tuft = ellipse(half_width(shape, -6) + 0.8, -7.5, 4.2, 6.4, 0.25)
    return (form(tuft, "hair"), form(mirrored(tuft), "hair"))


def _bun(shape: str, low_side: int) -> Part:
    """A knot on top, or low at one side where that is not 0."""
    if low_side:
        across, down = low_side * (half_width(shape, 10) + 4.2), 11.0
        return (form(ellipse(across, down, 6.2, 6.0), "hair"), shade(_coil(across, down), "hair shade"))
    return (form(ellipse(0, -24.0, 7.6, 6.4), "hair"), shade(_coil(0, -24.0), "hair shade"))


def _coil(across: float, down: float) -> Points:
    line = (
        (across - 2.8, down + 0.6),
        (across - 0.4, down - 2.4),
        (across + 2.6, down - 0.8),
        (across + 1.2, down + 1.8),
    )
    return stroke(smooth(line, closed=False), 1.5)
