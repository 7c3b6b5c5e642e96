"""Spells as fields of heat: a shape is hottest at its heart, and its colours follow the heat from rim to core."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from fusain.worlds.dice import Dice
from fusain.worlds.sprite_parts.canvas import SIDE, Image, colour_table, render
from fusain.worlds.sprite_parts.palettes import DUSK, GLINT, LIGHT, MIDDLE, SHADOW, VIVID

Heat = npt.NDArray[np.float64]
Shape = Callable[[Dice], Heat]

_REACH: Final = 7.4
_Y, _X = (axis - (SIDE - 1) / 2 for axis in np.mgrid[0:SIDE, 0:SIDE].astype(np.float64))
_RADIUS: Final = np.hypot(_X, _Y)
_ANGLE: Final = np.arctan2(_Y, _X)
# A disc with a frame of one pixel for the outline, which leaves more than 26 pixels white whatever the shape.
_ROOM: Final = _RADIUS < 7.8
_ROOM[[0, -1], :] = _ROOM[:, [0, -1]] = False
# From cold to hot, step by step: the tones of the rim (material 1), then those of the core (material 2).
_TONES: Final = np.asarray([SHADOW, SHADOW, DUSK, MIDDLE, LIGHT, MIDDLE, LIGHT, GLINT, GLINT], dtype=np.uint8)
_MATERIALS: Final = np.asarray([0, 1, 1, 1, 1, 2, 2, 2, 2], dtype=np.uint8)
_STEPS: Final = 8


def draw_spell(dice: Dice) -> Image:
    shape = dice.pick(_SHAPES)
    heat = shape(dice)
    if shape not in _UPRIGHT:
        heat = np.rot90(heat, dice.below(4))
    if dice.chance(0.5):
        heat = heat[:, ::-1]
    # Rounded first, so that the last bit of a machine's cosine moves no pixel.
    steps = np.ceil(np.round(np.clip(heat, 0.0, 1.0) * _STEPS, 6)).astype(np.intp) * _ROOM
    rim = dice.pick(VIVID)
    core = dice.pick(VIVID) if dice.chance(0.6) else rim
    return render(_MATERIALS[steps], colour_table({"a": rim, "b": core}, dice), _TONES[steps])


def _disc(across: float, down: float, radius: float) -> Heat:
    heat: Heat = 1.0 - np.hypot(_X - across, _Y - down) / radius
    return heat


def _streak(start: tuple[float, float], end: tuple[float, float], start_width: float, end_width: float) -> Heat:
    """A stroke between two points (across, down) whose width goes from one to the other."""
    along = np.asarray([end[0] - start[0], end[1] - start[1]])
    length = max(float(along @ along), 1e-6)
    share = np.clip(((_X - start[0]) * along[0] + (_Y - start[1]) * along[1]) / length, 0.0, 1.0)
    distance = np.hypot(_X - start[0] - share * along[0], _Y - start[1] - share * along[1])
    heat: Heat = 1.0 - distance / (start_width + (end_width - start_width) * share)
    return heat


def _hottest(*heats: Heat) -> Heat:
    heat: Heat = np.maximum.reduce(heats)
    return heat


def _burst(points: int, turn: float, depth: float) -> Heat:
    """A star: the radius of its edge goes in and out `points` times a turn."""
    wave = np.abs(np.cos((_ANGLE + turn) * points / 2))
    heat: Heat = 1.0 - _RADIUS / (_REACH * (1.0 - depth + depth * wave**1.5))
    return heat


def _fireball(dice: Dice) -> Heat:
    radius = dice.between(4.6, 5.8)
    head = _disc(2.6, 2.6, radius)
    spread = dice.between(1.5, 3.5)
    tails = [
        _streak((2.0, 2.0), (-6.5, -6.5), 4.6, 0.8),
        _streak((1.0, 2.0), (-6.5, -6.5 + 2 * spread), 3.2, 0.6),
        _streak((2.0, 1.0), (-6.5 + 2 * spread, -6.5), 3.2, 0.6),
    ]
    return _hottest(head * 1.1, *(tail * 0.62 for tail in tails))


def _lightning(dice: Dice) -> Heat:
    turns = [(dice.between(-1.0, 4.5) * (1 if corner % 2 else -1), -6.5 + corner * 13.0 / 4) for corner in range(5)]
    width = dice.between(1.9, 2.5)
    strokes = [_streak(start, end, width, width * 0.9) for start, end in pairwise(turns)]
    branch = turns[1 + dice.below(3)]
    strokes.append(_streak(branch, (6.5 if branch[0] > 0 else -6.5, branch[1] + dice.between(-1.0, 4.0)), 1.7, 0.8))
    return _hottest(*strokes) * 1.05


def _shards(dice: Dice) -> Heat:
    count = 3 + dice.below(2)
    foot = (dice.between(-1.0, 1.0), 6.0)
    tips = [(-6.0 + 12.0 * place / (count - 1), dice.between(-6.5, -1.5)) for place in range(count)]
    return _hottest(*(_streak((foot[0] + tip[0] * 0.4, foot[1]), tip, dice.between(2.0, 2.9), 0.5) for tip in tips))


def _swirl(dice: Dice) -> Heat:
    arms, twist = 1 + dice.below(3), dice.between(0.45, 0.85)
    turn = dice.between(0.0, 6.28)
    wave = np.cos(arms * (_ANGLE + turn) - twist * _RADIUS * (1.3 if arms == 1 else 1.0))
    fading = np.clip(1.25 - _RADIUS / _REACH, 0.0, 1.0)
    return np.where(_RADIUS < _REACH, _hottest(wave * 0.75 + 0.25, _disc(0.0, 0.0, 3.5) * 1.4) * (0.35 + fading), 0.0)


def _beam(dice: Dice) -> Heat:
    width = dice.between(2.2, 3.4)
    beam = _streak((-5.5, -5.5), (5.5, 5.5), width * dice.between(0.4, 1.0), width)
    flare = _disc(4.4, 4.4, dice.between(3.0, 4.2))
    rings = [_streak((place - 2.6, place + 2.6), (place + 2.6, place - 2.6), 1.0, 1.0) * 0.6 for place in (-3.0, 0.2)]
    return _hottest(beam, flare, *rings[: dice.below(3)]) * 1.1


def _ring(dice: Dice) -> Heat:
    radius, width = dice.between(4.4, 5.6), dice.between(1.6, 2.3)
    ring = 1.0 - np.abs(_RADIUS - radius) / width
    gaps = 2 + dice.below(4)
    if dice.chance(0.5):
        ring = np.where(np.cos(gaps * _ANGLE + dice.between(0.0, 6.28)) > -0.7, ring, 0.0)
    heart = _disc(0.0, 0.0, dice.between(1.6, 3.2)) if dice.chance(0.6) else ring
    return _hottest(ring * 0.95, heart * 1.2)


def _star(dice: Dice) -> Heat:
    star = _burst(4 + dice.below(3), dice.between(0.0, 3.14), dice.between(0.5, 0.68))
    return star * 1.25


def _explosion(dice: Dice) -> Heat:
    points = 8 + dice.below(5)
    outer = _burst(points, dice.between(0.0, 3.14), dice.between(0.25, 0.38))
    hollow = dice.chance(0.3)
    heat = outer * 1.35
    return np.where(_RADIUS < 2.6, 0.12, heat) if hollow else heat


def _orb(dice: Dice) -> Heat:
    radius = dice.between(5.2, 7.0)
    orb = _disc(0.0, 0.0, radius)
    light = _disc(-radius * 0.32, -radius * 0.32, radius * 0.75) * 1.05
    band = 0.18 * np.cos(_Y * dice.between(0.9, 1.4) + np.sin(_X * 0.6) * 1.5 + dice.between(0.0, 6.28))
    return np.where(orb > 0.0, np.clip(_hottest(orb * 0.55 + 0.16, light) + band, 0.08, 1.0), 0.0)


def _slash(dice: Dice) -> Heat:
    moons = []
    for back, share in ((0.0, 1.0), (4.6, 0.75))[: 1 + dice.below(2)]:
        outer, inner = dice.between(7.6, 8.6), dice.between(7.0, 7.8)
        edge = _disc(-1.0 - back, -1.0 - back, outer) * outer
        hollow = -_disc(-3.6 - back, -3.6 - back, inner) * inner
        moons.append(np.minimum(edge, hollow) * share / 1.7)
    return _hottest(*moons)


def _claws(dice: Dice) -> Heat:
    gap, bow = dice.between(3.4, 4.2), dice.between(0.6, 2.0)
    cuts = []
    for place in (-gap, 0.0, gap):
        middle = (place * 0.7 + bow, -place * 0.7 + bow)
        cuts.append(_streak((place - 4.6 + abs(place) * 0.3, -place * 0.6 - 4.6), middle, 0.7, 1.9))
        cuts.append(_streak(middle, (place * 0.6 + 4.6, -place + 4.6 - abs(place) * 0.3), 1.9, 0.7))
    return _hottest(*cuts)


def _snowflake(dice: Dice) -> Heat:
    spokes = dice.pick((4, 6, 8))
    turn = dice.pick((0.0, np.pi / spokes))
    folded = np.abs((_ANGLE + turn) % (2 * np.pi / spokes) - np.pi / spokes)
    along, beside = _RADIUS * np.cos(folded), _RADIUS * np.sin(folded)
    spoke = np.where(along < _REACH, 1.0 - beside / dice.between(1.2, 1.6), 0.0)
    place = dice.between(3.6, 5.0)
    twig = np.where(beside < 2.6, 1.0 - np.abs(along - place + beside * 0.6) / 1.2, 0.0)
    return _hottest(spoke * 0.8, twig * 0.7, _disc(0.0, 0.0, 3.4) * 1.3)


def _shield(dice: Dice) -> Heat:
    width = dice.between(5.0, 6.4)
    edge = np.minimum(width - np.abs(_X), np.minimum(_Y + 6.6, 7.0 - _Y - np.abs(_X) * dice.between(0.55, 0.95)))
    rim = 1.0 - np.abs(edge - 0.9) / 1.5
    cross = _hottest(_streak((0, -3), (0, 3), 1.6, 1.6), _streak((-2.5, -1), (2.5, -1), 1.6, 1.6))
    sign = dice.pick((cross, _disc(0.0, -0.5, 3.0), _burst(4, 0.0, 0.6) * 1.2))
    return np.where(edge > 0.0, _hottest(rim * 0.8, sign, np.full_like(edge, 0.3)), 0.0)


def _tornado(dice: Dice) -> Heat:
    lean, phase = dice.between(-2.0, 2.0), dice.between(0.0, 6.28)
    half = 1.6 + (6.5 - _Y) * dice.between(0.30, 0.40)
    across = _X - np.sin(_Y * 0.55 + phase) * 0.9 - lean * _Y / 14
    bands = 0.5 + 0.5 * np.cos((_Y + across * 0.22) * 2.1 + phase)
    inside = (np.abs(across) < half) & (np.abs(_Y) < 6.8)
    return np.where(inside, 0.10 + bands * (0.95 - 0.4 * np.abs(across) / half), 0.0)


def _sparkles(dice: Dice) -> Heat:
    places = ((-2.8, -2.8, 4.6), (3.8, 1.2, 3.6), (-2.0, 4.6, 3.0), (4.6, -4.6, 2.6))
    heats = []
    for across, down, size in places:
        right, below = np.abs(_X - across - dice.between(-0.6, 0.6)), np.abs(_Y - down - dice.between(-0.6, 0.6))
        heats.append(1.15 - (right + below + 0.9 * np.sqrt(right * below)) / size)
    return _hottest(*heats)


def _comets(dice: Dice) -> Heat:
    lean = dice.between(2.0, 3.4)
    heats = []
    for across, down in ((-2.6, 4.2), (3.8, 3.0), (0.8, -1.2)):
        at = (across + dice.between(-0.6, 0.6), down + dice.between(-0.6, 0.6))
        heats.append(_disc(at[0], at[1], 2.8) * 1.15)
        heats.append(_streak(at, (at[0] - lean, at[1] - 5.0), 2.1, 0.5) * 0.7)
    return _hottest(*heats)


def _wave(dice: Dice) -> Heat:
    phase, rise = dice.between(0.0, 6.28), dice.between(1.4, 2.2)
    crest = np.sin(_X * dice.between(0.55, 0.8) + phase) * rise
    apart = dice.between(4.2, 5.0)
    strokes = [1.0 - np.abs(_Y - crest - place) / 2.0 for place in (-apart, 0.0, apart)]
    return np.where(np.abs(_X) < 6.9, _hottest(*strokes), 0.0)


def _missile(dice: Dice) -> Heat:
    back = dice.between(2.5, 4.5)
    tip = _hottest(*(_streak((5.8, 5.8), end, 1.4, 1.7) for end in ((5.8, 5.8 - back - 1), (5.8 - back - 1, 5.8))))
    shaft = _streak((4.5, 4.5), (-6.0, -6.0), 2.6, 0.7)
    wings = [_streak((place, place), (place - 4.2, place + 0.6), 1.6, 0.7) for place in (0.0, -3.4)]
    other = [_streak((place, place), (place + 0.6, place - 4.2), 1.6, 0.7) for place in (0.0, -3.4)]
    return _hottest(tip, shaft * 1.1, *wings, *other)


def _glyph(dice: Dice) -> Heat:
    sides = 3 + dice.below(3)
    folded = np.abs((_ANGLE + dice.pick((0.5, 1.1, 1.57))) % (2 * np.pi / sides) - np.pi / sides)
    edge = _RADIUS * np.cos(folded)
    polygon = 1.0 - np.abs(edge - (2.0 + 0.35 * sides)) / 1.2
    ring = 1.0 - np.abs(_RADIUS - 6.2) / 1.3
    return _hottest(ring * 0.62, polygon, _disc(0.0, 0.0, 1.8) * 1.2)


_SHAPES: Final[tuple[Shape, ...]] = (
    *(_fireball, _lightning, _shards, _swirl, _beam, _ring, _star, _explosion, _orb, _slash, _claws, _snowflake),
    *(_shield, _tornado, _sparkles, _comets, _wave, _missile, _glyph),
)
_UPRIGHT: Final = (_shards, _shield, _tornado)
