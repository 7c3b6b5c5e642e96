"""Brings images to the size that is learnt: the shorter side resized, the longer one cropped, and mirrored on wish."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fusain.data import chance
from fusain.data.images import Pixels

CROP, FLIP = "crop", "flip"


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width once the shorter side is `size`."""
    shorter = min(height, width)
    return max(size, round(height * size / shorter)), max(size, round(width * size / shorter))


def resized(pixels: Pixels, size: int) -> Pixels:
    """The image with its shorter side at `size`; one that is so already is untouched."""
    height, width = pixels.shape[:2]
    if min(height, width) == size:
        return pixels
    new_height, new_width = resized_shape(height, width, size)
    return np.asarray(Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.LANCZOS))


def centred(pixels: Pixels, size: int) -> Pixels:
    """The middle of a resized image, size x size."""
    height, width = pixels.shape[:2]
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size]


def cropped(pixels: Pixels, size: int, place: float) -> Pixels:
    """The part of a resized image that lies at `place` along its longer side, 0 at its start and below 1 at its end."""
    height, width = pixels.shape[:2]
    top, left = int(place * (height - size + 1)), int(place * (width - size + 1))
    return pixels[top : top + size, left : left + size]


def crop_places(seed: int, draws: chance.Draws) -> list[float]:
    """Where each draw is cropped."""
    places: list[float] = chance.uniform(seed, draws, CROP).tolist()
    return places


def flipped(images: Pixels, seed: int, draws: chance.Draws) -> Pixels:
    """Every image B x H x W x 3 whose draw says so, mirrored left to right, in place."""
    mirrored = chance.uniform(seed, draws, FLIP) < 0.5
    images[mirrored] = images[mirrored, :, ::-1]
    return images
