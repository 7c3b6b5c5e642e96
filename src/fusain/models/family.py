"""The contract of a family: what a kind of model must be able to do to be trained, saved and drawn from.

Life cycle of one run: `__init__` builds or loads the network -> the method says which parameters learn -> `to` the
device -> for each batch `encode_pixels`, `encode_latents`, `encode_condition`, `times`, `add_noise`, `predict`,
`target` -> `draw` for samples -> `save`. A family never asks which method trains it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import torch

from fusain.data.batch import Batch
from fusain.errors import SettingsError
from fusain.models import noise
from fusain.models.flow import FlowSchedule
from fusain.models.targets import Targets
from fusain.settings.notice import Notice
from fusain.settings.section import Section

Condition = Literal["none", "class", "text"]
BETAS: Final[dict[noise.Betas, str]] = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "cosine": "squaredcos_cap_v2",
}
"""Our names and diffusers'."""
Fresh = Callable[[tuple[int, ...]], torch.Tensor]
"""Standard normal numbers of a shape for each image of a batch."""

Framing = tuple[int, int, int, int]
"""Height and width of an image before resizing, then top and left of the crop, as a batch tells them."""


@dataclass(frozen=True)
class Facts:
    """What a family must know of the data before it is built."""

    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NoiseSchedule:
    """How a family adds noise, in the terms that every loss and every sampler needs."""

    betas: noise.Betas
    steps: int
    prediction: noise.Prediction
    start: float = 1e-4
    end: float = 0.02
    of_latents: bool = False
    """Whether it is latents that are noisy: they do not end at -1 and 1 as pixels do."""
    zero_terminal_snr: bool = False
    """Whether nothing of the image is left at the last time, in training as in drawing."""

    def __post_init__(self) -> None:
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise SettingsError("E-CFG-032", where="family.zero_terminal_snr")

    def times(self, quantiles_B: torch.Tensor) -> torch.Tensor:
        return (quantiles_B * self.steps).long().clamp(max=self.steps - 1)

    def signal_level(self, times_B: torch.Tensor) -> torch.Tensor:
        return self._levels.to(times_B.device)[times_B]

    def add_noise(self, clean: torch.Tensor, fresh: torch.Tensor, times_B: torch.Tensor) -> torch.Tensor:
        return noise.add_noise(clean, fresh, self.signal_level(times_B))

    def target(self, clean: torch.Tensor, fresh: torch.Tensor, times_B: torch.Tensor) -> torch.Tensor:
        return noise.target(self.prediction, clean, fresh, self.signal_level(times_B))

    @cached_property
    def _levels(self) -> torch.Tensor:
        betas = noise.betas(self.betas, self.steps, start=self.start, end=self.end)
        return noise.signal_levels(noise.zero_terminal(betas) if self.zero_terminal_snr else betas)

    @classmethod
    def from_diffusers(
        cls, config: Mapping[str, Any], prediction: noise.Prediction, *, zero_terminal_snr: bool | None = None
    ) -> NoiseSchedule:
        """The noise that a latent model was trained with; what is left out is as Stable Diffusion has it."""
        zero = bool(config.get("rescale_betas_zero_snr")) if zero_terminal_snr is None else zero_terminal_snr
        return cls(
            betas=next(
                ours for ours, theirs in BETAS.items() if theirs == config.get("beta_schedule", "scaled_linear")
            ),
            steps=config.get("num_train_timesteps", 1000),
            prediction=prediction,
            start=config.get("beta_start", 0.00085),
            end=config.get("beta_end", 0.012),
            of_latents=True,
            zero_terminal_snr=zero,
        )

    def as_diffusers(self) -> dict[str, Any]:
        """The settings that diffusers' schedulers take; all of them, but for the zero terminal SNR."""
        return {
            "num_train_timesteps": self.steps,
            "beta_schedule": BETAS[self.betas],
            "beta_start": self.start,
            "beta_end": self.end,
            "prediction_type": noise.PREDICTIONS[self.prediction],
            **({"rescale_betas_zero_snr": True} if self.zero_terminal_snr else {}),
        }


Schedule = NoiseSchedule | FlowSchedule
"""Diffusion or flow matching: both say times, noise and targets, and how diffusers' schedulers are set."""


@dataclass(frozen=True)
class DrawRequest:
    """One chunk of images to draw: a generator an image, so that neighbours never change an image's noise."""

    scheduler: Any
    generators: Sequence[torch.Generator]
    steps: int
    eta: float
    guidance: float
    labels_BK: torch.Tensor | None = None
    prompts: Sequence[str] | None = None
    negatives: Sequence[str] | None = None
    size: tuple[int, int] | None = None
    """Height and width in pixels; None draws at the size of the family."""
    framing: Framing | None = None
    """What the images are to look as if they had been, for families that are told so; None for whole images."""


