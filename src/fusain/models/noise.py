"""The maths of diffusion noise as pure functions; a signal level is alpha-bar, the share of the image that is left."""

from __future__ import annotations

import math
from typing import Literal

import torch

Betas = Literal["linear", "scaled_linear", "cosine"]
Prediction = Literal["epsilon", "v"]


def betas(schedule: Betas, steps: int, *, start: float = 1e-4, end: float = 0.02) -> torch.Tensor:
    """Noise added at each of `steps` times.

    linear: Ho et al. 2020, section 4; scaled_linear: Rombach et al. 2022 (linear in the square root);
    cosine: Nichol and Dhariwal 2021, equation 17.
    """
    if schedule == "linear":
        return torch.linspace(start, end, steps)
    if schedule == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, steps) ** 2

    def level(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    return torch.tensor([min(1 - level((i + 1) / steps) / level(i / steps), 0.999) for i in range(steps)])


def signal_levels(betas_T: torch.Tensor) -> torch.Tensor:
    """alpha-bar of Ho et al. 2020, equation 4."""
    return torch.cumprod(1 - betas_T, dim=0)


def _as_images(level_B: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return level_B.reshape(-1, *([1] * (like.ndim - 1)))


def add_noise(clean: torch.Tensor, noise: torch.Tensor, level_B: torch.Tensor) -> torch.Tensor:
    """x_t of Ho et al. 2020, equation 4."""
    level = _as_images(level_B, clean)
    return level.sqrt() * clean + (1 - level).sqrt() * noise


def target(prediction: Prediction, clean: torch.Tensor, noise: torch.Tensor, level_B: torch.Tensor) -> torch.Tensor:
    """What the network is asked for: the noise, or the velocity of Salimans and Ho 2022, appendix D."""
    if prediction == "epsilon":
        return noise
    level = _as_images(level_B, clean)
    return level.sqrt() * noise - (1 - level).sqrt() * clean


def min_snr_weight(prediction: Prediction, level_B: torch.Tensor, gamma: float) -> torch.Tensor:
    """The weight of a loss at a signal level (Hang et al. 2023, section 3.4)."""
    snr = level_B / (1 - level_B)
    capped = snr.clamp(max=gamma)
    return capped / snr if prediction == "epsilon" else capped / (snr + 1)
