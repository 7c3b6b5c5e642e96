"""The names of weights in the two layouts: diffusers' and that of the original files (CompVis, Stability AI).

One table a network, from modules of the one layout to modules of the other; it is read in both directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

PREFIXES: Final = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
TEXT_PREFIXES: Final[dict[str, dict[str, str]]] = {
    "sd1": {"text_encoder": "cond_stage_model.transformer."},
    "sd2": {"text_encoder": "cond_stage_model.model."},
    "sdxl": {
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}
"""Where the text encoders of each architecture stand."""
TURNED: Final = "text_projection.weight"
"""Of OpenCLIP, what lies there with rows for columns."""
EMA_PREFIX: Final = "model_ema."

UNET_RESNET: Final = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_RESNET: Final = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "conv_shortcut": "nin_shortcut",
}
VAE_ATTENTION: Final = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP_LAYER: Final = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
    "self_attn.q_proj.weight": "attn.in_proj_weight",
    "self_attn.k_proj.weight": "attn.in_proj_weight",
    "self_attn.v_proj.weight": "attn.in_proj_weight",
    "self_attn.q_proj.bias": "attn.in_proj_bias",
    "self_attn.k_proj.bias": "attn.in_proj_bias",
    "self_attn.v_proj.bias": "attn.in_proj_bias",
}
"""Query, key and value lie in one tensor there, in this order."""

Pairs = Iterator[tuple[str, str]]


def original_names(component: str, config: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """The original name of each of `names`, without the prefix of its network; one that has none is left out.

    Query, key and value of an OpenCLIP text encoder have one original name together.
    """
    table = modules(component, config)
    found = {name: renamed(name, table) for name in names}
    return {name: original for name, original in found.items() if original is not None}


def diffusers_names(component: str, config: Mapping[str, Any], names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The way back: what each original name holds, in the order in which it lies there."""
    table: dict[str, list[str]] = {}
    for own, original in modules(component, config).items():
        table.setdefault(original, []).append(own)
    first = {original: own[0] for original, own in table.items()}
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        one = renamed(name, first)
        if one is not None:
            found[name] = tuple(table.get(name, (one,)))
    return found


def renamed(name: str, table: Mapping[str, str]) -> str | None:
    """`name` with its longest known module replaced."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = table.get(".".join(parts[:end]))
        if module is not None:
            return ".".join([module, *parts[end:]])
    return None


def ema_name(name: str) -> str:
    """What LDM calls the averaged weight of a UNet's `name`: without dots, for it was a buffer's name."""
    return EMA_PREFIX + "diffusion_model" + name.replace(".", "")


def modules(component: str, config: Mapping[str, Any]) -> dict[str, str]:
    """Every module of a network by its diffusers name, and what the original layout calls it."""
    if component == "unet":
        return dict(_unet(config))
    if component == "vae":
        return dict(_vae(config))
    if config.get("hidden_act", "quick_gelu") == "quick_gelu":
        return {"text_model": "text_model"}
    return dict(_open_clip(config))


def _inside(own: str, original: str, leaves: Mapping[str, str]) -> Pairs:
    for leaf, other in leaves.items():
        yield f"{own}.{leaf}", f"{original}.{other}"


def _unet(config: Mapping[str, Any]) -> Pairs:
    yield "conv_in", "input_blocks.0.0"
    yield "time_embedding.linear_1", "time_embed.0"
    yield "time_embedding.linear_2", "time_embed.2"
    yield "add_embedding.linear_1", "label_emb.0.0"
    yield "add_embedding.linear_2", "label_emb.0.2"
    yield from _unet_down(config)
    yield from _inside("mid_block.resnets.0", "middle_block.0", UNET_RESNET)
    yield "mid_block.attentions.0", "middle_block.1"
    yield from _inside("mid_block.resnets.1", "middle_block.2", UNET_RESNET)
    yield from _unet_up(config)
    yield "conv_norm_out", "out.0"
    yield "conv_out", "out.2"


def _unet_down(config: Mapping[str, Any]) -> Pairs:
    """Blocks of layers, each but the last followed by one that halves the size; number 0 is `conv_in`."""
    layers, types = config["layers_per_block"], config["down_block_types"]
    for block, kind in enumerate(types):
        for layer in range(layers):
            own, place = f"down_blocks.{block}", f"input_blocks.{block * (layers + 1) + layer + 1}"
            yield from _inside(f"{own}.resnets.{layer}", f"{place}.0", UNET_RESNET)
            if "CrossAttn" in kind:
                yield f"{own}.attentions.{layer}", f"{place}.1"
        if block < len(types) - 1:
            yield f"down_blocks.{block}.downsamplers.0.conv", f"input_blocks.{(block + 1) * (layers + 1)}.0.op"


def _unet_up(config: Mapping[str, Any]) -> Pairs:
    """Blocks of one layer more; what doubles the size stands last in the last layer of each but the last."""
    layers, types = config["layers_per_block"] + 1, config["up_block_types"]
    for block, kind in enumerate(types):
        attends = "CrossAttn" in kind
        for layer in range(layers):
            own, place = f"up_blocks.{block}", f"output_blocks.{block * layers + layer}"
            yield from _inside(f"{own}.resnets.{layer}", f"{place}.0", UNET_RESNET)
            if attends:
                yield f"{own}.attentions.{layer}", f"{place}.1"
        if block < len(types) - 1:
            place = f"output_blocks.{(block + 1) * layers - 1}.{1 + attends}.conv"
            yield f"up_blocks.{block}.upsamplers.0.conv", place


def _vae(config: Mapping[str, Any]) -> Pairs:
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    for level in range(levels):
        own, place = f"encoder.down_blocks.{level}", f"encoder.down.{level}"
        for layer in range(layers):
            yield from _inside(f"{own}.resnets.{layer}", f"{place}.block.{layer}", VAE_RESNET)
        yield f"{own}.downsamplers.0.conv", f"{place}.downsample.conv"
        # The original counts the decoder's levels from the image, diffusers from the latents.
        own, place = f"decoder.up_blocks.{level}", f"decoder.up.{levels - 1 - level}"
        for layer in range(layers + 1):
            yield from _inside(f"{own}.resnets.{layer}", f"{place}.block.{layer}", VAE_RESNET)
        yield f"{own}.upsamplers.0.conv", f"{place}.upsample.conv"
    for half in ("encoder", "decoder"):
        yield f"{half}.conv_in", f"{half}.conv_in"
        yield f"{half}.conv_norm_out", f"{half}.norm_out"
        yield f"{half}.conv_out", f"{half}.conv_out"
        yield from _inside(f"{half}.mid_block.resnets.0", f"{half}.mid.block_1", VAE_RESNET)
        yield from _inside(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", VAE_ATTENTION)
        yield from _inside(f"{half}.mid_block.resnets.1", f"{half}.mid.block_2", VAE_RESNET)
    yield "quant_conv", "quant_conv"
    yield "post_quant_conv", "post_quant_conv"


def _open_clip(config: Mapping[str, Any]) -> Pairs:
    yield "text_model.embeddings.token_embedding", "token_embedding"
    yield "text_model.embeddings.position_embedding.weight", "positional_embedding"
    yield "text_model.final_layer_norm", "ln_final"
    yield TURNED, "text_projection"
    for layer in range(config["num_hidden_layers"]):
        own, place = f"text_model.encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        yield from _inside(own, place, OPEN_CLIP_LAYER)
