"""One face as a picture: its parts from back to front, inked by its style and set into the frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fusain.worlds.caricature_parts import features, hair, hats, heads
from fusain.worlds.caricature_parts.attributes import Face
from fusain.worlds.caricature_parts.curves import Points
from fusain.worlds.caricature_parts.grounds import ground
from fusain.worlds.caricature_parts.palettes import (
    colours_of_clothes,
    colours_of_hair,
    colours_of_hat,
    colours_of_skin,
    colours_of_style,
)
from fusain.worlds.caricature_parts.shapes import Part
from fusain.worlds.caricature_parts.styles import Colour, style_named
from fusain.worlds.dice import Dice

SIDE: Final = 64

_VARIATIONS: Final = 20
_ACROSS: Final[Mapping[str, float]] = {"left": 23.0, "centre": 32.0, "right": 41.0}
_DOWN: Final = 33.0
_NECK_DOWN: Final = 16.0
_MOST_TILT: Final = 0.06
_BOX_TOP, _BOX_END, _BOX_REACH = 8, 58, 22
_FINEST: Final = 4

Builder = Callable[..., Part]
PartOrder = tuple[Builder, tuple[object, ...]]
Place = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class _Pose:
    """The small variations of a picture that no caption speaks of."""

    tilt: float
    size: float
    gaze: float
    collar: str
    blushes: bool


@dataclass(frozen=True, eq=False)
class _Inked:
    """The areas of a part as one list of points, and for each area its end in that list and its role."""

    corners: Points
    ends: tuple[int, ...]
    roles: tuple[str, ...]


def paint(face: Face, scale: int) -> npt.NDArray[np.uint8]:
    """The picture, drawn some times larger than asked for and then reduced, which smooths its edges."""
    return _painted(face, scale, lambda side: ground(face.attributes["style"], face.attributes["background"], side))


def silhouette(face: Face, scale: int) -> npt.NDArray[np.bool_]:
    """Where the figure is: what is alike in front of black and in front of white."""
    black = _painted(face, scale, lambda side: Image.new("RGB", (side, side), "black"))
    white = _painted(face, scale, lambda side: Image.new("RGB", (side, side), "white"))
    alike: npt.NDArray[np.bool_] = (black == white).all(axis=-1)
    return alike


def _painted(face: Face, scale: int, behind: Callable[[int], Image.Image]) -> npt.NDArray[np.uint8]:
    """`behind` makes what the figure stands in front of, of so many pixels a side."""
    fineness = max(2, _FINEST - scale + 1)
    unit = scale * fineness
    values = face.attributes
    pose = _pose(face.seed)
    image = behind(SIDE * unit)
    brush = ImageDraw.Draw(image)
    colours = _colours(values)
    for is_head, parts in ((False, _body(values, pose)), (True, _head(values, pose))):
        place = _placed(values["position"], pose if is_head else None, unit)
        _lay(
            brush,
            [_inked(values["style"], is_head, builder, *arguments) for builder, arguments in parts],
            place,
            colours,
        )
    return np.asarray(image.reduce(fineness), dtype=np.uint8)


def _pose(seed: int) -> _Pose:
    dice = Dice(_VARIATIONS, seed)
    return _Pose(
        tilt=dice.between(-_MOST_TILT, _MOST_TILT),
        size=dice.between(0.97, 1.03),
        gaze=dice.pick((-0.9, 0.0, 0.9)),
        collar=dice.pick(("round", "flaps", "open")),
        blushes=dice.chance(0.5),
    )


def _body(values: Mapping[str, str], pose: _Pose) -> list[PartOrder]:
    slim = style_named(values["style"]).exaggerated
    return [(heads.shirt, (slim,)), (heads.neck, (slim,)), (heads.collar, (pose.collar, slim))]


def _head(values: Mapping[str, str], pose: _Pose) -> list[PartOrder]:
    shape, beard, glasses = values["shape"], values["beard"], values["glasses"]
    under_hat = values["hat"] != "none"
    hidden = glasses == "dark"
    parts: list[PartOrder] = [
        (hair.hair_behind, (values["cut"], shape, under_hat, -1 if values["position"] == "right" else 1)),
        (heads.ears, (values["ears"], shape)),
        (heads.head, (shape,)),
    ]
    if pose.blushes:
        parts.append((heads.blush, (shape,)))
    parts += [
        (hair.hair_before, (values["cut"], shape, under_hat)),
        (features.beard_below_mouth, (beard, shape)),
        (features.mouth, (values["mouth"], shape)),
        (features.brows, ("" if hidden else values["eyes"], shape, values["mouth"])),
        (features.lenses, (glasses, shape)),
    ]
    if not hidden:
        parts.append((features.eyes, (values["eyes"], shape, pose.gaze)))
    large_nose = style_named(values["style"]).exaggerated
    return [
        *parts,
        (features.moustache, (beard, shape)),
        (features.nose, (values["nose"], shape, large_nose)),
        (features.frames, (glasses, shape)),
        (hats.hat, (values["hat"], shape)),
    ]


@lru_cache(maxsize=4096)
def _inked(style_name: str, is_head: bool, builder: Builder, *arguments: object) -> _Inked:
    style = style_named(style_name)
    shapes = builder(*arguments)
    if style.exaggerated and is_head:
        shapes = tuple(replace(shape, area=_exaggerated(shape.area)) for shape in shapes)
    pieces = style.pieces(shapes)
    if not pieces:
        return _Inked(np.empty((0, 2)), (), ())
    ends = np.cumsum([len(area) for area, _ in pieces]).tolist()
    return _Inked(np.vstack([area for area, _ in pieces]), tuple(ends), tuple(role for _, role in pieces))


def _exaggerated(area: Points) -> Points:
    """A great skull, hollow cheeks and a long chin."""
    across, down = area[:, 0], area[:, 1]
    skull = 0.13 * np.clip(-down / 14, 0, 1)
    hollow = 0.10 * np.exp(-(((down - 5) / 5) ** 2))
    chin = 0.30 * np.maximum(down - 9, 0)
    return np.stack([across * (1 + skull - hollow), down + chin * np.clip(1.4 - np.abs(across) / 18, 0, 1)], 1)


def _placed(position: str, pose: _Pose | None, unit: float) -> Place:
    """The matrix and the shift from the units of a part to pixels; a head turns about its neck."""
    middle = np.asarray([_ACROSS[position], _DOWN]) * unit
    if pose is None:
        return np.eye(2) * unit, middle
    cosine, sine = np.cos(pose.tilt) * pose.size, np.sin(pose.tilt) * pose.size
    matrix = np.asarray([[cosine, sine], [-sine, cosine]]) * unit
    neck = np.asarray([0.0, _NECK_DOWN])
    return matrix, middle + neck * unit - neck @ matrix


def _lay(
    brush: ImageDraw.ImageDraw,
    parts: Sequence[_Inked],
    place: Place,
    colours: Mapping[str, Colour],
) -> None:
    matrix, shift = place
    corners = np.concatenate([part.corners for part in parts])  # one product for all costs no more than one for each
    # Rounded, so that the last bit of a machine's cosine moves no pixel.
    numbers: list[float] = np.round(corners @ matrix + shift, 3).ravel().tolist()
    first = 0
    for part in parts:
        start = first
        for own_end, role in zip(part.ends, part.roles, strict=True):
            end = first + own_end
            brush.polygon(numbers[2 * start : 2 * end], fill=colours[role])
            start = end
        first = start


def _colours(values: Mapping[str, str]) -> dict[str, Colour]:
    style = values["style"]
    return {
        **colours_of_style(style),
        **colours_of_skin(style, values["skin"]),
        **colours_of_hair(style, values["hair"]),
        **colours_of_hat(style, values["hat_colour"]),
        **colours_of_clothes(style, values["clothes"]),
    }


def face_box(face: Face) -> tuple[slice, slice]:
    """Rows and columns of a picture of 64 x 64 that the face fills, with hair and ears."""
    across = round(_ACROSS[face.attributes["position"]])
    return slice(_BOX_TOP, _BOX_END), slice(max(0, across - _BOX_REACH), across + _BOX_REACH)
