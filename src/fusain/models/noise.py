"""The maths of diffusion noise as pure functions; a signal level is alpha-bar, the share of the image that is left."""

from __future__ import annotations

import math
from typing import Final, Literal

import torch

Betas = Literal["linear", "scaled_linear", "cosine"]
Prediction = Literal["epsilon", "v", "sample"]
PREDICTIONS: Final[dict[Prediction, str]] = {"epsilon": "epsilon", "v": "v_prediction", "sample": "sample"}
"""Our names and diffusers'."""
Asked = Literal["epsilon", "v", "sample", "flow"]
"""What a network may be asked for: one of these, or the way from the image to the noise (`models/flow.py`)."""


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


def zero_terminal(betas_T: torch.Tensor) -> torch.Tensor:
    """Betas after which nothing of the image is left: Lin et al. 2024 (arXiv 2305.08891), algorithm 1.

    The square roots of the signal levels are moved so that the last one is 0 and stretched so that the first one stays.
    """
    roots = signal_levels(betas_T).sqrt()
    moved = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
    levels = moved**2
    return 1 - torch.cat([levels[:1], levels[1:] / levels[:-1]])


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
    """What the network is asked for: the noise, the image, or the velocity of Salimans and Ho 2022, appendix D."""
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return clean
    level = _as_images(level_B, clean)
    return level.sqrt() * noise - (1 - level).sqrt() * clean


def min_snr_weight(prediction: Asked, level_B: torch.Tensor, gamma: float) -> torch.Tensor:
    """min(SNR, gamma) / SNR of the noise's error (Hang et al. 2023, arXiv 2303.09556, section 3.4)."""
    snr_B = _snr(level_B)
    return _in_terms_of(prediction, snr_B.clamp(max=gamma), snr_B)


def debiased_weight(prediction: Asked, level_B: torch.Tensor) -> torch.Tensor:
    """1 / sqrt(SNR) of the noise's error (Yu et al. 2023, arXiv 2310.08442)."""
    snr_B = _snr(level_B)
    return _in_terms_of(prediction, snr_B.sqrt(), snr_B)


def p2_weight(prediction: Asked, level_B: torch.Tensor, gamma: float, k: float = 1.0) -> torch.Tensor:
    """1 / (k + SNR)^gamma of the noise's error (Choi et al. 2022, arXiv 2204.00227)."""
    snr_B = _snr(level_B)
    return _in_terms_of(prediction, snr_B / (k + snr_B) ** gamma, snr_B)


def _snr(level_B: torch.Tensor) -> torch.Tensor:
    """The signal-to-noise ratio: of Stable Diffusion from about 1,000 at the first time to 0.005 at the last."""
    return level_B / (1 - level_B)


def _in_terms_of(prediction: Asked, of_clean_B: torch.Tensor, snr_B: torch.Tensor) -> torch.Tensor:
    """A weight of the image's squared error as one of what is predicted.

    Of one and the same error, that of the noise is SNR times, that of the velocity SNR + 1 times, and that of a flow
    (1 + sqrt(SNR))^2 times as large.
    """
    if prediction == "sample":
        return of_clean_B
    if prediction == "flow":
        return of_clean_B / (1 + snr_B.sqrt()) ** 2
    return of_clean_B / (snr_B if prediction == "epsilon" else snr_B + 1)
