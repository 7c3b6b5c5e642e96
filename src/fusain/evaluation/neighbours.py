"""The training images nearest to each of some images: exact, in pixels, chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

LARGEST_SIDE: Final = 64
"""Larger images are compared at this size: copies show there, and noise no longer hides them."""
CELLS: Final = 8_000_000
"""Distances that are held at once."""


@dataclass(frozen=True)
class Neighbours:
    """For each of N images its k nearest references, nearest first."""

    rows: npt.NDArray[np.int64]
    """N x k."""
    distances: npt.NDArray[np.float32]
    """N x k, root mean square over pixels and channels, in levels of 255."""

    @property
    def crowding(self) -> npt.NDArray[np.float32]:
        """The nearest distance by the mean of all k, Carlini et al. (2023): small only for what one image stands out
        as near to, however sharp or blurred the image, and however often the reference is repeated less than k times.
        """
        ratios: npt.NDArray[np.float32] = self.distances[:, 0] / np.maximum(self.distances.mean(axis=1), 1e-6)
        return ratios


def nearest(images: npt.NDArray[np.uint8], references: npt.NDArray[np.uint8], *, count: int) -> Neighbours:
    """The `count` nearest references of each image, each compared as it is and mirrored."""
    count = min(count, len(references))
    theirs = _vectors(references)
    squares = (theirs * theirs).sum(dim=1)
    ours, mirrored = _vectors(images), _vectors(images[:, :, ::-1])
    chunk = max(1, CELLS // max(len(references), count * theirs.shape[1]))
    rows, distances = [], []
    for start in range(0, len(images), chunk):
        both = [side[start : start + chunk] for side in (ours, mirrored)]
        # The squares of the images themselves are left out: they change no order.
        rough = torch.minimum(*(squares - 2 * side @ theirs.T for side in both))
        found = rough.topk(count, largest=False).indices
        # Sums of squares lose what is small, and copies are what is small: the few found are measured exactly.
        exact = torch.minimum(*((side.unsqueeze(1) - theirs[found]).square().mean(dim=2) for side in both)).sqrt()
        ordered = exact.sort(dim=1, stable=True)
        distances.append(ordered.values.numpy())
        rows.append(found.gather(1, ordered.indices).numpy())
    if not rows:
        return Neighbours(np.zeros((0, count), np.int64), np.zeros((0, count), np.float32))
    return Neighbours(np.concatenate(rows), np.concatenate(distances))


def _vectors(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    height, width = images.shape[1:3]
    shrink = max(height, width) / LARGEST_SIDE
    if shrink > 1:
        size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
        small = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)) for image in images]
        images = np.stack(small) if small else np.zeros((0, size[1], size[0], 3), np.uint8)
    return torch.from_numpy(np.ascontiguousarray(images)).flatten(start_dim=1).float()
