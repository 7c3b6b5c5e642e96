"""What every part of a face is made of: areas with a role, which a style gives its colour and its edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fusain.worlds.caricature_parts.curves import Points


@dataclass(frozen=True, eq=False)
class Shape:
    """An area with an outline (a form), in an outline shared with its neighbours (a lock), or without any.

    A shade lies on a form; a mark is a line or a small thing.
    """

    area: Points
    role: str
    kind: Literal["form", "lock", "shade", "mark"]


Part = tuple[Shape, ...]


def form(area: Points, role: str) -> Shape:
    return Shape(area, role, "form")


def lock(area: Points, role: str) -> Shape:
    return Shape(area, role, "lock")


def shade(area: Points, role: str) -> Shape:
    return Shape(area, role, "shade")


def mark(area: Points, role: str) -> Shape:
    return Shape(area, role, "mark")
