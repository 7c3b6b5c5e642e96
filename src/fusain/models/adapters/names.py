"""The names of layers in LoRA files: kohya's, and those of diffusers in its new and old spelling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from fusain.models.text_names import PREFIX

UNET, TEXT = "unet", "text_encoder"
PARTS: Final = (UNET, TEXT, "text_encoder_2")

KOHYA: Final = {UNET: "lora_unet_", TEXT: "lora_te_", "text_encoder_2": "lora_te2_"}
"""What a name of each network begins with."""
KOHYA_READ: Final = {prefix: part for part, prefix in KOHYA.items()} | {"lora_te1_": TEXT}
"""With two text encoders the first one has a number too."""

UNET_WORDS: Final = (
    *("conv_in", "conv_out", "time_embedding", "add_embedding", "linear_1", "linear_2"),
    *("down_blocks", "mid_block", "up_blocks", "resnets", "attentions", "downsamplers", "upsamplers"),
    *("conv1", "conv2", "conv", "conv_shortcut", "time_emb_proj", "proj_in", "proj_out"),
    *("transformer_blocks", "attn1", "attn2", "to_q", "to_k", "to_v", "to_out", "ff", "net", "proj"),
)
TEXT_WORDS: Final = (
    *("text_model", "encoder", "layers", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
    *("mlp", "fc1", "fc2", "text_projection"),
)
"""Every module of the two networks is named in these words and in numbers, at every size. kohya joins them with the
sign that they hold themselves, so a name can only be cut where a known word ends."""


def _word(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"({'|'.join(longest_first)}|\d+)(?:_|$)")


_WORD: Final = {UNET: _word(UNET_WORDS), TEXT: _word(TEXT_WORDS), "text_encoder_2": _word(TEXT_WORDS)}


def to_kohya(layer: str) -> str:
    """'unet.conv_in' as kohya names it."""
    part, _, path = layer.partition(".")
    return KOHYA[part] + path.replace(".", "_")


def from_kohya(name: str) -> str | None:
    """The layer that kohya calls `name`; None where a word in it is unknown."""
    for prefix, part in KOHYA_READ.items():
        if name.startswith(prefix):
            path = _cut(name.removeprefix(prefix), _WORD[part])
            return path and f"{part}.{path}"
    return None


def _cut(joined: str, word: re.Pattern[str]) -> str | None:
    words, at = [], 0
    while at < len(joined):
        found = word.match(joined, at)
        if found is None:
            return None
        words.append(found[1])
        at = found.end()
    return ".".join(words) or None


OLD_PROJECTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    UNET: {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"},
    TEXT: {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"},
}


def from_diffusers(path: str) -> str | None:
    """The layer of a module path as diffusers' files hold it: with or without the network's name and 'text_model.'."""
    part, _, rest = path.partition(".")
    if part not in PARTS:
        part, rest = UNET, path  # the oldest files hold the UNet alone and do not name it
    if part == UNET:
        rest = rest.replace(".processor.", ".")
    elif not rest.startswith((PREFIX, "text_projection")):
        rest = PREFIX + rest
    is_known = all(word in (UNET_WORDS if part == UNET else TEXT_WORDS) or word.isdecimal() for word in rest.split("."))
    return f"{part}.{rest}" if is_known else None


def old_projection(path: str) -> str:
    """A path that ends with a projection in the old spelling ('….attn1.processor.to_out') in the new one."""
    before, _, last = path.rpartition(".")
    table = OLD_PROJECTIONS[TEXT if path.startswith(TEXT) else UNET]
    return f"{before}.{table.get(last, last)}"
