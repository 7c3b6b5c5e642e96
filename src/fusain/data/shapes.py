"""What shape each image is fitted to, as a pure function of its height and width: a square, or a bucket."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Lengths = npt.NDArray[np.int32]
"""Heights or widths, N."""
Sides = npt.NDArray[np.int32]
"""Height and width, N x 2."""

LEVELS: Final = 5
"""Tables of buckets, from the full size in equal steps down to half of it: few, so that small images share buckets."""


class Shape(NamedTuple):
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


@dataclass(frozen=True)
class Shapes:
    """The rule by which an image gets its shape; without `aspect` there is one shape, size x size."""

    size: int
    multiple: int = 8
    aspect: float | None = None
    """Of buckets the longest allowed, as longer side by shorter side."""
    max_upscale: float = 1.0
    skips_small: bool = False
    """Whether an image that would have to be enlarged for the one shape gets none."""

    def of(self, heights: Lengths, widths: Lengths) -> Sides:
        """The shape of each image; 0 x 0 for one that fills no bucket, or not the one shape there is."""
        if self.aspect is None:
            found = np.full((len(heights), 2), self.size, np.int32)
            found[self.skips_small & (np.minimum(heights, widths) < self.size)] = 0
            return found
        found = np.zeros((len(heights), 2), np.int32)
        rows = np.arange(len(heights))
        for table in self.tables():
            near = nearest(table, heights[rows], widths[rows])
            fills = (near[:, 0] <= heights[rows] * self.max_upscale) & (near[:, 1] <= widths[rows] * self.max_upscale)
            found[rows[fills]] = near[fills]
            rows = rows[~fills]
        return found

    def one(self, height: int, width: int) -> Shape | None:
        """The shape of one image; None where it fills no bucket, or not the one shape there is."""
        [shape] = self.of(*_alone(height, width)).tolist()
        return Shape(*shape) if shape[0] else None

    def least(self, height: int, width: int) -> Shape:
        """The smallest bucket near the aspect of an image."""
        [shape] = nearest(self.tables()[-1], *_alone(height, width)).tolist()
        return Shape(*shape)

    def tables(self) -> tuple[Sides, ...]:
        """The tables of buckets, the largest first; an image goes to the first whose nearest bucket it fills."""
        assert self.aspect is not None, "without buckets there is no table"
        assert self.size >= self.multiple, "the size of a family holds its multiple"
        step = max(self.multiple, self.size // 2 // (LEVELS - 1) // self.multiple * self.multiple)
        least = max(self.multiple, self.size // 2)
        return tuple(_table(size, self.multiple, self.aspect) for size in range(self.size, least - 1, -step))


@lru_cache(maxsize=64)
def _table(size: int, multiple: int, aspect: float) -> Sides:
    """The square, and for each shorter side the longest that the area size * size allows, from wide to tall.

    The last one is cut to `aspect`, so that there is a bucket for the longest images too.
    """
    square = size // multiple * multiple
    lying = [(square, square)]
    for height in range(square, 0, -multiple):
        longest = int(height * aspect + 1e-9)
        width = min(size * size // height, longest) // multiple * multiple
        if width * lying[-1][0] > lying[-1][1] * height:
            lying.append((height, width))
        if size * size // height > longest:
            break
    upright = [(width, height) for height, width in lying if width > height]
    return np.asarray([*reversed(lying), *upright], np.int32)


def nearest(table: Sides, heights: Lengths, widths: Lengths) -> Sides:
    """The bucket whose aspect is nearest to that of each image in proportion; of two as near the larger."""
    aspects = table[:, 0] / table[:, 1]
    # Where one bucket ends and the next begins: by square roots and quotients only, which every machine rounds alike.
    ends = np.sqrt(aspects[:-1] * aspects[1:])
    areas = table[:, 0].astype(np.int64) * table[:, 1]
    ends = np.where(areas[:-1] >= areas[1:], ends, np.nextafter(ends, 0.0))
    found: Sides = table[np.searchsorted(ends, heights / widths, side="left")]
    return found


def covering(heights: Lengths, widths: Lengths, shapes: Sides) -> Sides:
    """Height and width of each image once it is resized to just cover its shape."""
    tall, wide = shapes[:, 0].astype(np.int64), shapes[:, 1].astype(np.int64)
    by_height = tall * widths >= wide * heights
    found = np.where(
        np.stack([by_height, ~by_height], axis=1),
        shapes,
        np.maximum(shapes, np.rint(np.stack([heights * wide / widths, widths * tall / heights], axis=1))),
    )
    return found.astype(np.int32)


def _alone(height: int, width: int) -> tuple[Lengths, Lengths]:
    return np.asarray([height], np.int32), np.asarray([width], np.int32)