class Family(ABC):
    """One model, loaded."""

    kind: ClassVar[str]
    Settings: ClassVar[type[Section]]
    """Has at least `kind`, `condition` and `size`, the side of its images in pixels."""

    multiple: int = 1
    """What the sides of its images must be divisible by."""
    condition: Condition
    """What steers it."""
    facts: Facts
    schedule: Schedule
    network: torch.nn.Module
    """All that can learn; the engine may put a wrapper in its place."""
    denoiser: ClassVar[str] = ""
    """The part of `network` that predicts, and may be compiled; empty where it is all of it."""
    convolves: ClassVar[bool] = True
    """Whether that part is a network of convolutions."""
    architecture: str = ""
    """The kind of its base as `models inspect` names it; empty for what nobody else has."""
    skips_by_itself: ClassVar[bool] = False
    """Whether its pipeline in diffusers is told `clip_skip`, where it has that setting."""
    loads_words: ClassVar[bool] = True
    """Whether its pipeline in diffusers loads learnt words, and reads one of several vectors as all of its tokens."""
    reads_framings: ClassVar[bool] = False
    """Whether it is told what an image was before it was resized and cropped."""
    matches_flow: ClassVar[bool] = False
    """Whether its schedule is one of flow matching."""
    lora_targets: ClassVar[Mapping[str, Targets]] = {}
    """The parts of `network` that a LoRA may go into, and the layers of each that plain names mean."""

    @classmethod
    @abstractmethod
    def tiny(cls, condition: Condition, folder: Path) -> Section:
        """Settings of the smallest real instance, for tests; what it is loaded from is written into `folder`."""

    @classmethod
    @abstractmethod
    def conditions(cls) -> tuple[Condition, ...]:
        """What instances of this family can be steered by."""

    @classmethod
    def left_out(cls, settings: Any) -> tuple[str, ...]:
        """Parts that diffusers expects and the weights do not hold: it must be told that they are None."""
        return ()

    settings: Any
    """What it was made from; `size` is the side of its images."""

    @abstractmethod
    def __init__(self, settings: Any, facts: Facts) -> None:
        """Build the network with fresh weights from torch's generator."""

    def encode_pixels(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels to what is learnt: deterministic, so it can be cached."""
        return pixels_BCHW

    def encode_latents(self, stored: torch.Tensor, fresh: Fresh | None = None) -> torch.Tensor:
        """The random part of encoding, which must happen at training time; without `fresh` the likeliest outcome."""
        return stored

    def encode_captions(self, captions: Sequence[str]) -> torch.Tensor:
        """What captions become for `encode_condition`: deterministic, so it can be stored."""
        raise NotImplementedError("only a family that text steers encodes captions")

    @property
    def base_id(self) -> str:
        """The identity of the weights to start from."""
        return ""

    def encoder_id(self, encoder: Literal["autoencoder", "text_encoder"]) -> str:
        """The identity of what encodes, a part of the name under which encoded images and captions are stored."""
        return ""

    @property
    def base_revision(self) -> str | None:
        """The commit that a base of the hub was read at."""
        return None

    @property
    def base_name(self) -> str | None:
        """What everybody calls its base: a hub id; None where it lies on this machine only."""
        return getattr(self.settings, "base", None) if self.base_revision else None

    def pinned(self, settings: Any) -> Any:
        """Its settings, with what may change outside of the run held to what was found at the start."""
        return settings

    @property
    def reading(self) -> dict[str, Any]:
        """How captions are read beside the base: a part of that name too."""
        return {}

    def rest(self, parts: Collection[str]) -> None:
        """Give back the memory of `autoencoder` or `text_encoder` while all that they make is stored.

        Drawing and saving bring them back for their time.
        """
        assert not parts, f"{type(self).__name__} has no encoder that could rest"

    @abstractmethod
    def encode_condition(self, batch: Batch, dropped_B: torch.Tensor | None) -> Any:
        """What steers each image; where `dropped_B` holds, the unconditional state instead."""

    def times(self, quantiles_B: torch.Tensor) -> torch.Tensor:
        """Times for numbers in [0, 1): uniform ones for training, fixed ones for the held-out loss."""
        return self.schedule.times(quantiles_B)

    def signal_level(self, times_B: torch.Tensor) -> torch.Tensor:
        """alpha-bar at the times."""
        return self.schedule.signal_level(times_B)

    def add_noise(self, clean: torch.Tensor, fresh: torch.Tensor, times_B: torch.Tensor) -> torch.Tensor:
        return self.schedule.add_noise(clean, fresh, times_B)

    def target(self, clean: torch.Tensor, fresh: torch.Tensor, times_B: torch.Tensor) -> torch.Tensor:
        return self.schedule.target(clean, fresh, times_B)

    @abstractmethod
    def predict(self, noisy: torch.Tensor, times_B: torch.Tensor, condition: Any) -> torch.Tensor: ...

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device) -> None:
        """Bring everything that works in training to a device."""
        self.network.to(device)

    def encoders_to(self, device: torch.device) -> None:
        """Bring what encodes images and captions to a device, ahead of the rest, which would take its room there."""
        for one in (*self.text_encoders().values(), *self.beside()):
            one.to(device)

    def recompute_activations(self) -> None:
        """Forget activations in the forward pass and compute them again in the backward pass."""
        switches = "enable_gradient_checkpointing", "activation_checkpointing_enable"  # diffusers', transformers'
        for module in self.network.modules():
            for switch in switches:
                if hasattr(module, switch):
                    getattr(module, switch)()

    def text_encoders(self) -> dict[str, torch.nn.Module]:
        """Networks that read captions, by name, and may learn or rest; they are parts of `network`."""
        return {}

    def tokenizers(self) -> dict[str, Any]:
        """What turns captions to tokens, by the name of the text encoder that reads them; new words may be added."""
        return {}

    @property
    def autoencoder(self) -> torch.nn.Module | None:
        """What turns pixels to latents and back, where there is one."""
        return None

    def beside(self) -> list[torch.nn.Module]:
        """Networks outside of `network`, none of which learns; those that rest are not here."""
        return [self.autoencoder] if self.autoencoder is not None else []

    def foreseen(self, names: Sequence[str], captions: Sequence[str]) -> Iterable[Notice]:
        """What to say before training of the base, and of captions by the names of their images."""
        return ()

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
