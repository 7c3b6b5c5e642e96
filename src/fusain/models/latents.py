"""From pixels to the latents that a network learns: what an autoencoder makes of them, and the random part of it."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch

from fusain.models import weights
from fusain.models.family import Fresh

USUAL_SCALE = 0.18215
"""What latents are multiplied with where a configuration does not say."""


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Within, what would overflow in half precision is computed in full, whatever the precision around it."""
    if device.type == "meta":  # whoever only counts computes nothing
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def as_precise_as_needed(autoencoder: Any) -> AbstractContextManager[Any]:
    """Some autoencoders overflow in half precision, as that of XL does, and say so; others may work in it."""
    device = next(autoencoder.parameters()).device
    return full_precision(device) if autoencoder.config.force_upcast else nullcontext()


def moments(autoencoder: Any, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """Mean and log-variance of the latents, one after the other."""
    with torch.no_grad():
        return cast(torch.Tensor, autoencoder.encode(pixels_BCHW).latent_dist.parameters)


def load_autoencoder(autoencoder: Any, folder: Path) -> None:
    """Weights that were saved, and what the latents of them are multiplied with."""
    weights.load_into(autoencoder, folder)
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    autoencoder.register_to_config(scaling_factor=stored["scaling_factor"])


def sampled(stored: torch.Tensor, fresh: Fresh | None) -> torch.Tensor:
    """Latents from their means and log-variances, as diffusers' DiagonalGaussianDistribution samples them."""
    mean, log_variance = stored.chunk(2, dim=1)
    if fresh is None:
        return mean
    spread = torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))
    return mean + spread * fresh(tuple(mean.shape[1:])).to(mean.device)
