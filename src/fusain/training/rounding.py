"""Weights that learn in bf16: every step is taken in full and rounded up or down by chance.

Rounded to the nearest, a step smaller than half of what bf16 tells apart would be lost each time; by chance it is taken
as often as it is large, and nothing is lost in the mean (Gupta et al. 2015).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

CUT = 16
"""Bits of an fp32 number that bf16 has no room for."""


def narrow(weights: Iterable[torch.nn.Parameter]) -> None:
    """Keep weights in bf16; vectors, which take no room and scale whole layers, stay as they are."""
    for weight in weights:
        if weight.dim() > 1:
            weight.data = weight.data.to(torch.bfloat16)


@contextmanager
def in_full(weight: torch.Tensor) -> Iterator[None]:
    """Within, a weight and its gradient are in fp32; afterwards the weight is what it was kept in, by chance."""
    if weight.dtype != torch.bfloat16:
        yield
        return
    gradient, weight.grad = weight.grad, None
    weight.data = weight.data.float()
    weight.grad = None if gradient is None else gradient.float()
    try:
        yield
    finally:
        weight.grad = None
        weight.data = by_chance(weight.data)


def by_chance(numbers: torch.Tensor) -> torch.Tensor:
    """In bf16: the neighbour below or above, the nearer one oftener, so that the mean is right.

    Chance is PyTorch's own, which the loop seeds by the number of each step: a run that goes on rounds alike.
    """
    dice = torch.randint(1 << CUT, numbers.shape, dtype=torch.int32, device=numbers.device)
    bits = (numbers.view(torch.int32) + dice) & -(1 << CUT)
    return torch.where(numbers.isfinite(), bits.view(torch.float32), numbers).to(torch.bfloat16)
