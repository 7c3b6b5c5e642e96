"""Which arithmetic the attention of a small UNet uses: the fused kernel is made for long sequences."""

from __future__ import annotations

from typing import Any, Final

FEW_PLACES_A_SIDE: Final = 8
"""Up to here plain attention is faster on a CPU: 7 % of a step of the recipe `class-conditional`, 9 % of one of a small
Stable Diffusion, on two cores."""


def suit(unet: Any, side: int) -> None:
    """Plain attention for a UNet that works on `side` x `side` places, if wherever it attends these have become few."""
    from diffusers.models.attention_processor import AttnProcessor

    attends = [level for level, kind in enumerate(unet.config.down_block_types) if "Attn" in kind]
    if attends and side // 2 ** min(attends) <= FEW_PLACES_A_SIDE:
        unet.set_attn_processor(AttnProcessor())
