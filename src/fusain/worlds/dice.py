"""The random choices of one drawing, all from one seed and the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeVar

import numpy as np

Choice = TypeVar("Choice")

_ROLLS: Final = 96


@lru_cache(maxsize=32)
def _rolled(label: int, seed: int) -> tuple[float, ...]:
    """Kept for a moment: the same dice are taken for a caption in each language."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((label, seed))))
    return tuple(generator.random(_ROLLS).tolist())


class Dice:
    """A block of uniform numbers rolled at once, since one call of a generator costs more than a drawing's choice."""

    def __init__(self, label: int, seed: int) -> None:
        self._rolls = list(_rolled(label, seed))

    def below(self, count: int) -> int:
        return int(self._rolls.pop() * count)

    def chance(self, share: float) -> bool:
        return self._rolls.pop() < share

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._rolls.pop()

    def pick(self, choices: Sequence[Choice]) -> Choice:
        return choices[int(self._rolls.pop() * len(choices))]
