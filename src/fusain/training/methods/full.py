"""All weights learn; a network that reads the condition may be frozen after a warm-up, as soon as it has settled."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from fusain.data.batch import Batch
from fusain.models.family import Condition, Family
from fusain.settings.notice import Notice
from fusain.settings.section import Section
from fusain.training.encoder_stop import EncoderStop
from fusain.training.losses import Loss, LossSettings, denoising_loss
from fusain.training.method import Method, Progress
from fusain.training.usual import BySize, Usual

PATIENCE = 3
"""Held-out measurements without a new best that count as settled."""


class FullSettings(Section):
    """All weights of the model learn."""

    kind: Literal["full"] = "full"
    condition_warmup: Literal["auto", "none"] | float = Field("none", union_mode="left_to_right")
    """When the network that reads the classes is frozen: never (`none`), when the held-out loss stops falling
    (`auto`), or after this many epochs."""
    condition_dropout: float = Field(0.05, ge=0, le=1)
    """Share of images whose class or caption is hidden, once the warm-up is over; guidance needs it. 0.05 to 0.15."""
    text_encoder: bool = False
    """Whether the text encoder learns as well: closer to new words, slower, and sooner overtrained."""
    text_encoder_steps: int | None = Field(None, ge=1)
    """After so many steps the text encoder learns no more, while the rest goes on; without it it learns to the end."""
    loss: LossSettings = LossSettings()

    def silent_settings(self) -> dict[str, str]:
        reason = "the text encoder does not learn (method.text_encoder = false)"
        return {} if self.text_encoder else {"text_encoder_steps": reason}


class Full(Method):
    kind: ClassVar[str] = "full"
    Settings: ClassVar[type[Section]] = FullSettings
    needs: ClassVar[frozenset[Condition]] = frozenset({"none", "class", "text"})
    may_be_split: ClassVar[bool] = True
    usual: ClassVar[Usual] = Usual(rates=BySize(small=(1e-5, 1e-2), medium=(1e-6, 1e-4), large=(4e-7, 2e-5)))

    def __init__(self, settings: FullSettings) -> None:
        self.settings = settings
        self.frozen_at: int | None = None
        self.encoder_stop = EncoderStop(settings.text_encoder_steps if settings.text_encoder else None)

    def prepare(self, family: Family) -> dict[str, torch.nn.Parameter]:
        for encoder in family.text_encoders().values():
            encoder.requires_grad_(self.settings.text_encoder)
        return {name: one for name, one in family.network.named_parameters() if one.requires_grad}

    def encoders_at_work(self) -> frozenset[str]:
        return frozenset({"text_encoder"}) if self.settings.text_encoder else frozenset()

    def foreseen(self, family: Family, epochs: float) -> Iterable[Notice]:
        warmup = self.settings.condition_warmup
        if family.condition != "none" and isinstance(warmup, float) and warmup >= epochs:
            where = "method.condition_warmup"
            yield Notice("W-TRAIN-002", where=where, warmup=f"{warmup:g}", epochs=f"{epochs:.3g}")

    def loss(self, family: Family, batch: Batch, *, seed: int, quantiles: np.ndarray | None = None) -> Loss:
        warming_up = self.settings.condition_warmup != "none" and self.frozen_at is None
        hides = family.condition != "none" and not warming_up and quantiles is None
        dropout = self.settings.condition_dropout if hides else 0.0
        return denoising_loss(
            family, batch, self.settings.loss, seed=seed, condition_dropout=dropout, quantiles=quantiles
        )

    def after_step(self, family: Family, progress: Progress) -> str | None:
        changed = (self.encoder_stop.in_time(family, progress.step), self._freeze_in_time(family, progress))
        return "; ".join(filter(None, changed)) or None

    def _freeze_in_time(self, family: Family, progress: Progress) -> str | None:
        if self.settings.condition_warmup == "none" or self.frozen_at is not None or family.condition == "none":
            return None
        if not self._is_settled(progress):
            return None
        self._freeze(family, progress.step)
        return f"the network that reads the condition is frozen from step {progress.step} on"

    def _is_settled(self, progress: Progress) -> bool:
        if isinstance(self.settings.condition_warmup, float):
            return progress.epoch >= self.settings.condition_warmup
        losses = list(progress.held_out)
        return len(losses) > PATIENCE and min(losses[-PATIENCE:]) >= min(losses[:-PATIENCE])

    def _freeze(self, family: Family, step: int) -> None:
        self.frozen_at = step
        for parameter in family.condition_parameters():
            parameter.requires_grad_(False)
            parameter.grad = None

    def state(self) -> dict[str, Any]:
        return {"frozen_at": self.frozen_at, "encoder_stopped_at": self.encoder_stop.stopped_at}

    def restore(self, family: Family, state: dict[str, Any]) -> None:
        if state["frozen_at"] is not None:
            self._freeze(family, state["frozen_at"])
        if (stopped_at := state.get("encoder_stopped_at")) is not None:
            self.encoder_stop.stop(family, stopped_at)

    def save(self, family: Family, folder: Path) -> None:
        family.save(folder)

    def attach(self, family: Family, folder: Path) -> None:
        family.load(folder)
