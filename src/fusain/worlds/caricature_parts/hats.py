"""Hats, which end above the brows so that eyes, ears and the sides of the hair stay in sight."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

from fusain.worlds.caricature_parts.curves import box, ellipse, points, smooth, stroke, symmetrical
from fusain.worlds.caricature_parts.heads import half_width
from fusain.worlds.caricature_parts.shapes import Part, form, mark, shade

_RIM_DOWN: Final = -11.5
# So that a strip of hair is seen below it.
_RAISED: Final = 1.5


@lru_cache
def hat(kind: str, head: str) -> Part:
    if kind == "none":
        return ()
    half = half_width(head, _RIM_DOWN) + 2.6
    return tuple(replace(shape, area=shape.area - (0.0, _RAISED)) for shape in _HATS[kind](half))


def _cap(half: float) -> Part:
    right = (
        (0, -26.4),
        (half * 0.6, -24.6),
        (half * 0.98, -18.5),
        (half + 0.4, -11.2),
        (half * 0.5, -10.6),
        (0, -10.4),
    )
    shadow = smooth(((half * 0.3, -25), (half * 0.9, -19), (half, -13), (half * 0.62, -12), (half * 0.6, -19)))
    visor = smooth(
        (
            (-1.0, -15.0),
            (half * 0.5, -16.0),
            (half + 5.5, -13.8),
            (half + 9.4, -10.4),
            (half + 4.0, -9.0),
            (half * 0.3, -10.6),
        )
    )
    badge = ellipse(-half * 0.3, -18.4, 3.2, 3.2)
    return (
        form(ellipse(0, -26.4, 2.4, 1.6), "hat shade"),
        form(smooth(symmetrical(right)), "hat"),
        shade(shadow, "hat shade"),
        mark(badge, "pompom"),
        form(visor, "hat dark"),
    )


def _beanie(half: float) -> Part:
    dome = smooth(symmetrical(((0, -26.5), (half * 0.66, -24.6), (half, -17.5), (half, -12), (0, -12))))
    ribs = tuple(mark(stroke(points((at * half, -15.8), (at * half, -11.4)), 1.3), "hat shade") for at in _RIBS)
    return (
        form(ellipse(0, -27.0, 4.6, 4.0), "pompom"),
        form(dome, "hat"),
        shade(stroke(smooth(((half * 0.7, -22), (half * 0.86, -18)), closed=False), 2.6), "hat shade"),
        form(box(-half - 1.2, -17.4, half + 1.2, -9.8, 2.4), "hat light"),
        *ribs,
    )


_RIBS: Final = (-0.8, -0.48, -0.16, 0.16, 0.48, 0.8)


def _top_hat(half: float) -> Part:
    crown = points(
        (-half * 0.8, -30.0),
        (half * 0.8, -30.0),
        (half * 0.7, -21),
        (half * 0.74, -12.5),
        (-half * 0.74, -12.5),
        (-half * 0.7, -21),
    )
    band = points((-half * 0.73, -17.6), (half * 0.73, -17.6), (half * 0.74, -13.2), (-half * 0.74, -13.2))
    shadow = points(
        (half * 0.4, -29.6), (half * 0.8, -29.8), (half * 0.7, -21), (half * 0.72, -17.6), (half * 0.4, -17.6)
    )
    brim = smooth(symmetrical(((0, -13.8), (half + 3.5, -14.8), (half + 6.4, -13.0), (half * 0.7, -10.2), (0, -9.8))))
    return (form(crown, "hat"), shade(shadow, "hat shade"), mark(band, "band"), form(brim, "hat"))


def _crown(half: float) -> Part:
    right = ((half, -10.4), (half + 1.6, -25.5), (half * 0.5, -18.4), (0, -28.0))
    left = tuple((-across, down) for across, down in right[-2::-1])
    metal = points(*right, *left)
    band = points((-half - 0.2, -13.6), (half + 0.2, -13.6), (half, -10.6), (-half, -10.6))
    balls = [
        form(ellipse(across, down, 2.1, 2.1), "hat light")
        for across, down in ((-half - 1.6, -26), (0, -28.2), (half + 1.6, -26))
    ]
    jewels = [mark(ellipse(at * half, -17.2, 1.8, 2.0), "jewel") for at in (-0.62, 0.0, 0.62)]
    return (form(metal, "hat"), shade(band, "hat shade"), *balls, *jewels)


_HATS: Final = {"cap": _cap, "beanie": _beanie, "top hat": _top_hat, "crown": _crown}
