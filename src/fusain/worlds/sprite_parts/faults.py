"""Images with a known fault, for the checks that must find them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fusain.worlds.dice import Dice
from fusain.worlds.sprite_parts.canvas import SIDE, Image
from fusain.worlds.sprite_parts.palettes import MIDDLE, VIVID, ramp

FAULTS: Final = ("no_white_corners", "few_white_pixels", "noise", "cut_out", "smear")

_NOISE: Final = 90.0


@dataclass(frozen=True)
class Spoilt:
    """A spoilt image and the name of what was done to it."""

    image: Image
    fault: str


def spoil(image: Image, dice: Dice) -> Spoilt:
    fault = dice.pick(FAULTS)
    return Spoilt(_SPOILERS[fault](image, dice), fault)


def _no_white_corners(image: Image, dice: Dice) -> Image:
    """The white of the four corners takes on a colour."""
    spoilt = image.copy()
    colour = ramp(dice.pick(VIVID), dice.between(0.0, 1.0))[MIDDLE]
    reach = 3 + dice.below(2)
    for rows in (slice(0, reach), slice(SIDE - reach, SIDE)):
        for columns in (slice(0, reach), slice(SIDE - reach, SIDE)):
            corner = spoilt[rows, columns]
            corner[(corner == 255).all(-1)] = colour
    return spoilt


def _few_white_pixels(image: Image, dice: Dice) -> Image:
    """White is left at the corners and hardly anywhere else."""
    spoilt = image.copy()
    colour = ramp(dice.pick(VIVID), dice.between(0.0, 1.0))[MIDDLE]
    white = (spoilt == 255).all(-1)
    white[[0, 0, -1, -1], [0, -1, 0, -1]] = False
    spoilt[white] = colour
    return spoilt


def _noise(image: Image, dice: Dice) -> Image:
    generator = np.random.Generator(np.random.PCG64(dice.below(2**31)))
    noisy = image + generator.normal(0.0, _NOISE, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _cut_out(image: Image, dice: Dice) -> Image:
    """A block of the sprite is gone."""
    spoilt = image.copy()
    height, width = 7 + dice.below(3), 7 + dice.below(3)
    top, left = 2 + dice.below(13 - height), 2 + dice.below(13 - width)
    spoilt[top : top + height, left : left + width] = 255
    return spoilt


def _smear(image: Image, dice: Dice) -> Image:
    """Every row is averaged along itself, as if dragged."""
    reach = 5 + dice.below(4)
    total = sum(np.roll(image.astype(np.float64), shift, 1) for shift in range(reach))
    smeared: Image = np.round(np.asarray(total) / reach).astype(np.uint8)
    return smeared


_SPOILERS: Final = {
    "no_white_corners": _no_white_corners,
    "few_white_pixels": _few_white_pixels,
    "noise": _noise,
    "cut_out": _cut_out,
    "smear": _smear,
}
