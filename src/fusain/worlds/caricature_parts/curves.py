"""Outlines as lists of points: smooth curves, strokes with round ends, offsets and hatching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Pairs = Sequence[tuple[float, float]]

_STEPS: Final = 8
_CAP_STEPS: Final = 7
_SHARPEST: Final = 0.35
_LIGHT: Final = np.asarray([-0.45, -0.9])


def points(*pairs: tuple[float, float]) -> Points:
    return np.asarray(pairs, dtype=np.float64)


def smooth(pairs: Pairs | Points, closed: bool = True) -> Points:
    """A Catmull-Rom curve through the points."""
    knots = np.asarray(pairs, dtype=np.float64)
    if closed:
        before, after = _previous(knots), _next(knots)
        beyond = _next(after)
    else:
        whole = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
        before, knots, after, beyond = whole[:-3], whole[1:-2], whole[2:-1], whole[3:]
    share = (np.arange(_STEPS) / _STEPS)[None, :, None]
    before, start, after, beyond = (part[:, None] for part in (before, knots, after, beyond))
    curve = 0.5 * (
        2 * start
        + (after - before) * share
        + (2 * before - 5 * start + 4 * after - beyond) * share**2
        + (3 * start - before - 3 * after + beyond) * share**3
    )
    flat: Points = curve.reshape(-1, 2)
    return flat if closed else np.vstack([flat, after[-1]])


def ellipse(across: float, down: float, wide: float, high: float, turn: float = 0.0) -> Points:
    """An ellipse by its centre, its half width and its half height, turned by an angle in radians."""
    angle = np.linspace(0.0, 2 * np.pi, 32, endpoint=False)
    flat = np.stack([wide * np.cos(angle), high * np.sin(angle)], 1)
    cosine, sine = np.cos(turn), np.sin(turn)
    turned: Points = flat @ np.asarray([[cosine, sine], [-sine, cosine]]) + (across, down)
    return turned


def box(left: float, top: float, right: float, bottom: float, corner: float) -> Points:
    """A rectangle with round corners."""
    turns = np.linspace(0.0, np.pi / 2, _CAP_STEPS)
    arc = np.stack([np.cos(turns), np.sin(turns)], 1) * corner
    places = ((right, bottom, 1, 1), (left, bottom, -1, 1), (left, top, -1, -1), (right, top, 1, -1))
    corners = [
        (arc if right_way * down_way > 0 else arc[::-1]) * (right_way, down_way)
        + (across - right_way * corner, down - down_way * corner)
        for across, down, right_way, down_way in places
    ]
    return np.vstack(corners)


def mirrored(curve: Points) -> Points:
    """The curve on the other side of the face, in the same direction of turning."""
    other: Points = curve[::-1] * (-1.0, 1.0)
    return other


def symmetrical(right: Pairs | Points) -> Points:
    """A closed outline from its right half, from top to bottom."""
    half = np.asarray(right, dtype=np.float64)
    left = half[::-1] * (-1.0, 1.0)
    return np.vstack([half, left[np.abs(left[:, 0]) > 1e-6]])


def normals(curve: Points) -> Points:
    """Outward vectors at the corners of a closed curve, longer at sharp corners so that an offset keeps its width."""
    following = _next(curve)
    along = following - curve
    length = np.hypot(along[:, 0], along[:, 1])
    along = along / np.maximum(length, 1e-9)[:, None]
    area = float(np.sum(curve[:, 0] * following[:, 1] - following[:, 0] * curve[:, 1]))
    edge = np.stack([along[:, 1], -along[:, 0]], 1) * (1.0 if area > 0 else -1.0)
    previous = _previous(edge)
    sharpness = np.maximum(1.0 + np.sum(edge * previous, 1), 2 * _SHARPEST)
    outward: Points = (edge + previous) / sharpness[:, None]
    return outward


def grown(curve: Points, width: float, unevenness: float = 0.0) -> Points:
    """A closed curve moved outward by `width`, more on its shadow side where uneven."""
    clean = curve[np.any(np.abs(curve - _previous(curve)) > 1e-6, axis=1)]
    outward = normals(clean)
    amount = width * (1.0 - unevenness * np.clip(outward @ _LIGHT, -1.0, 1.0))
    moved: Points = clean + outward * amount[:, None]
    return moved


def stroke(line: Points, width: float, taper: float = 0.0) -> Points:
    """A line as an area: `width` wide with round ends, and thinner toward its ends by `taper` (0 to 1)."""
    along = np.gradient(line, axis=0)
    along = along / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    side = np.stack([-along[:, 1], along[:, 0]], 1)
    share = np.linspace(-1.0, 1.0, len(line))
    half = width / 2 * (1.0 - taper * share**2)
    turns = np.linspace(0.0, np.pi, _CAP_STEPS)[:, None]
    last = line[-1] + half[-1] * (np.cos(turns) * side[-1] + np.sin(turns) * along[-1])
    first = line[0] - half[0] * (np.cos(turns) * side[0] + np.sin(turns) * along[0])
    return np.vstack([line + side * half[:, None], last, (line - side * half[:, None])[::-1], first])


def _next(curve: Points) -> Points:
    # Several times faster than `np.roll` on lists as short as these.
    return np.concatenate((curve[1:], curve[:1]))


def _previous(curve: Points) -> Points:
    return np.concatenate((curve[-1:], curve[:-1]))


def hatching(area: Points, spacing: float, width: float, angle: float = 0.8) -> tuple[Points, ...]:
    """Parallel lines inside an area, each as a thin tapering area of its own."""
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.asarray([[cosine, -sine], [sine, cosine]])
    turned = area @ turn
    low, high = turned[:, 1].min(), turned[:, 1].max()
    lines = []
    for level in np.arange(np.ceil(low / spacing) * spacing, high, spacing):
        ends = _crossings(turned, float(level))
        for start, end in zip(ends[::2], ends[1::2], strict=False):
            if end - start > 2 * width:
                middle = (start + end) / 2
                thin = points((start, level), (middle, level + width / 2), (end, level), (middle, level - width / 2))
                lines.append(np.asarray(thin @ turn.T))
    return tuple(lines)


def _crossings(area: Points, level: float) -> list[float]:
    """Where a horizontal line meets the outline, from left to right."""
    following = _next(area)
    crosses = (area[:, 1] <= level) != (following[:, 1] <= level)
    start, end = area[crosses], following[crosses]
    share = (level - start[:, 1]) / (end[:, 1] - start[:, 1])
    crossings: list[float] = np.sort(start[:, 0] + share * (end[:, 0] - start[:, 0])).tolist()
    return crossings
