"""From letters to pixels: stencils of materials are laid over one another, shaded from the upper left and outlined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from fusain.worlds.dice import Dice
from fusain.worlds.sprite_parts.palettes import DUSK, GLINT, INK, LIGHT, MIDDLE, SHADOW, TONES, ramp

Stencil = npt.NDArray[np.uint8]
Image = npt.NDArray[np.uint8]

SIDE: Final = 16
_BEFORE_A: Final = ord("a") - 1
_EYE: Final = ord("e") - _BEFORE_A
_WHITE_OF_EYE: Final = ord("i") - _BEFORE_A
_LINE: Final = 27
_ERASE: Final = 28
_MATERIALS: Final = 29
_GLINT_FLAG: Final = 32
_MATERIAL_MASK: Final = 31
_INK_COLOUR: Final = (34, 24, 44)
_WHITE: Final = 255

_HELD_BY: Final = np.asarray([ord("s") - _BEFORE_A, ord("l") - _BEFORE_A], dtype=np.uint8)

# Eyes lie on a form without breaking its shading.
_DETAIL: Final = np.zeros(_MATERIALS, dtype=bool)
_DETAIL[[_EYE, _WHITE_OF_EYE]] = True

_SCORES: Final = 4


def _tone(near: int, far: int) -> int:
    """The tone of a pixel by how its close and its wider surroundings face the light."""
    if near:
        return LIGHT if near > 0 else SHADOW
    return DUSK if far < 0 else MIDDLE


_TONE_BY_SCORE: Final = np.asarray(
    [[_tone(near, far) for far in range(-_SCORES, _SCORES + 1)] for near in range(-_SCORES, _SCORES + 1)],
    dtype=np.uint8,
)


def _code(letter: str) -> int:
    if letter in ". ":
        return 0
    if letter in "#_":
        return _LINE if letter == "#" else _ERASE
    return ord(letter.lower()) - _BEFORE_A + (_GLINT_FLAG if letter.isupper() else 0)


def stencil(rows: str, top: int = 0) -> Stencil:
    """A stencil from text, first line at row `top`: a letter is a material, a capital its glint, # ink, _ a hole.

    Eight letters a row are mirrored to sixteen.
    """
    codes = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for row, line in enumerate(rows.split()):
        whole = line + line[::-1] if len(line) == SIDE // 2 else line
        codes[top + row, : len(whole)] = [_code(letter) for letter in whole]
    return codes


def lay(codes: Stencil, *parts: Stencil | None) -> None:
    """Each part over what is there."""
    for part in parts:
        if part is not None:
            np.copyto(codes, part, where=part != 0)


def lay_apart(codes: Stencil, part: Stencil | None) -> None:
    """A part over what is there, set off by an ink line except beside a hand or a grip."""
    if part is None:
        return
    around = np.zeros((SIDE, SIDE), dtype=bool)
    solid = (part != 0) & ~np.isin(part, _HELD_BY)
    around[1:] |= solid[:-1]
    around[:-1] |= solid[1:]
    around[:, 1:] |= solid[:, :-1]
    around[:, :-1] |= solid[:, 1:]
    codes[around & (codes != 0)] = _LINE
    lay(codes, part)


def empty() -> Stencil:
    return np.zeros((SIDE, SIDE), dtype=np.uint8)


def nudge(codes: Stencil, dice: Dice, reach: int = 1) -> Stencil:
    """The drawing moved by up to `reach` pixels, as far as room for its outline is left."""
    filled = codes != 0
    rows, columns = np.flatnonzero(filled.any(1)), np.flatnonzero(filled.any(0))
    down = _room(int(rows[0]), int(rows[-1]), dice, reach)
    right = _room(int(columns[0]), int(columns[-1]), dice, reach)
    return np.roll(codes, (down, right), (0, 1)) if down or right else codes


def _room(first: int, last: int, dice: Dice, reach: int) -> int:
    lowest, highest = max(-reach, min(1 - first, 0)), min(reach, max(SIDE - 2 - last, 0))
    return lowest + dice.below(highest - lowest + 1)


def colour_table(families: Mapping[str, str], dice: Dice) -> npt.NDArray[np.uint8]:
    """The colours of every material (by letter) and tone; ink and eyes are the same everywhere."""
    table = np.full((_MATERIALS, TONES, 3), _WHITE, dtype=np.uint8)
    table[_LINE] = table[_EYE] = _INK_COLOUR
    table[_WHITE_OF_EYE, INK] = _INK_COLOUR
    for letter, family in families.items():
        table[ord(letter) - _BEFORE_A] = ramp(family, dice.between(0.0, 1.0))
    return table


def _score(padded: npt.NDArray[np.uint8], form: npt.NDArray[np.uint8], reach: int) -> npt.NDArray[np.int8]:
    """How much a pixel faces the light: open sides above and left count for, below and right against."""
    low, high = 2 - reach, 2 + reach
    end = SIDE
    above, below = padded[low : low + end, 2:-2] != form, padded[high : high + end, 2:-2] != form
    before, after = padded[2:-2, low : low + end] != form, padded[2:-2, high : high + end] != form
    score: npt.NDArray[np.int8] = above.view(np.int8) + before.view(np.int8) - below.view(np.int8) - after.view(np.int8)
    return score


def render(codes: Stencil, table: npt.NDArray[np.uint8], tones: npt.NDArray[np.uint8] | None = None) -> Image:
    """The picture: `tones` where given, else shading by form; then a dark outline in the colour of what it bounds."""
    materials: Stencil = codes & np.uint8(_MATERIAL_MASK)
    materials[materials == _ERASE] = 0
    padded = np.zeros((SIDE + 4, SIDE + 4), dtype=np.uint8)
    padded[2:-2, 2:-2] = materials
    if tones is None:
        tones = _shading(padded, materials)
        tones[codes >= _GLINT_FLAG] = GLINT
    neighbours = np.maximum(
        np.maximum(padded[1:-3, 2:-2], padded[3:-1, 2:-2]), np.maximum(padded[2:-2, 1:-3], padded[2:-2, 3:-1])
    )
    outline = (materials == 0) & (neighbours != 0)
    picture: Image = table[np.where(outline, neighbours, materials), np.where(outline, INK, tones)]
    return picture


def _shading(padded: npt.NDArray[np.uint8], materials: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    form = padded.copy()
    inner = form[2:-2, 2:-2]
    detail = _DETAIL[materials]
    # A detail takes the material to its left, or above it where that is a detail as well.
    if detail.any():
        inner[detail] = padded[2:-2, 1:-3][detail]
        detail &= _DETAIL[inner]
        inner[detail] = padded[3:-1, 2:-2][detail]
    near, far = _score(form, inner, 1), _score(form, inner, 2)
    tones: npt.NDArray[np.uint8] = _TONE_BY_SCORE[near + _SCORES, far + _SCORES]
    return tones
