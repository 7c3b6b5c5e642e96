"""Says what was found in files that were read again after saving; it needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReadBack:
    """What was found when the saved files were read again; fewer layers than were learnt are a fault before this."""

    files: tuple[str, ...]
    layers: int
    learnt: int
    largest: float
    """How far a change is from the one that was learnt, at most, as a share of the layer's largest number."""

    def __str__(self) -> str:
        return (
            f"{self.layers:,} of {self.learnt:,} layers in {' and '.join(self.files)} match, each change within "
            f"{self.largest:.1e} of its largest number"
        )
