"""Brings images to the shape that is learnt: resized until they cover it, what is over cropped, mirrored on wish."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from fusain.data import chance
from fusain.data.images import Pixels
from fusain.data.shapes import Shape, Sides, covering

CROP, FLIP = "crop", "flip"

Crop = Literal["center", "random"]
Places = npt.NDArray[np.float64]
"""Where each draw is cropped along the longer side: 0 at its start and below 1 at its end."""


def resized(pixels: Pixels, shape: Shape) -> Pixels:
    """The image once it just covers the shape; one that does so already is untouched."""
    height, width = pixels.shape[:2]
    if (height == shape.height and width >= shape.width) or (width == shape.width and height >= shape.height):
        return pixels
    sides = np.asarray([[height, width], shape], np.int32)
    [[new_height, new_width]] = covering(sides[:1, 0], sides[:1, 1], sides[1:]).tolist()
    return np.asarray(Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.LANCZOS))


def corners(room: Sides, places: Places | None = None) -> Sides:
    """Top and left of the part that is kept of each image that is longer by `room`: its middle, or as its draw says."""
    return room // 2 if places is None else (places[:, None] * (room + 1)).astype(np.int32)


def cropped(pixels: Pixels, shape: Shape, top: int, left: int) -> Pixels:
    """The part of a resized image that begins there; an image that has the shape already is whole."""
    if pixels.shape[:2] == shape:
        return pixels
    return pixels[top : top + shape.height, left : left + shape.width]


def centred(pixels: Pixels, shape: Shape) -> Pixels:
    """The middle of a resized image, as `corners` places it."""
    height, width = pixels.shape[:2]
    return cropped(pixels, shape, (height - shape.height) // 2, (width - shape.width) // 2)


def crop_places(seed: int, draws: chance.Draws) -> Places:
    """Where each draw is cropped."""
    return chance.uniform(seed, draws, CROP)


def mirrored(seed: int, draws: chance.Draws) -> npt.NDArray[np.bool_]:
    """Which draws are mirrored left to right."""
    return chance.uniform(seed, draws, FLIP) < 0.5


def flipped(images: Pixels, is_mirrored: npt.NDArray[np.bool_]) -> Pixels:
    """The mirrored ones of images B x H x W x 3, in place."""
    images[is_mirrored] = images[is_mirrored, :, ::-1]
    return images
