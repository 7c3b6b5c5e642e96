"""The maths of flow matching as pure functions: straight lines from an image at time 0 to noise at time 1.

Lipman et al. 2023 (arXiv 2210.02747), Liu et al. 2023 (arXiv 2209.03003). Times are functions of quantiles in [0, 1):
uniform ones give the density that is named, evenly spread ones its quantiles, as the held-out loss has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

Density = Literal["logit_normal", "uniform"]


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


def add_noise(clean: torch.Tensor, noise: torch.Tensor, times_B: torch.Tensor) -> torch.Tensor:
    """The point of the line at a time."""
    time = times_B.reshape(-1, *([1] * (clean.ndim - 1)))
    return (1 - time) * clean + time * noise


def target(clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The velocity, which is the same all along the line."""
    return noise - clean


@dataclass(frozen=True)
class FlowSchedule:
    """How a family that matches a flow adds noise, in the terms that every loss and every sampler needs."""

    shift: float = 1.0
    """How far times are moved towards the noise, in training as in drawing."""
    density: Density = "logit_normal"
    mean: float = 0.0
    spread: float = 1.0
    steps: int = 1000
    """Into so many times the line was cut; the network reads the number of one, whole or not."""
    prediction: ClassVar[Literal["flow"]] = "flow"

    def times(self, quantiles_B: torch.Tensor) -> torch.Tensor:
        """From the first of the `steps` times, after which there would be no noise to learn from, to the noise."""
        if self.density == "uniform":
            times_B = uniform_times(quantiles_B)
        else:
            times_B = logit_normal_times(quantiles_B, self.mean, self.spread)
        return shifted_times(times_B.clamp(min=1 / self.steps), self.shift).float()

    def signal_level(self, times_B: torch.Tensor) -> torch.Tensor:
        """The share of the image, as the diffusion has it that is as noisy."""
        signal_B = (1 - times_B) ** 2
        return signal_B / (signal_B + times_B**2)

    def add_noise(self, clean: torch.Tensor, fresh: torch.Tensor, times_B: torch.Tensor) -> torch.Tensor:
        return add_noise(clean, fresh, times_B)

    def target(self, clean: torch.Tensor, fresh: torch.Tensor, times_B: torch.Tensor) -> torch.Tensor:
        return target(clean, fresh)

    def as_diffusers(self) -> dict[str, Any]:
        """The settings that diffusers' schedulers of flows take."""
        return {"num_train_timesteps": self.steps, "shift": self.shift}

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any], *, shift: float | None = None, **density: Any) -> FlowSchedule:
        """The flow that a model was trained with; what is left out is as diffusers has it."""
        found = config.get("shift", 1.0) if shift is None else shift
        return cls(shift=float(found), steps=config.get("num_train_timesteps", 1000), **density)
