"""A LoRA as it is, whatever file it came from: what each layer adds to the weight that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from fusain.models.adapters.lycoris import Hadamard, Kronecker
from fusain.models.adapters.magnitude import merged
from fusain.settings.notice import Notice


@dataclass(frozen=True)
class LowRank:
    """The change of one layer: scale * up @ down; a convolution's likewise."""

    down: torch.Tensor
    """rank x in (x height x width)"""
    up: torch.Tensor
    """out x rank (x 1 x 1)"""
    scale: float
    """The whole factor: alpha / rank, or alpha / sqrt(rank) for rsLoRA."""
    magnitude: torch.Tensor | None = None
    """DoRA: the length of each output row, (out,); of files that measure each input, (1, in, ...)."""
    mid: torch.Tensor | None = None
    """LoCon's core: rank x rank x height x width; only read."""

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def matrix(self) -> tuple[int, int]:
        """Outputs, and all that enters one of them."""
        kernel = 1 if self.mid is None else self.mid[0, 0].numel()
        return self.up.shape[0], self.down[0].numel() * kernel

    def plain(self) -> LowRank:
        """The same change without a core."""
        if self.mid is None:
            return self
        down = torch.einsum("mnhw,ni->mihw", self.mid.float(), self.down.float().flatten(1))
        return LowRank(down, self.up, self.scale, self.magnitude)

    def change(self) -> torch.Tensor:
        """scale * up @ down in fp32: out x in (x height x width)."""
        down = self.plain().down.float()
        product = self.up.float().flatten(1) @ down.flatten(1)
        return self.scale * product.reshape(self.up.shape[0], *down.shape[1:])

    def delta(self, weight: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
        """What is added to `weight`, in fp32; at strength 0 nothing, with DoRA too."""
        return merged(weight, self.change(), self.magnitude, strength)


Layer = LowRank | Hadamard | Kronecker


@dataclass(frozen=True)
class Adapter:
    """All layers of a LoRA."""

    layers: Mapping[str, Layer]
    """By 'unet.' or 'text_encoder.' and the module's path as diffusers names it, text encoders with 'text_model.'."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    style: str = "diffusers"
    """How the file was written: 'diffusers', 'kohya' or 'old diffusers'."""
    notes: tuple[Notice, ...] = ()
    """What had to be assumed to read it."""

    @property
    def parts(self) -> dict[str, int]:
        """How many layers belong to each network."""
        names = [name.partition(".")[0] for name in self.layers]
        return {part: names.count(part) for part in sorted(set(names))}
