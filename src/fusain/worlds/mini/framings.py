"""Sizes and crops for a miniature that is told of them: some drawings become small ones, some wide or tall ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from fusain.data.images import Pixels
from fusain.models.family import Framing

EVERY: Final = 6
"""One of so many drawings becomes small, and one wide or tall; the others stay whole."""


def vary(folder: Path) -> None:
    """Change drawings in a folder: enlarged again small ones are soft, and crops of long ones show the face aside."""
    for number, path in enumerate(sorted(folder.glob("*.png"))):
        kind = number % EVERY
        if kind < EVERY - 2:
            continue
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        changed = _small(pixels) if kind == EVERY - 2 else _long(pixels, is_wide=bool(number // EVERY % 2))
        Image.fromarray(changed).save(path, compress_level=1)


def _small(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    return np.asarray(Image.fromarray(pixels).resize((width // 2, height // 2), Image.Resampling.LANCZOS))


def _long(pixels: Pixels, *, is_wide: bool) -> Pixels:
    """Half as long again, by the ground at its edges."""
    more, none = (pixels.shape[is_wide] // 4,) * 2, (0, 0)
    return np.pad(pixels, (none, more, none) if is_wide else (more, none, none), mode="edge")


def shown(size: int) -> Mapping[str, tuple[Framing, ...]]:
    """What a sheet shows, by title: one drawing as if it had been each of these."""
    long, middle, end = size + size // 2, size // 4, size // 2
    return {
        "whole, and small once": ((size, size, 0, 0), (size // 2, size // 2, 0, 0)),
        "the left, the middle and the right of a wide one": tuple((size, long, 0, left) for left in (0, middle, end)),
        "the top, the middle and the foot of a tall one": tuple((long, size, top, 0) for top in (0, middle, end)),
    }
