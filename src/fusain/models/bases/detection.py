"""What a single file of weights holds, told by the names and shapes in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fusain.models.bases.layouts import in_words, purpose_of
from fusain.models.bases.stored import Shapes

BY_CONTEXT: Final = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl-refiner"}
"""The width of the text that a UNet attends to."""

PARTS: Final[tuple[tuple[str, str], ...]] = (
    ("lora", r"\.lora_(down|up|A|B)\.|\.lora\.(down|up)\.|_lora\.(down|up)\.|\.hada_w1_a|\.lokr_w1|\.oft_blocks"),
    ("embedding", r"^(emb_params|string_to_param.*|clip_[lg])$"),
    ("controlnet", r"^control_model\.|^controlnet_|^input_hint_block\."),
    ("unet", r"^model\.diffusion_model\.|^input_blocks\.0\.|^down_blocks\.0\.|^(double|joint)_blocks\.0\."),
    ("unet", r"^(single_)?transformer_blocks\.0\."),
    ("vae", r"^(first_stage_model|vae)\.|^(encoder|decoder)\.(mid|mid_block)\."),
    ("text_encoder", r"^(cond_stage_model|conditioner|text_encoders)\.|^(text_model\.)?encoder\.layers\.0\."),
    ("text_encoder", r"^(transformer\.)?resblocks\.0\.|^encoder\.block\.0\.layer\.0\."),
)
"""A part and what a name of it looks like; what stands above settles what the file is."""

TRANSFORMERS: Final = (
    ("flux", re.compile(r"(^|[._])(double|single)_blocks[._]0[._]|(^|\.)single_transformer_blocks\.0\.")),
    ("sd3", re.compile(r"(^|\.)joint_blocks\.0\.|^(transformer\.)?transformer_blocks\.\d+\.attn\.(add_|to_add_)")),
)
TEXT: Final = (
    ("sdxl", "conditioner.embedders.1."),
    ("sdxl-refiner", "conditioner.embedders.0.model."),
    ("sd2", "cond_stage_model.model."),
    ("sd1", "cond_stage_model.transformer."),
)
"""Which text encoder stands where; it settles the architecture whatever the sizes, so the first that fits counts."""
CONTEXT: Final = re.compile(
    r"attn2[._]to_k(\.weight|\.lora_down\.weight|\.lora_A\.weight|\.lora\.down\.weight|_lora\.down\.weight)$"
)
ENTRY: Final = ("model.diffusion_model.input_blocks.0.0.weight", "input_blocks.0.0.weight", "conv_in.weight")
WHOLE: Final = ("unet", "vae", "text_encoder")
WORDS: Final = {
    "unet": "UNet",
    "vae": "autoencoder",
    "text_encoder": "text encoder",
    "text_encoder_2": "second text encoder",
    "text_encoder_3": "third text encoder",
    "transformer": "transformer",
}


@dataclass(frozen=True)
class Finding:
    """What a file is."""

    architecture: str
    """Empty where nothing tells."""
    holds: tuple[str, ...]
    """Networks in it, or what it is instead: 'lora', 'embedding', 'controlnet'."""
    evidence: str
    """The key that told."""
    latents: int | None = None
    """Latent channels of its autoencoder."""

    @property
    def words(self) -> str:
        """For people: 'a LoRA for Stable Diffusion XL'."""
        model = in_words(self.architecture) if self.architecture else ""
        other = {"lora": "a LoRA", "embedding": "a learnt token (textual inversion)", "controlnet": "a ControlNet"}
        if self.holds[0] in other:
            return other[self.holds[0]] + (f" for {model}" if model else "")
        if self.holds == ("vae",):
            return f"an autoencoder alone, with {self.latents} latent channels"
        if set(self.holds) >= {"unet", "text_encoder"}:
            return model or "a model of unknown architecture"
        names = WORDS | {"unet": "transformer"} if self.architecture in dict(TRANSFORMERS) else WORDS
        parts = " and ".join(f"the {names[part]}" for part in self.holds)
        return parts + (f" of {model}" if model else "") + " alone"


def look(shapes: Shapes) -> Finding | None:
    """What a file with these names and shapes is; None where no name is known."""
    holds = _held(shapes)
    if not holds:
        return None
    architecture, evidence = next(_told(shapes), ("", next(iter(shapes))))
    if holds[0] in ("lora", "embedding", "controlnet"):
        # What makes it one tells more than what it is for.
        pattern = next(pattern for part, pattern in PARTS if part == holds[0])
        evidence = _spelt(next(name for name in shapes if re.search(pattern, name)), shapes)
    elif "unet" in holds and architecture in ("sd1", "sd2", "sdxl"):
        entry = next((name for name in ENTRY if name in shapes), None)
        if entry is not None and (purpose := purpose_of(shapes[entry][1])):
            architecture, evidence = architecture + purpose, _spelt(entry, shapes)
    latents = next((shape[1] for name, shape in shapes.items() if name.endswith("decoder.conv_in.weight")), None)
    return Finding(architecture, holds, evidence, latents)


def _held(shapes: Shapes) -> tuple[str, ...]:
    found: list[str] = []
    for part, pattern in PARTS:
        if part not in found and any(re.search(pattern, name) for name in shapes):
            if part not in WHOLE:
                return (part,)
            found.append(part)
    return tuple(found)


def _told(shapes: Shapes) -> Iterator[tuple[str, str]]:
    """Architectures by what tells them, the surest first, each with the key."""
    for architecture, pattern in TRANSFORMERS:
        for name in shapes:
            if pattern.search(name):
                yield architecture, _spelt(name, shapes)
    contexts = [name for name in sorted(shapes) if CONTEXT.search(name) and len(shapes[name]) > 1]
    widths = {name: BY_CONTEXT.get(shapes[name][1]) for name in contexts}
    told = next(((width, _spelt(name, shapes)) for name, width in widths.items() if width), None)
    for architecture, prefix in TEXT:
        first = next((name for name in shapes if name.startswith(prefix)), None)
        if first is not None:
            # The UNet's own weight says more to a reader than where the text encoder stands.
            yield architecture, told[1] if told and told[0] == architecture else _spelt(first, shapes)
    if told:
        yield told


def _spelt(name: str, shapes: Shapes) -> str:
    return f"{name} ({' x '.join(map(str, shapes[name])) or 'one number'})"
