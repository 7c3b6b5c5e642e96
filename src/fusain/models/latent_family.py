"""What families over latents have in common: a base of several components, of which some learn and some encode."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch

from fusain.models import bases
from fusain.models.family import Family


class LatentFamily(Family):
    """A family whose weights are a base's."""

    base: bases.Base
    readers: Iterable[str] = ("text_encoder",)
    """Components that make of captions what is stored."""

    @property
    def base_id(self) -> str:
        return self.base.id

    def encoder_id(self, encoder: Literal["autoencoder", "text_encoder"]) -> str:
        return self.base.id_of(self.readers if encoder == "text_encoder" else ["vae"])

    @property
    def base_revision(self) -> str | None:
        return self.base.revision

    def pinned(self, settings: Any) -> Any:
        return settings.model_copy(update={"revision": self.base.revision})

    def _built(self, component: str) -> torch.nn.Module:
        return bases.build(self.base.components[component]).requires_grad_(False)
