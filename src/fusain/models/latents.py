"""From pixels to the latents that a network learns: what an autoencoder makes of them, and the random part of it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch

from fusain.models.family import Fresh

USUAL_SCALE = 0.18215
"""What latents are multiplied with where a configuration does not say."""


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Within, what would overflow in half precision is computed in full, whatever the precision around it."""
    if device.type == "meta":  # whoever only counts computes nothing
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def moments(autoencoder: Any, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """Mean and log-variance of the latents, one after the other."""
    with torch.no_grad():
        return cast(torch.Tensor, autoencoder.encode(pixels_BCHW).latent_dist.parameters)


def sampled(stored: torch.Tensor, fresh: Fresh | None) -> torch.Tensor:
    """Latents from their means and log-variances, as diffusers' DiagonalGaussianDistribution samples them."""
    mean, log_variance = stored.chunk(2, dim=1)
    if fresh is None:
        return mean
    spread = torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))
    return mean + spread * fresh(tuple(mean.shape[1:])).to(mean.device)
