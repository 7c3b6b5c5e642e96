"""The random choices of one drawing, all from one seed and the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np

Choice = TypeVar("Choice")

_ROLLS: Final = 96


class Dice:
    """A block of uniform numbers rolled at once, since one call of a generator costs more than a drawing's choice."""

    def __init__(self, label: int, seed: int) -> None:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((label, seed))))
        self._rolls: list[float] = generator.random(_ROLLS).tolist()

    def below(self, count: int) -> int:
        return int(self._rolls.pop() * count)

    def chance(self, share: float) -> bool:
        return self._rolls.pop() < share

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._rolls.pop()

    def pick(self, choices: Sequence[Choice]) -> Choice:
        return choices[int(self._rolls.pop() * len(choices))]
