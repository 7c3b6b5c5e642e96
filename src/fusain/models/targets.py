"""Which layers of the networks of Stable Diffusion an adapter may go to, by plain names; patterns on their paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

Targets = Mapping[str, Sequence[str]]
"""By 'attention' and 'feed_forward'; all linear and convolution layers may be asked for everywhere."""

OF_UNET: Final[Targets] = {
    "attention": ("*.attn?.to_q", "*.attn?.to_k", "*.attn?.to_v", "*.attn?.to_out.0"),
    "feed_forward": ("*.ff.net.*", "*.attentions.*.proj_in", "*.attentions.*.proj_out"),
}
OF_CLIP: Final[Targets] = {"attention": ("*.self_attn.*_proj",), "feed_forward": ("*.mlp.fc?",)}
OF_MMDIT: Final[Targets] = {
    "attention": ("*.attn*.to_q", "*.attn*.to_k", "*.attn*.to_v", "*.attn*.to_out.0", "*.attn.*add_*"),
    "feed_forward": ("*.ff.net.*", "*.ff_context.net.*"),
}
"""The transformer of Stable Diffusion 3, in whose blocks image and text each have layers of their own."""
