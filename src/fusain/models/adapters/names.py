"""The names of layers in LoRA files: kohya's, and those of diffusers in its new and old spelling.

kohya names the UNets of Stable Diffusion 1.x and 2.x as diffusers does, and that of XL by the blocks of its first file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

from fusain.errors import SettingsError
from fusain.models.bases import inferred, naming
from fusain.models.text_names import PREFIX

UNET, TEXT, TRANSFORMER = "unet", "text_encoder", "transformer"
PARTS: Final = (UNET, TRANSFORMER, TEXT, "text_encoder_2")

XL: Final = "sdxl"
SD3: Final = "sd3"
KOHYA: Final = {UNET: "lora_unet_", TEXT: "lora_te_"}
"""What a name of each network begins with..."""
KOHYA_XL: Final = {UNET: "lora_unet_", TEXT: "lora_te1_", "text_encoder_2": "lora_te2_"}
"""...and where there are two text encoders."""
KOHYA_READ: Final = {prefix: part for table in (KOHYA, KOHYA_XL) for part, prefix in table.items()}

UNET_WORDS: Final = (
    *("conv_in", "conv_out", "time_embedding", "add_embedding", "linear_1", "linear_2"),
    *("down_blocks", "mid_block", "up_blocks", "resnets", "attentions", "downsamplers", "upsamplers"),
    *("conv1", "conv2", "conv", "conv_shortcut", "time_emb_proj", "proj_in", "proj_out"),
    *("transformer_blocks", "attn1", "attn2", "to_q", "to_k", "to_v", "to_out", "ff", "net", "proj"),
)
ORIGINAL: Final = ("input_blocks", "middle_block", "output_blocks", "time_embed", "label_emb", "out")
"""How a path begins in the original UNet."""
ORIGINAL_WORDS: Final = (*ORIGINAL, "in_layers", "out_layers", "emb_layers", "skip_connection", "op")
TRANSFORMER_WORDS: Final = (
    *("transformer_blocks", "attn", "attn2", "to_q", "to_k", "to_v", "to_out"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "ff", "ff_context", "net", "proj"),
    *("norm1", "norm1_context", "norm_out", "linear", "linear_1", "linear_2", "pos_embed", "proj_out"),
    *("time_text_embed", "timestep_embedder", "text_embedder", "context_embedder"),
)
TEXT_WORDS: Final = (
    *("text_model", "encoder", "layers", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
    *("mlp", "fc1", "fc2", "text_projection"),
)
"""Every module of the networks is named in these words and in numbers, at every size. kohya joins them with the
sign that they hold themselves, so a name can only be cut where a known word ends."""


def _word(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"({'|'.join(longest_first)}|\d+)(?:_|$)")


_WORD: Final = {
    UNET: _word((*UNET_WORDS, *ORIGINAL_WORDS)),
    TEXT: _word(TEXT_WORDS),
    "text_encoder_2": _word(TEXT_WORDS),
}


def to_kohya(layer: str, architecture: str = "") -> str:
    """'unet.conv_in' as kohya names it."""
    part, _, path = layer.partition(".")
    if nameless([layer], architecture):
        raise SettingsError("E-LORA-021", where=layer)
    found = _path_of_xl(layer)
    if architecture != XL or found is None:
        return KOHYA[part] + path.replace(".", "_")
    return KOHYA_XL[part] + found.replace(".", "_")


def nameless(layers: Iterable[str], architecture: str) -> list[str]:
    """The layers that kohya's style has no name for.

    It has none in UNets with more blocks than Stable Diffusion XL has, and none that is written here for Stable
    Diffusion 3, where it joins what diffusers keeps apart.
    """
    if architecture == SD3:
        return list(layers)
    return [layer for layer in layers if architecture == XL and _path_of_xl(layer) is None]


def _path_of_xl(layer: str) -> str | None:
    part, _, path = layer.partition(".")
    return naming.renamed(path, _modules_of_xl()) if part == UNET else path


@cache
def _modules_of_xl() -> dict[str, str]:
    """What the original calls each module; the blocks of the published model, which smaller ones have too."""
    return naming.modules(UNET, inferred.published(XL)[UNET])


@cache
def _modules_of_original() -> dict[str, str]:
    return {original: own for own, original in _modules_of_xl().items()}


def are_of_xl(names: Iterable[str]) -> bool:
    """Whether names are kohya's of Stable Diffusion XL: of its blocks, or of one of two text encoders."""
    blocks = tuple(f"{KOHYA[UNET]}{block}_" for block in ORIGINAL)
    return any(name.startswith(("lora_te1_", "lora_te2_", *blocks)) for name in names)


def from_kohya(name: str) -> str | None:
    """The layer that kohya calls `name`; None where a word in it is unknown."""
    for prefix, part in KOHYA_READ.items():
        if name.startswith(prefix):
            path = _cut(name.removeprefix(prefix), _WORD[part])
            if path is not None and part == UNET and path.partition(".")[0] in ORIGINAL:
                path = naming.renamed(path, _modules_of_original())
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
    elif part != TRANSFORMER and not rest.startswith((PREFIX, "text_projection")):
        rest = PREFIX + rest
    words = {UNET: UNET_WORDS, TRANSFORMER: TRANSFORMER_WORDS}.get(part, TEXT_WORDS)
    is_known = all(word in words or word.isdecimal() for word in rest.split("."))
    return f"{part}.{rest}" if is_known else None


def old_projection(path: str) -> str:
    """A path that ends with a projection in the old spelling ('….attn1.processor.to_out') in the new one."""
    before, _, last = path.rpartition(".")
    table = OLD_PROJECTIONS[TEXT if path.startswith(TEXT) else UNET]
    return f"{before}.{table.get(last, last)}"
