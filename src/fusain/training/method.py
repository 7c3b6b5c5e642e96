"""The contract of a method: what learns, by which loss, and what is saved of it.

Life cycle: `prepare` -> for each micro-batch `loss` -> after each optimizer step `after_step` -> `save`. In a
freshly loaded family, `attach` puts back what `save` wrote. A method never asks which family it trains.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from fusain.data.batch import Batch
from fusain.models.family import Condition, Family
from fusain.settings.notice import Notice
from fusain.settings.section import Section
from fusain.training.losses import Loss


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int
    epoch: float
    held_out: Sequence[float] = field(default_factory=tuple)
    """The held-out losses measured so far, oldest first."""


class Method(ABC):
    kind: ClassVar[str]
    Settings: ClassVar[type[Section]]
    needs: ClassVar[frozenset[Condition]]
    """The conditions of a family that it works with."""
    reads_condition: ClassVar[bool] = True
    """Whether it needs what steers a family: without it images need neither labels nor captions."""

    @abstractmethod
    def __init__(self, settings: Any) -> None: ...

    @abstractmethod
    def prepare(self, family: Family) -> dict[str, torch.nn.Parameter]:
        """The parameters that learn, by names that stay the same between runs."""

    def foreseen(self, family: Family, epochs: float) -> Iterable[Notice]:
        """What a run of so many epochs should know of this method before it starts."""
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
    def save(self, family: Family, folder: Path) -> None: ...

    @abstractmethod
    def attach(self, family: Family, folder: Path) -> None: ...
