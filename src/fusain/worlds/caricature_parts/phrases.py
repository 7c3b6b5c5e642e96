"""The phrases of a caption before they become a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Phrases:
    """What belongs to the person, what the person wears, where the person is, and what is not there."""

    traits: Sequence[str]
    worn: Sequence[str]
    places: Sequence[str]
    absent: Sequence[str]

    def all(self) -> list[str]:
        return [*self.traits, *self.worn, *self.places, *self.absent]
