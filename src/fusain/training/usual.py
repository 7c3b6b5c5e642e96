"""Between which numbers a method mostly works, by the size of what it trains.

Each span has its evidence in docs/how-to/usual-settings.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

Span = tuple[float, float]
"""The lowest and the highest usual number; both are usual."""
MEDIUM: Final = 100_000_000
LARGE: Final = 1_500_000_000


@dataclass(frozen=True)
class BySize:
    """Spans for networks of fewer weights than `MEDIUM` (miniatures, and most of pixels), for those between, such as
    Stable Diffusion 1.x and 2.x, and for those of `LARGE` and more, such as XL and 3."""

    small: Span
    medium: Span
    large: Span

    def of(self, weights: int) -> Span:
        return self.small if weights < MEDIUM else self.medium if weights < LARGE else self.large


@dataclass(frozen=True)
class Usual:
    """What is usual for a method; of what nothing is known nothing is said."""

    rates: BySize | None = None
    """Learning rates of AdamW."""
    times: Span | None = None
    """How many times each image is learnt."""
    own: Mapping[str, BySize] = field(default_factory=dict)
    """Of its own settings, by name."""


DECAYS: Final = BySize(small=(0.9, 0.9999), medium=(0.99, 0.9999), large=(0.99, 0.9999))
"""Of averages of the weights, whatever the method."""
SUBJECT: Final[Span] = (50, 400)
"""How many times each image of a subject is learnt by a rare word, whatever the method."""
