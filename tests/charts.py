"""Small charts for the documentation, drawn with Pillow at twice their size and brought down: lines are smooth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fusain.generation.gallery import INK, PAPER

WIDTH, HEIGHT, SCALE = 760, 330, 2
SOFT = (150, 147, 140)
GRID = (228, 225, 217)
COLOURS = ((38, 70, 120), (200, 90, 50), (60, 130, 95), (150, 80, 140))
"""Ink blue, sanguine, green earth, violet: told apart by lightness too."""
TEXT = 15
LEFT, TOP, BELOW, RIGHT = 64, 44, 46, 176

Lines = Mapping[str, np.ndarray]


def chart(
    lines: Lines,
    *,
    across: str,
    up: str,
    ends: tuple[str, str],
    soft: str = "",
    limits: tuple[float, float] | None = None,
) -> Image.Image:
    """Curves on one pair of axes, each named at its right end; what is above the limits is left out."""
    paper = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
    pen = ImageDraw.Draw(paper)
    low, high = limits or (0.0, max(float(values.max()) for values in lines.values()))
    right, bottom = WIDTH - RIGHT, HEIGHT - BELOW

    def height_of(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - TOP)

    for mark in np.linspace(low, high, 5):
        place = height_of(float(mark))
        _line(pen, [(LEFT, place), (right, place)], GRID, 1)
        _text(pen, (LEFT - 10, place), f"{mark:.3g}", SOFT, "rm")
    colours = dict(zip(lines, COLOURS, strict=False)) | {soft: SOFT}
    for name, values in lines.items():
        places = np.linspace(LEFT, right, len(values))
        points = [(float(x), height_of(float(y))) for x, y in zip(places, values, strict=True) if y <= high]
        _line(pen, points, colours[name], 1 if name == soft else 2.5)
    last = {name: height_of(min(float(values[-1]), high)) for name, values in lines.items()}
    for name, place in _apart(last):
        _text(pen, (right + 10, place), name, colours[name], "lm")
    _text(pen, (LEFT, bottom + 10), ends[0], SOFT, "la")
    _text(pen, (right, bottom + 10), ends[1], SOFT, "ra")
    _text(pen, ((LEFT + right) / 2, bottom + 22), across, INK, "ma")
    _text(pen, (LEFT, 10), up, INK, "la")
    return _finished(paper, lines)


def small_charts(lines: Lines, *, columns: int) -> Image.Image:
    """One curve a panel from 0 to 1, with its name above it."""
    across, up, gap, title = 176, 84, 14, 24
    rows = -(-len(lines) // columns)
    size = (gap + columns * (across + gap), gap + rows * (title + up + gap))
    paper = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), PAPER)
    pen = ImageDraw.Draw(paper)
    for rank, (name, values) in enumerate(lines.items()):
        row, column = divmod(rank, columns)
        left, top = gap + column * (across + gap), gap + row * (title + up + gap)
        _text(pen, (left, top), name, INK, "la")
        bottom = top + title + up
        _line(pen, [(left, bottom), (left + across, bottom)], GRID, 1.5)
        steps = np.linspace(left, left + across, len(values))
        points = [(float(step), bottom - float(value) * (up - 6)) for step, value in zip(steps, values, strict=True)]
        _line(pen, points, COLOURS[0], 2.5)
    return _finished(paper, lines)


def sheet(rows: Mapping[str, Sequence[np.ndarray]], heads: Sequence[str], *, side: int) -> Image.Image:
    """Images in rows, each named on the left, with heads above the columns."""
    gap, left, top = 6, 190, 38
    size = (left + len(heads) * (side + gap) + 10, top + len(rows) * (side + gap) + 8)
    paper = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), PAPER)
    pen = ImageDraw.Draw(paper)
    for column, head in enumerate(heads):
        _text(pen, (left + column * (side + gap) + side / 2, top - 9), head, SOFT, "ms")
    for row, (name, images) in enumerate(rows.items()):
        place = top + row * (side + gap)
        _text(pen, (left - 16, place + side / 2), name, INK, "rm")
        for column, pixels in enumerate(images):
            filter_ = Image.Resampling.LANCZOS if pixels.shape[0] > side else Image.Resampling.NEAREST
            image = Image.fromarray(pixels).resize((side * SCALE, side * SCALE), filter_)
            paper.paste(image, ((left + column * (side + gap)) * SCALE, place * SCALE))
    return _finished(paper, rows)


def _apart(places: Mapping[str, float], least: float = 20.0) -> list[tuple[str, float]]:
    """Names moved down until none covers another; from the lowest up where the sheet ends."""
    found: list[tuple[str, float]] = []
    for name, place in sorted(places.items(), key=lambda one: one[1]):
        found.append((name, max(place, found[-1][1] + least) if found else place))
    over = max(0.0, found[-1][1] - (HEIGHT - BELOW))
    return [(name, place - over) for name, place in found]


def _line(pen: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: tuple, width: float) -> None:
    scaled = [(x * SCALE, y * SCALE) for x, y in points]
    pen.line(scaled, fill=colour, width=round(width * SCALE), joint="curve")


def _text(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, colour: tuple, anchor: str) -> None:
    font = ImageFont.load_default(TEXT * SCALE)
    pen.text((place[0] * SCALE, place[1] * SCALE), text, fill=colour, font=font, anchor=anchor)


def _finished(paper: Image.Image, names: Iterable[str]) -> Image.Image:
    """In its final size, and with the names of what is on it to be kept in its file."""
    smooth = paper.resize((paper.width // SCALE, paper.height // SCALE), Image.Resampling.LANCZOS)
    smooth.info["shows"] = "\n".join(names)
    return smooth
