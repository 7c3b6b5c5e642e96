"""Every random choice as a function of (seed, n, what), n the running number of the draw: nothing is ever consumed.

So batch size, accumulation, workers, processes and a resume change no choice, and an image that is drawn twice gets
two noises.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

Keys = npt.NDArray[np.uint64]
Draws = npt.NDArray[np.int64]

_GOLDEN: Final = 0x9E3779B97F4A7C15


def keys(seed: int, draws: Draws, what: str) -> Keys:
    """A 64-bit key for each draw, independent between seeds, draws and purposes (SplitMix64, Steele et al. 2014)."""
    purpose = int.from_bytes(hashlib.blake2b(f"{seed}/{what}".encode(), digest_size=8).digest(), "little")
    with np.errstate(over="ignore"):
        state = np.uint64(purpose) + (draws.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def key(seed: int, draw: int, what: str) -> int:
    """The key of one draw, as a seed for a generator."""
    return int(keys(seed, np.asarray([draw]), what)[0])


def uniform(seed: int, draws: Draws, what: str) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each draw."""
    return (keys(seed, draws, what) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(seed: int, draws: Draws, what: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal numbers of `shape` for each draw, on the CPU so that every device sees the same ones."""
    numbers = torch.empty(len(draws), *shape)
    generator = torch.Generator()
    for row, row_key in zip(numbers, keys(seed, draws, what).tolist(), strict=True):
        row.normal_(generator=generator.manual_seed(row_key))
    return numbers


def permutation(seed: int, epoch: int, count: int, what: str = "order") -> npt.NDArray[np.int64]:
    """The order of one epoch."""
    return np.random.Generator(np.random.Philox(key(seed, epoch, what))).permutation(count)
