"""Draws curves over steps as SVG, with labels in HTML that stay readable at any width."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from fusain.evaluation.page import Html, tag, text

WIDTH: Final = 1000
HEIGHT: Final = 300
MOST_POINTS: Final = 600
LOGARITHMIC_FROM: Final = 4.0
"""Curves that span more than this ratio are drawn on a logarithmic scale, or all their end would look flat."""


class Point(NamedTuple):
    step: int
    value: float


class Curve(NamedTuple):
    """One line of a plot."""

    name: str
    points: Sequence[Point]
    is_main: bool


def smoothed(points: Sequence[Point], keep: float = 0.97) -> list[Point]:
    """An exponential average without the pull towards its start, thinned to what a page can show."""
    average, weight, found = 0.0, 0.0, []
    for point in points:
        average = keep * average + (1 - keep) * point.value
        weight = keep * weight + (1 - keep)
        found.append(Point(point.step, average / weight))
    apart = max(1, len(found) // MOST_POINTS)
    return found[::-1][::apart][::-1]


def plot(curves: Sequence[Curve], title: str) -> Html:
    """All curves on one pair of axes; '' when there is nothing to draw."""
    values = [value for curve in curves for _, value in curve.points if math.isfinite(value)]
    if not values:
        return Html("")
    last = max(step for curve in curves for step, _ in curve.points) or 1
    low, high = min(values), max(values)
    is_logarithmic = low > 0 and high / low > LOGARITHMIC_FROM
    scale: Callable[[float], float] = math.log if is_logarithmic else float
    bottom, top = scale(low), scale(high)
    room = 0.06 * (top - bottom) or 1.0
    bottom, top = bottom - room, top + room

    def height_of(value: float) -> float:
        return (top - scale(value)) / (top - bottom)

    def line(points: Sequence[Point]) -> str:
        good = (point for point in points if math.isfinite(point.value))
        places = (f"{step / last * WIDTH:.1f} {height_of(value) * HEIGHT:.1f}" for step, value in good)
        return "M" + "L".join(places)

    marks = [value for value in _marks(low, high, is_logarithmic) if 0 <= height_of(value) <= 1]
    grid = "".join(f"M0 {height_of(value) * HEIGHT:.1f}H{WIDTH}" for value in marks)
    drawn = [tag("path", d=grid, class_="grid")]
    for curve in sorted(curves, key=lambda curve: curve.is_main):
        if curve.points:
            drawn.append(tag("path", d=line(curve.points), class_="main" if curve.is_main else "thin"))
    view = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "preserveAspectRatio": "none", "role": "img", "aria_label": title}
    left = [tag("span", f"{value:.3g}", style=f"top:{height_of(value):.2%}") for value in marks]
    steps = [round(last * part / 4) for part in range(5)]
    below = [tag("span", f"{step:,}", style=f"left:{step / last:.1%}") for step in steps]
    frame = tag(
        "div", tag("div", *left, class_="y"), tag("svg", *drawn, **view), tag("div", *below, class_="x"), class_="plot"
    )
    legend = [tag("li", curve.name, class_="main" if curve.is_main else "thin") for curve in curves if curve.points]
    return text(frame, tag("ul", *legend, class_="legend"))


def _marks(low: float, high: float, is_logarithmic: bool) -> list[float]:
    """Round numbers between two values: 1, 2, 5 and their tenfolds, or evenly spaced ones."""
    if is_logarithmic:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        return [value for value in found if low * 0.8 <= value <= high * 1.25]
    apart = _round_number((high - low) / 4 or abs(high) or 1.0)
    first = math.floor(low / apart)
    return [round((first + number) * apart, 12) for number in range(8)]


def _round_number(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return float(next(digit * power for digit in (1, 2, 5, 10) if digit * power >= value))
