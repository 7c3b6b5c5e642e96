"""The contract of a method: what learns, by which loss, and what is saved of it.

Life cycle: `prepare` -> for each micro-batch `loss` -> after each optimizer step `after_step` -> `save`. In a
freshly loaded family, `attach` puts back what `save` wrote. A method never asks which family it trains.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from fusain.data.batch import Batch
from fusain.errors import UsageError
from fusain.models.family import Condition, Family
from fusain.settings.notice import Notice
from fusain.settings.section import Section
from fusain.training.losses import Loss
from fusain.training.read_back import ReadBack
from fusain.training.usual import Usual


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int
    epoch: float
    held_out: Sequence[float] = field(default_factory=tuple)
    """The held-out losses measured so far, oldest first."""


@dataclass(frozen=True)
class Lesson:
    """What a run learns from and how, as far as a saved file may tell it: counts, and no name of a file."""

    images: int
    """Draws of an epoch but for class images: images times repeats."""
    class_images: int
    """Class images times repeats."""
    steps_per_epoch: float
    learning_rate: float
    trigger: str = ""
    """The words that call for what is learnt."""


class Method(ABC):
    kind: ClassVar[str]
    Settings: ClassVar[type[Section]]
    needs: ClassVar[frozenset[Condition]]
    """The conditions of a family that it works with."""
    reads_condition: ClassVar[bool] = True
    """Whether it needs what steers a family: without it images need neither labels nor captions."""
    uses_denoiser: ClassVar[bool] = True
    """Whether its loss asks the network that predicts."""
    leaves_base: ClassVar[bool] = False
    """Whether the base stays as it is, and what is saved goes beside it."""
    may_be_split: ClassVar[bool] = False
    """Whether several processes may share out what it trains: all of that are parameters of parts of the network."""
    usual: ClassVar[Usual] = Usual()
    """Between which numbers it mostly works."""
    loaded_by: ClassVar[str] = ""
    """Where it saves no whole model: what a pipeline of the base is told in plain diffusers, of a `{repo}`."""
    loaded_by_each: ClassVar[str] = ""
    """The same where a model has several text encoders and each is told by itself; without it they are told at once."""
    loaded_by_hand: ClassVar[str] = ""
    """The same where diffusers' pipeline of a family loads no learnt words."""

    lesson: Lesson | None = None
    """What it learns from, within a run."""

    @abstractmethod
    def __init__(self, settings: Any) -> None: ...

    @abstractmethod
    def prepare(self, family: Family) -> dict[str, torch.nn.Parameter]:
        """The parameters that learn, by names that stay the same between runs."""

    def rates(self, names: Iterable[str]) -> Mapping[str, float]:
        """Factors of the learning rate for parameters that learn at another pace, by name."""
        return {}

    def foreseen(self, family: Family, epochs: float) -> Iterable[Notice]:
        """What a run of so many epochs should know of this method before it starts."""
        return ()

    def wording(self, captions: Sequence[str]) -> tuple[str, ...]:
        """Captions as they are learnt, where the method has words of its own for some."""
        return tuple(captions)

    def foreseen_in(self, names: Sequence[str], captions: Sequence[str]) -> Iterable[Notice]:
        """What to say before training of captions, in their wording, by the names of their images."""
        return ()

    @abstractmethod
    def loss(self, family: Family, batch: Batch, *, seed: int, quantiles: np.ndarray | None = None) -> Loss:
        """The loss of a batch; with `quantiles` at those times and with nothing hidden, for the held-out curve."""

    def after_step(self, family: Family, progress: Progress) -> str | None:
        """Called after each optimizer step; a sentence when something changed that the user should know."""
        return None

    def encoders_at_work(self) -> frozenset[str]:
        """Which of `autoencoder` and `text_encoder` every step needs; what the others make may be stored once."""
        return frozenset()

    def shown(self, family: Family, batch: Batch) -> dict[str, torch.Tensor]:
        """Rows of pixels that show what was learnt, by title; without any, samples are drawn."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a resume must know beside the parameters; JSON."""
        return {}

    def restore(self, family: Family, state: dict[str, Any]) -> None:
        """The opposite of `state`."""
        assert not state, f"{type(self).__name__} has a state and must say how it is restored"

    @abstractmethod
    def save(self, family: Family, folder: Path) -> ReadBack | None:
        """Write what was learnt; what was found in it, where it was read back."""

    def at_strength(self, strength: float) -> None:
        """How much of what was learnt is to be attached: called before it is, where somebody asks for it."""
        raise UsageError("E-LORA-050", where="--strength", method=self.kind)

    @abstractmethod
    def attach(self, family: Family, folder: Path) -> None: ...

    def attach_parameters(self, family: Family, parameters: Mapping[str, torch.Tensor]) -> None:
        """As `attach`, from the parameters that a checkpoint holds."""
        self.take_up(family, parameters)

    def take_up(self, family: Family, parameters: Mapping[str, torch.Tensor]) -> None:
        """The parameters that a checkpoint holds in place of those that learn, to be saved; in a fresh family."""
        with torch.no_grad():
            for name, parameter in self.prepare(family).items():
                parameter.copy_(parameters[name])
