"""Figures as data: a base drawing, groups of parts of which one each is chosen, and the colours of each material."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fusain.worlds.dice import Dice
from fusain.worlds.sprite_parts.canvas import SIDE, Image, Stencil, colour_table, lay, nudge, render

Group = tuple[Stencil | None, ...]
Families = tuple[str, ...]

_CUT_SHARE: Final = 0.3


@dataclass(frozen=True)
class Figure:
    """One kind of creature or food; `squash` and `narrow` name rows and columns it can do without.

    `same` gives a material the colour family of another: a form of its own to the eye, but of the same stuff.
    """

    base: Stencil
    colours: Mapping[str, Families]
    groups: tuple[Group, ...] = ()
    squash: tuple[int, ...] = ()
    narrow: tuple[int, ...] = ()
    flips: bool = True
    same: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Cut:
    """Which rows and columns of a drawing are left out."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]


def draw_figure(figure: Figure, dice: Dice) -> Image:
    codes = figure.base.copy()
    for group in figure.groups:
        lay(codes, dice.pick(group))
    codes = _without(codes, _choose_cut(figure, dice))
    if figure.flips and dice.chance(0.5):
        codes = codes[:, ::-1]
    codes = nudge(codes, dice)
    families = {letter: dice.pick(choices) for letter, choices in figure.colours.items()}
    families |= {letter: families[other] for letter, other in figure.same.items()}
    return render(codes, colour_table(families, dice))


def _choose_cut(figure: Figure, dice: Dice) -> _Cut:
    rows = tuple(row for row in figure.squash if dice.chance(_CUT_SHARE))
    columns = tuple(column for column in figure.narrow if dice.chance(_CUT_SHARE))
    return _Cut(rows, columns)


def _without(codes: Stencil, cut: _Cut) -> Stencil:
    """Rows close up towards the ground; columns towards the middle, the same on both sides."""
    if cut.rows:
        kept = [row for row in range(SIDE) if row not in cut.rows]
        codes = codes[[0] * len(cut.rows) + kept]
    if cut.columns:
        half = [column for column in range(SIDE // 2) if column not in cut.columns]
        left = [0] * len(cut.columns) + half
        codes = codes[:, left + [SIDE - 1 - column for column in reversed(left)]]
    return codes
