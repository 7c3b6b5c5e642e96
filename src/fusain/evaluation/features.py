"""Features of small images without any labels: the main directions in which the training images differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

DIRECTIONS: Final = 64
FITTED_ON: Final = 3_000
"""Images that are enough to find the directions of small images."""


@dataclass(frozen=True)
class MainDirections:
    """A projection of pixels on the directions of largest variance. Noise and blur lie mostly outside of them."""

    mean: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float32]

    @classmethod
    def of(cls, images: npt.NDArray[np.uint8], count: int = DIRECTIONS) -> MainDirections:
        """Fitted on training images: evenly spaced ones, where there are many."""
        chosen = images[:: max(1, -(-len(images) // FITTED_ON))]
        pixels = _flat(chosen)
        mean = np.asarray(pixels.mean(axis=0), dtype=np.float32)
        centred = np.asarray(pixels - mean, dtype=np.float64)
        values, vectors = np.linalg.eigh(centred.T @ centred)
        largest = np.argsort(values)[::-1][:count]
        return cls(mean, vectors[:, largest].astype(np.float32))

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.asarray((_flat(images) - self.mean) @ self.directions, dtype=np.float32)


def _flat(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    pixels: npt.NDArray[np.float32] = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
    return pixels
