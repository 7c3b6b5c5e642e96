"""The styles: how each draws an edge, lays a shade and mixes its colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from fusain.worlds.caricature_parts.curves import Points, grown, hatching
from fusain.worlds.caricature_parts.shapes import Part, Shape

Colour = tuple[int, int, int]
Piece = tuple[Points, str]

PAPER: Final[Colour] = (250, 246, 236)
_WHITE: Final[Colour] = (255, 255, 255)
_SLATE: Final[Colour] = (60, 62, 72)
_RIM: Final = 1.0
_SMALL: Final = 5.0
_LUMA: Final = (0.3, 0.59, 0.11)


@dataclass(frozen=True)
class Style:
    """Widths in units of a 64th of the picture; `tone` turns a plain colour into the style's own."""

    tone: Callable[[Colour], Colour]
    edge: float
    edge_colour: Colour
    line_colour: Colour
    texture: Literal["plain", "rim", "strokes"]
    second_colour: Colour
    second_share: float
    shading: Literal["fill", "hatch", "pane"] = "fill"
    unevenness: float = 0.0
    exaggerated: bool = False
    light_lines_on_dark_skin: bool = False

    def pieces(self, part: Part) -> list[Piece]:
        """The areas, each with a role, that draw a part from the back to the front."""
        edges = [piece for shape in part if shape.kind == "lock" for piece in self._edged(shape.area, self.edge)]
        return edges + [piece for shape in part for piece in self._pieces_of(shape)]

    def _pieces_of(self, shape: Shape) -> list[Piece]:
        if shape.kind == "lock":
            return self._filled(shape)
        if shape.kind == "form":
            return [*self._edged(shape.area, self.edge), *self._filled(shape)]
        if shape.kind == "shade" and self.shading == "hatch":
            role = "edge" if _is_shadow(shape) else shape.role
            return [(thin, role) for thin in hatching(shape.area, 2.2, 0.8, -0.7)]
        if shape.kind == "shade" and self.shading == "pane" and _is_shadow(shape):
            return [*self._edged(shape.area, 0.5), (shape.area, shape.role)]
        return [(shape.area, shape.role)]

    def second(self, colour: Colour) -> Colour:
        """The other tone of a form: of its rim, or of the strokes on it."""
        return mix(colour, self.second_colour, self.second_share)

    def _edged(self, area: Points, width: float) -> list[Piece]:
        return [(grown(area, width, self.unevenness), "edge")] if width else []

    def _filled(self, shape: Shape) -> list[Piece]:
        plain = (shape.area, shape.role)
        if self.texture == "strokes":
            return [plain, *((thin, f"{shape.role} 2") for thin in hatching(shape.area, 2.6, 0.9, 0.7))]
        size = np.ptp(shape.area, axis=0).min()
        if self.texture == "rim" and size > _SMALL:
            return [(shape.area, f"{shape.role} 2"), (grown(shape.area, -_RIM), shape.role)]
        return [plain]


def _is_shadow(shape: Shape) -> bool:
    return shape.role.endswith("shade")


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """`share` of the other colour in the first."""
    red, green, blue = (round(one + (two - one) * share) for one, two in zip(colour, other, strict=True))
    return red, green, blue


def saturated(colour: Colour, factor: float, light: float = 1.0) -> Colour:
    grey = sum(weight * channel for weight, channel in zip(_LUMA, colour, strict=True))
    red, green, blue = (int(np.clip(round((grey + (channel - grey) * factor) * light), 0, 255)) for channel in colour)
    return red, green, blue


def _washed(colour: Colour) -> Colour:
    """Thinned with water, and the less so the darker it is."""
    lightness = sum(weight * channel for weight, channel in zip(_LUMA, colour, strict=True)) / 255
    return mix(colour, PAPER, 0.06 + 0.24 * lightness)


def _chalked(colour: Colour) -> Colour:
    """Chalk cannot be darker than the board by much, and is never quite pure."""
    return mix(mix(colour, _WHITE, 0.06), _SLATE, 0.16)


_STYLES: Final[Mapping[str, Style]] = {
    "flat": Style(lambda colour: colour, 0.0, (0, 0, 0), (44, 30, 40), "plain", _WHITE, 0.0),
    "ink": Style(_washed, 1.0, (34, 30, 44), (34, 30, 44), "rim", PAPER, 0.6, shading="hatch"),
    "caricature": Style(
        lambda colour: saturated(colour, 1.3),
        1.3,
        (52, 22, 30),
        (52, 22, 30),
        "plain",
        _WHITE,
        0.0,
        unevenness=0.75,
        exaggerated=True,
    ),
    "chalk": Style(_chalked, 0.8, (240, 236, 224), (34, 34, 40), "strokes", _WHITE, 0.2, light_lines_on_dark_skin=True),
    "glass": Style(
        lambda colour: saturated(colour, 1.25, 1.02),
        1.4,
        (18, 16, 24),
        (18, 16, 24),
        "rim",
        (30, 10, 60),
        0.36,
        shading="pane",
    ),
}


def style_named(name: str) -> Style:
    return _STYLES[name]
