"""From a change to what is added to a weight: DoRA turns the weight by the change and sets its length apart."""

from __future__ import annotations

from typing import Final

import torch

SHORTEST: Final = 1e-12
"""A row without length stays without; nothing is divided by zero."""


def merged(weight: torch.Tensor, change: torch.Tensor, magnitude: torch.Tensor | None, strength: float) -> torch.Tensor:
    """`strength` times the way from `weight` to the changed weight, in fp32 where the weight lies."""
    change = change.to(weight.device).reshape(weight.shape)
    if magnitude is None:
        return strength * change
    # A weight is much longer than its change, so the difference of two weights is taken in fp64 where there is one.
    wide = torch.float32 if weight.device.type == "mps" else torch.float64
    before = weight.detach().to(wide)
    after = before + change
    # Older LyCORIS files measure what enters, not what leaves: their lengths are no row of numbers.
    axis = 0 if magnitude.ndim == 1 else 1
    found = after.transpose(0, axis).flatten(1).norm(dim=1).clamp_min(SHORTEST)
    along = [1] * after.ndim
    along[axis] = -1
    factors = (magnitude.to(weight.device, wide).flatten() / found).reshape(along)
    difference: torch.Tensor = strength * (after * factors - before)
    return difference.float()
