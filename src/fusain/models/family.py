"""The contract of a family: what a kind of model must be able to do to be trained, saved and drawn from.

Life cycle of one run: `__init__` builds or loads the network -> the method says which parameters learn -> for each
batch `encode_pixels`, `encode_latents`, `encode_condition`, `times`, `add_noise`, `predict`, `target` -> `draw` for
samples -> `save`. A family never asks which method trains it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from fusain.data.batch import Batch
from fusain.models.noise import Betas, Prediction
from fusain.settings.section import Section

Condition = Literal["none", "class", "text"]


@dataclass(frozen=True)
class Facts:
    """What a family must know of the data before it is built."""

    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NoiseSchedule:
    """How a family adds noise, in the terms that every sampler needs."""

    betas: Betas
    steps: int
    prediction: Prediction

    def as_diffusers(self) -> dict[str, Any]:
        """The settings that every diffusers scheduler takes."""
        names = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
        return {
            "num_train_timesteps": self.steps,
            "beta_schedule": names[self.betas],
            "prediction_type": {"epsilon": "epsilon", "v": "v_prediction"}[self.prediction],
        }


@dataclass(frozen=True)
class DrawRequest:
    """One chunk of images to draw: a generator an image, so that neighbours never change an image's noise."""

    scheduler: Any
    generators: Sequence[torch.Generator]
    steps: int
    eta: float
    guidance: float
    labels_BK: torch.Tensor | None = None


class Family(ABC):
    """One model, loaded."""

    kind: ClassVar[str]
    Settings: ClassVar[type[Section]]
    """Has at least `kind`, `condition` and `size`, the side of its images in pixels."""

    condition: Condition
    """What steers it."""
    facts: Facts
    schedule: NoiseSchedule
    network: torch.nn.Module
    """All that can learn; the engine may put a wrapper in its place."""

    @classmethod
    @abstractmethod
    def tiny(cls, condition: Condition) -> Section:
        """Settings of the smallest real instance, for tests."""

    @classmethod
    @abstractmethod
    def conditions(cls) -> tuple[Condition, ...]:
        """What instances of this family can be steered by."""

    @abstractmethod
    def __init__(self, settings: Any, facts: Facts) -> None:
        """Build the network with fresh weights from torch's generator."""

    def encode_pixels(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels to what is learnt: deterministic, so it can be cached."""
        return pixels_BCHW

    def encode_latents(self, stored: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """The random part of encoding, which must happen at training time."""
        return stored

    @abstractmethod
    def encode_condition(self, batch: Batch, dropped_B: torch.Tensor | None) -> Any:
        """What steers each image; where `dropped_B` holds, the unconditional state instead."""

    @abstractmethod
    def times(self, quantiles_B: torch.Tensor) -> torch.Tensor:
        """Times for numbers in [0, 1): uniform ones for training, fixed ones for the held-out loss."""

    @abstractmethod
    def signal_level(self, times_B: torch.Tensor) -> torch.Tensor:
        """alpha-bar at the times."""

    @abstractmethod
    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, times_B: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def target(self, clean: torch.Tensor, noise: torch.Tensor, times_B: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def predict(self, noisy: torch.Tensor, times_B: torch.Tensor, condition: Any) -> torch.Tensor: ...

    def condition_parameters(self) -> Iterator[torch.nn.Parameter]:
        """The part that reads the condition, where it learns by itself; it may be frozen after a warm-up."""
        return iter(())

    @abstractmethod
    def pipeline(self, scheduler: Any) -> Any:
        """The diffusers pipeline that draws with this network."""

    @abstractmethod
    def draw(self, request: DrawRequest) -> torch.Tensor:
        """One chunk of images, B x 3 x H x W in [0, 1]."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Weights and configuration in the form that diffusers loads."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Put weights that `save` wrote into the network."""


@contextmanager
def at_rest(network: torch.nn.Module) -> Iterator[None]:
    """Within, the network has neither dropout nor gradients; afterwards it is as it was."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)
