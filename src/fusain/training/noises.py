"""The noise of a training step: plain, or with more of the coarse, as functions of (seed, draw) like all chance."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional

from fusain.data import chance
from fusain.models.family import Fresh


def offset(noise_BCHW: torch.Tensor, offsets_BC11: torch.Tensor, amount: float) -> torch.Tensor:
    """Noise whose mean varies too, so that brightness is learnt (Guttenberg 2023, "Diffusion with offset noise")."""
    return noise_BCHW + amount * offsets_BC11


def pyramid(noise_BCHW: torch.Tensor, fresh: Fresh, discount: float) -> torch.Tensor:
    """Noise of many scales (Whitaker 2023, "Multi-resolution noise for diffusion model training").

    Each level halves the sides of the one before, down to one place, and counts `discount` times as much. Here the sum
    is divided by what its numbers spread to be expected, not by how they did, so that no image depends on others.
    """
    sides, weight, variance = tuple(noise_BCHW.shape[-2:]), 1.0, 1.0
    total, channels = noise_BCHW, noise_BCHW.shape[1]
    while max(sides) > 1:
        sides = tuple((side + 1) // 2 for side in sides)
        weight *= discount
        coarse = fresh((channels, *sides)).to(noise_BCHW.device)
        total = total + weight * functional.interpolate(coarse, noise_BCHW.shape[-2:], mode="bilinear")
        kept = [_kept(small, large) for small, large in zip(sides, noise_BCHW.shape[-2:], strict=True)]
        variance += weight**2 * kept[0] * kept[1]
    return total / math.sqrt(variance)


def _kept(small: int, large: int) -> float:
    """The mean variance of one side of unit noise after it was enlarged: the squares of the weights of a place."""
    weights = functional.interpolate(torch.eye(small).unsqueeze(0), large, mode="linear")
    return float(weights.square().sum(1).mean())


def perturbed(noise: torch.Tensor, other: torch.Tensor, amount: float) -> torch.Tensor:
    """What is added in place of the noise that is asked for (Ning et al. 2023, arXiv 2301.11706, algorithm 3).

    In drawing, each step begins with the faults of the ones before; this makes training see such inputs.
    """
    return noise + amount * other


def of_draws(
    seed: int, draws: chance.Draws, shape: tuple[int, ...], *, offset_by: float, discount: float
) -> torch.Tensor:
    """The noise of these draws."""
    noise = chance.normal(seed, draws, "noise", shape)
    if offset_by:
        channels = (shape[0], *([1] * (len(shape) - 1)))
        noise = offset(noise, chance.normal(seed, draws, "noise offset", channels), offset_by)
    if discount:
        noise = pyramid(noise, lambda level: chance.normal(seed, draws, f"noise of {level[-2:]}", level), discount)
    return noise
