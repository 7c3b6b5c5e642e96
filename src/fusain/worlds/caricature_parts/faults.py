"""Pictures with a known fault, for the checks that must find them."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from fusain.worlds.dice import Dice

Picture = npt.NDArray[np.uint8]

COPY: Final = "copy"
FAULTS: Final = ("blurred", "empty", "cut", "dark", COPY)

_BLUR: Final = 0.09
_DARKNESS: Final = 0.1
_GREY: Final = 128


def spoil(picture: Picture, fault: str, dice: Dice) -> Picture:
    """The picture with a fault of its own; a copy has none of its own, it is another picture once more."""
    return _SPOILERS[fault](picture, dice)


def _blurred(picture: Picture, dice: Dice) -> Picture:
    radius = len(picture) * _BLUR * dice.between(0.8, 1.2)
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)), dtype=np.uint8)


def _empty(picture: Picture, dice: Dice) -> Picture:
    """The colour of a corner, and nothing on it."""
    plain = np.empty_like(picture)
    plain[:] = picture[dice.pick((0, 1)), 0]
    return plain


def _cut(picture: Picture, dice: Dice) -> Picture:
    """Half of the picture is lost, as in a broken file."""
    spoilt = picture.copy()
    spoilt[round(len(picture) * dice.between(0.3, 0.5)) :] = _GREY
    return spoilt


def _dark(picture: Picture, dice: Dice) -> Picture:
    dimmed: Picture = np.round(picture * (_DARKNESS * dice.between(0.6, 1.0))).astype(np.uint8)
    return dimmed


_SPOILERS: Final = {"blurred": _blurred, "empty": _empty, "cut": _cut, "dark": _dark}
