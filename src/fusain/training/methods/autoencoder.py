"""The autoencoder learns: what turns images into the latents that a family works with, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from pydantic import Field

from fusain.data import chance
from fusain.data.batch import Batch
from fusain.errors import SettingsError
from fusain.models.family import Condition, Family, Fresh
from fusain.settings.section import Section
from fusain.training.losses import Loss, LossSettings, distance, masked
from fusain.training.method import Method

MEMORY = 0.99
"""Decay of the running measure of how widely latents spread."""


class AutoencoderSettings(Section):
    """The autoencoder learns to give images back."""

    kind: Literal["autoencoder"] = "autoencoder"
    kl_weight: float = Field(1e-6, ge=0, le=1)
    """How hard latents are drawn towards a normal distribution: more is smoother and less exact."""
    edge_weight: float = Field(0.0, ge=0, le=100)
    """How much differences between neighbouring pixels count beside the pixels: keeps outlines sharp."""
    rescale: bool = False
    """Measure anew what latents are multiplied with. Only for an autoencoder that no model was trained on yet."""
    loss: LossSettings = LossSettings()


class RoundTrip(torch.nn.Module):
    """Pixels to latents and back as one module, so that one wrapper holds both ways."""

    def __init__(self, autoencoder: torch.nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, pixels_BCHW: torch.Tensor, fresh: Fresh | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The images given back, and mean and log-variance of their latents."""
        found = cast(Any, self.autoencoder).encode(pixels_BCHW).latent_dist
        latents = found.mean if fresh is None else found.mean + found.std * fresh(tuple(found.mean.shape[1:]))
        return cast(Any, self.autoencoder).decode(latents, return_dict=False)[0], found.parameters


class Autoencoder(Method):
    """Kingma and Welling 2014, with the small divergence of Rombach et al. 2022."""

    kind: ClassVar[str] = "autoencoder"
    Settings: ClassVar[type[Section]] = AutoencoderSettings
    needs: ClassVar[frozenset[Condition]] = frozenset({"text"})
    reads_condition: ClassVar[bool] = False
    uses_denoiser: ClassVar[bool] = False

    def __init__(self, settings: AutoencoderSettings) -> None:
        self.settings = settings
        self.spread: float | None = None

    def prepare(self, family: Family) -> dict[str, torch.nn.Parameter]:
        if family.autoencoder is None:
            raise SettingsError("E-CFG-031", where="method.kind", family=family.kind)
        family.network = RoundTrip(family.autoencoder).requires_grad_(True)
        return dict(family.network.named_parameters())

    def loss(self, family: Family, batch: Batch, *, seed: int, quantiles: np.ndarray | None = None) -> Loss:
        pixels, trains = batch.pixels_BCHW, quantiles is None

        def fresh(shape: tuple[int, ...]) -> torch.Tensor:
            return chance.normal(seed, batch.draws, "latents", shape).to(pixels.device)

        given_back, moments = family.network(pixels, fresh if trains else None)
        images_B = self._distance(given_back.float(), batch)
        if trains:
            self._measure(moments.detach().float())
            images_B = images_B + self.settings.kl_weight * divergence(moments.float())
        value = (images_B * batch.weights_B).mean()
        return Loss(value, images_B.detach(), torch.zeros(len(batch), device=pixels.device))

    def _distance(self, given_back: torch.Tensor, batch: Batch) -> torch.Tensor:
        pixels = batch.pixels_BCHW
        found = masked(distance(given_back, pixels, self.settings.loss), batch).mean(dim=(1, 2, 3))
        if self.settings.edge_weight:
            for side in (2, 3):
                edges = distance(given_back.diff(dim=side), pixels.diff(dim=side), self.settings.loss)
                found = found + self.settings.edge_weight * masked(edges, batch).mean(dim=(1, 2, 3))
        return found

    def _measure(self, moments: torch.Tensor) -> None:
        spread = moments.chunk(2, dim=1)[0].std().item()
        self.spread = spread if self.spread is None else MEMORY * self.spread + (1 - MEMORY) * spread

    def shown(self, family: Family, batch: Batch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            given_back, _ = family.network(batch.pixels_BCHW, None)
        return {"original": batch.pixels_BCHW, "given back": given_back.float()}

    def state(self) -> dict[str, Any]:
        return {"spread": self.spread}

    def restore(self, family: Family, state: dict[str, Any]) -> None:
        self.spread = state["spread"]

    def save(self, family: Family, folder: Path) -> None:
        if self.settings.rescale and self.spread:
            cast(Any, family.autoencoder).register_to_config(scaling_factor=1 / self.spread)
        family.save(folder)

    def attach(self, family: Family, folder: Path) -> None:
        family.load(folder)


def divergence(moments: torch.Tensor) -> torch.Tensor:
    """From a standard normal distribution, of each image (Kingma and Welling 2014, appendix B)."""
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-30.0, 20.0)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=(1, 2, 3))
