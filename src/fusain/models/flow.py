"""The maths of flow matching as pure functions: straight lines from an image at time 0 to noise at time 1.

Lipman et al. 2023 (arXiv 2210.02747), Liu et al. 2023 (arXiv 2209.03003). Times are functions of quantiles in [0, 1):
uniform ones give the density that is named, evenly spread ones its quantiles, as the held-out loss has them.
"""

from __future__ import annotations

import torch


def uniform_times(quantiles_B: torch.Tensor) -> torch.Tensor:
    """All times alike."""
    return quantiles_B


def logit_normal_times(quantiles_B: torch.Tensor, mean: float = 0.0, spread: float = 1.0) -> torch.Tensor:
    """Middle times oftener than the ends: Esser et al. 2024 (arXiv 2403.03206).

    Below 0 the mean prefers clear times, above 0 noisy ones.
    """
    return torch.sigmoid(mean + spread * torch.special.ndtri(quantiles_B))


def shifted_times(times_B: torch.Tensor, shift: float) -> torch.Tensor:
    """Times moved towards the noise, as large images need it: Esser et al. 2024."""
    return shift * times_B / (1 + (shift - 1) * times_B)


def shift_between(pixels: int, base_pixels: int) -> float:
    """The shift by which an image of so many places is as noisy as one of `base_pixels` is without."""
    return float((pixels / base_pixels) ** 0.5)


def add_noise(clean: torch.Tensor, noise: torch.Tensor, times_B: torch.Tensor) -> torch.Tensor:
    """The point of the line at a time."""
    time = times_B.reshape(-1, *([1] * (clean.ndim - 1)))
    return (1 - time) * clean + time * noise


def target(clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The velocity, which is the same all along the line."""
    return noise - clean
