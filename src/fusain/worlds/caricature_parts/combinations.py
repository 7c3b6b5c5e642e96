"""Combinations of values that a world keeps out, so that what was never drawn together can be asked for later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fusain.worlds.caricature_parts.attributes import ATTRIBUTES, Face, unseen

# Weights and remainder searched for so that, of every value and every pair of values, a like share is kept out.
_WEIGHTS: Final[Mapping[str, int]] = {"hair": 2, "glasses": 15, "beard": 5, "hat": 9, "background": 10}
_MODULUS: Final = 16
_REMAINDER: Final = 7


def is_kept_out(face: Face) -> bool:
    """Whether a face shows one of the combinations of hair, glasses, beard, hat and background that are kept out."""
    if not unseen(face).isdisjoint(_WEIGHTS):
        return False
    total = sum(weight * ATTRIBUTES[name].index(face.attributes[name]) for name, weight in _WEIGHTS.items())
    return total % _MODULUS == _REMAINDER
