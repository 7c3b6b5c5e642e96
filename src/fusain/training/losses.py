"""The shared denoising loss: every random part of it is a function of (seed, draw), every image has its own weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as functional
from pydantic import Field

from fusain.data import chance
from fusain.data.batch import Batch
from fusain.errors import FusainError, SettingsError
from fusain.models.family import Family
from fusain.models.noise import debiased_weight, min_snr_weight, p2_weight
from fusain.settings.section import Section
from fusain.training import noises


class LossSettings(Section):
    """How a prediction is compared with its target."""

    kind: Literal["l2", "l1", "huber"] = "l2"
    """`l2` is the usual one; `l1` is sturdier against outliers and slower; `huber` lies between."""
    huber_delta: float = Field(0.1, gt=0, le=10)
    """Error at which `huber` goes from squared to absolute."""
    min_snr_gamma: float = Field(0.0, ge=0, le=100)
    """Evens out the noise levels (Hang et al. 2023): 5 is the usual value, 0 switches it off."""
    debiased: bool = False
    """Counts noisy times more, where the image is decided (Yu et al. 2023); not with `cosine` betas, whose last times
    it makes count without measure."""
    p2_gamma: float = Field(0.0, ge=0, le=10)
    """Counts the clearest times less, where only faint noise is learnt (Choi et al. 2022): 0.5 to 1 are usual, 0
    switches it off."""
    noise_offset: float = Field(0.0, ge=0, le=1)
    """Noise that also shifts whole channels, so that very dark and very bright images are learnt: 0.05 to 0.1."""
    pyramid_discount: float = Field(0.0, ge=0, lt=1)
    """Noise of many scales, each coarser one counting this much of the one before: 0.1 to 0.4; higher is rougher."""
    input_perturbation: float = Field(0.0, ge=0, le=1)
    """Noise beyond that which is asked for, so that drawing forgives its own faults (Ning et al. 2023): 0.1."""
    time_bias: float = Field(0.0, ge=0, le=10)
    """How much oftener noisy times are drawn than clear ones: at 0 all alike, at 1 as often as a time is long. Where
    noise is strong it is decided what is drawn, and captions are heard."""

    def faults(self) -> Iterator[FusainError]:
        rivals = [name for name in ("min_snr_gamma", "debiased", "p2_gamma") if getattr(self, name)]
        if len(rivals) > 1:
            yield SettingsError("E-CFG-033", where="method.loss", rivals=" and ".join(rivals))

    def silent_settings(self) -> dict[str, str]:
        return {} if self.kind == "huber" else {"huber_delta": f"the loss is {self.kind}"}


@dataclass(frozen=True)
class Loss:
    """The loss of a batch, and of each image in it for whoever asks which image was odd."""

    value: torch.Tensor
    images_B: torch.Tensor
    times_B: torch.Tensor


def denoising_loss(
    family: Family,
    batch: Batch,
    settings: LossSettings,
    *,
    seed: int,
    condition_dropout: float = 0.0,
    quantiles: np.ndarray | None = None,
) -> Loss:
    """The mean over the batch of each image's loss times its weight.

    Fixed `quantiles` of time, as the held-out loss has, replace drawn ones; the noise is plain then, as in drawing.
    """
    device = batch.pixels_BCHW.device
    stored = family.encode_pixels(batch.pixels_BCHW) if batch.encoded_images is None else batch.encoded_images
    clean = family.encode_latents(stored, partial(chance.normal, seed, batch.draws, "latents"))
    noise, added = _noise(batch.draws, clean, settings, seed=seed, plain=quantiles is not None)
    if quantiles is None:
        quantiles = chance.uniform(seed, batch.draws, "time") ** (1 / (1 + settings.time_bias))
    times_B = family.times(torch.from_numpy(quantiles).to(device))
    dropped_B = None
    if condition_dropout:
        dropped_B = torch.from_numpy(chance.uniform(seed, batch.draws, "condition") < condition_dropout).to(device)
    predicted = family.predict(
        family.add_noise(clean, added, times_B), times_B, family.encode_condition(batch, dropped_B)
    )
    errors = distance(predicted.float(), family.target(clean, noise, times_B), settings)
    images_B = masked(errors, batch).mean(dim=(1, 2, 3))
    weights_B = batch.weights_B * level_weights(family, times_B, settings)
    # Not by the sum of the weights: what an image counts must not depend on which others its batch holds.
    return Loss((images_B * weights_B).mean(), images_B.detach(), times_B)


def _noise(
    draws: chance.Draws, clean: torch.Tensor, settings: LossSettings, *, seed: int, plain: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The noise that is asked for, and the noise that is added."""
    shape = tuple(clean.shape[1:])
    offset_by, discount = (0.0, 0.0) if plain else (settings.noise_offset, settings.pyramid_discount)
    noise = noises.of_draws(seed, draws, shape, offset_by=offset_by, discount=discount).to(clean.device)
    if plain or not settings.input_perturbation:
        return noise, noise
    other = chance.normal(seed, draws, "input perturbation", shape).to(clean.device)
    return noise, noises.perturbed(noise, other, settings.input_perturbation)


def level_weights(family: Family, times_B: torch.Tensor, settings: LossSettings) -> torch.Tensor | float:
    """How much the noise level of each image counts."""
    prediction, level_B = family.schedule.prediction, family.signal_level(times_B)
    if settings.min_snr_gamma:
        return min_snr_weight(prediction, level_B, settings.min_snr_gamma)
    if settings.debiased:
        return debiased_weight(prediction, level_B)
    if settings.p2_gamma:
        return p2_weight(prediction, level_B, settings.p2_gamma)
    return 1.0


def masked(errors_BCHW: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Errors weighed as the masks of a batch say, brought to the resolution of what is learnt."""
    if batch.masks_B1HW is None:
        return errors_BCHW
    return errors_BCHW * functional.interpolate(batch.masks_B1HW, size=errors_BCHW.shape[-2:], mode="area")


def distance(predicted: torch.Tensor, wanted: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """How far each number of a prediction is off."""
    if settings.kind == "l2":
        return functional.mse_loss(predicted, wanted, reduction="none")
    if settings.kind == "l1":
        return functional.l1_loss(predicted, wanted, reduction="none")
    return functional.huber_loss(predicted, wanted, reduction="none", delta=settings.huber_delta)
