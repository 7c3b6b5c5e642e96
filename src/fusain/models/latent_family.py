"""What families over latents have in common: a base of several components, of which some learn and some encode."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, cast

import torch

from fusain.models import bases
from fusain.models.family import Family


class LatentFamily(Family):
    """A family whose weights are a base's; its encoders may rest once what they make is stored."""

    base: bases.Base
    clips: ClassVar[Sequence[str]] = ("text_encoder",)
    """Text encoders that may learn: components of the base, and parts of the network by the same names."""
    _bare: Any
    """The network as it is, whatever the engine wraps it into."""
    _autoencoder: torch.nn.Module | None

    _device: torch.device | None = None
    """Where its encoders were sent; the denoiser may follow later."""

    @property
    def device(self) -> torch.device:
        return self._device or cast(torch.device, next(self._bare.parameters()).device)

    @property
    def base_id(self) -> str:
        return self.base.id

    def encoder_id(self, encoder: Literal["autoencoder", "text_encoder"]) -> str:
        return self.base.id_of(self.readers() if encoder == "text_encoder" else ["vae"])

    @property
    def base_revision(self) -> str | None:
        return self.base.revision

    def pinned(self, settings: Any) -> Any:
        return settings.model_copy(update={"revision": self.base.revision})

    def _built(self, component: str) -> torch.nn.Module:
        return bases.build(self.base.components[component]).requires_grad_(False)

    @property
    def autoencoder(self) -> torch.nn.Module | None:
        return self._autoencoder

    def readers(self) -> Sequence[str]:
        """Components that make of captions what is stored."""
        return self.clips

    def cutters(self) -> Iterable[Any]:
        """Whatever cuts captions to tokens for those components."""
        return self.tokenizers().values()

    @property
    def reading(self) -> dict[str, Any]:
        return {"tokenizers": [bases.tokenizer_id(tokenizer) for tokenizer in self.cutters()]}

    def text_encoders(self) -> dict[str, torch.nn.Module]:
        encoders = {name: getattr(self._bare, name) for name in self.clips}
        return {name: encoder for name, encoder in encoders.items() if encoder is not None}

    def to(self, device: torch.device) -> None:
        self._device = device
        for one in (self.network, *self.beside()):
            one.to(device)

    def encoders_to(self, device: torch.device) -> None:
        self._device = device
        super().encoders_to(device)

    @abstractmethod
    def _keep_hidden(self) -> None:
        """Remember what an empty caption becomes, which is needed when nobody reads any more."""

    def _drop_readers(self) -> None:
        for name in self.clips:
            setattr(self._bare, name, None)

    def _wake_readers(self) -> None:
        for name in self.clips:
            setattr(self._bare, name, self._built(name).to(self.device))

    def rest(self, parts: Collection[str]) -> None:
        if "text_encoder" in parts:
            self._keep_hidden()
            self._drop_readers()
        if "autoencoder" in parts:
            self._autoencoder = None

    @contextmanager
    def _awake(self) -> Iterator[None]:
        """Within, encoders that rest are here again; they never learnt, so they are as the base has them."""
        resting = set()
        if self._autoencoder is None:
            resting.add("autoencoder")
            self._autoencoder = self._built("vae").to(self.device)
        if not self.text_encoders():
            resting.add("text_encoder")
            self._wake_readers()
        try:
            yield
        finally:
            self.rest(resting)

    def recompute_activations(self) -> None:
        super().recompute_activations()
        cast(Any, self._autoencoder).enable_gradient_checkpointing()
