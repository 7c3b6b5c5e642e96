"""Tiny Stable Diffusion models in the original layout, written by hand from its naming rules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "down_blocks.1.attentions.0": "input_blocks.3.1",
    "down_blocks.1.downsamplers.0.conv": "input_blocks.4.0.op",
    "down_blocks.2.resnets.0": "input_blocks.5.0",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.attentions.0": "output_blocks.2.1",
    "up_blocks.1.resnets.1": "output_blocks.3.0",
    "up_blocks.1.attentions.1": "output_blocks.3.1",
    "up_blocks.1.upsamplers.0.conv": "output_blocks.3.2.conv",
    "up_blocks.2.resnets.0": "output_blocks.4.0",
    "up_blocks.2.attentions.0": "output_blocks.4.1",
    "up_blocks.2.resnets.1": "output_blocks.5.0",
    "up_blocks.2.attentions.1": "output_blocks.5.1",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
"""Of three levels with one layer each, the last without attention."""
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE = {
    "encoder.down_blocks.0.resnets.0": "encoder.down.0.block.0",
    "encoder.down_blocks.0.downsamplers.0.conv": "encoder.down.0.downsample.conv",
    "encoder.down_blocks.1.resnets.0": "encoder.down.1.block.0",
    "decoder.up_blocks.0.resnets.0": "decoder.up.1.block.0",
    "decoder.up_blocks.0.resnets.1": "decoder.up.1.block.1",
    "decoder.up_blocks.0.upsamplers.0.conv": "decoder.up.1.upsample.conv",
    "decoder.up_blocks.1.resnets.0": "decoder.up.0.block.0",
    "decoder.up_blocks.1.resnets.1": "decoder.up.0.block.1",
    "encoder.mid_block.resnets.0": "encoder.mid.block_1",
    "encoder.mid_block.resnets.1": "encoder.mid.block_2",
    "decoder.mid_block.resnets.0": "decoder.mid.block_1",
    "decoder.mid_block.resnets.1": "decoder.mid.block_2",
    "encoder.mid_block.attentions.0": "encoder.mid.attn_1",
    "decoder.mid_block.attentions.0": "decoder.mid.attn_1",
    "encoder.conv_norm_out": "encoder.norm_out",
    "decoder.conv_norm_out": "decoder.norm_out",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn": "attn",
}

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Tiny:
    """Real networks of one architecture, and their weights as diffusers and transformers name them."""

    architecture: str
    unet: Any
    vae: Any
    text_encoder: Any

    def weights(self) -> dict[str, Tensors]:
        text = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in _state(self.text_encoder)}
        return {"unet": dict(_state(self.unet)), "vae": dict(_state(self.vae)), "text_encoder": text}


def _state(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(module.state_dict().items())


@cache
def tiny(architecture: str) -> Tiny:
    """Of 'sd1' or 'sd2', with weights that are all different."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    is_second = architecture == "sd2"
    torch.manual_seed(7)
    attends, plain = "CrossAttn{}Block2D", "{}Block2D"
    made = Tiny(
        architecture,
        UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64, 64),
            layers_per_block=1,
            down_block_types=tuple(kind.format("Down") for kind in (attends, attends, plain)),
            up_block_types=tuple(kind.format("Up") for kind in (plain, attends, attends)),
            cross_attention_dim=64,
            attention_head_dim=(1, 1, 1) if is_second else 8,
            use_linear_projection=is_second,
        ),
        AutoencoderKL(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
        ),
        CLIPTextModel(
            CLIPTextConfig(
                vocab_size=514,
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=1,
                hidden_act="gelu" if is_second else "quick_gelu",
                bos_token_id=512,
                eos_token_id=513,
                pad_token_id=513,
            )
        ),
    )
    with torch.no_grad():
        for module in (made.unet, made.vae, made.text_encoder):
            for parameter in module.eval().parameters():
                parameter.normal_()
    return made


def original_file(architecture: str, *, ema: bool = False) -> Tensors:
    """The whole model as one original file; with `ema`, averages that differ from the raw weights."""
    found = tiny(architecture).weights()
    unet = {unet_name(name): value for name, value in found["unet"].items()}
    file = {f"model.diffusion_model.{name}": value.clone() for name, value in unet.items()}
    file |= {f"first_stage_model.{name}": value for name, value in vae_tensors(found["vae"]).items()}
    if ema:
        for name, value in unet.items():
            file["model_ema.diffusion_model" + name.replace(".", "")] = value + 1
        file |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(3)}
    file |= {"betas": torch.zeros(4), "alphas_cumprod": torch.zeros(4), "logvar": torch.zeros(4)}
    if architecture == "sd1":
        file |= {f"cond_stage_model.transformer.{name}": value.clone() for name, value in found["text_encoder"].items()}
        file["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
        return file
    file |= {f"cond_stage_model.model.{name}": value for name, value in open_clip(found["text_encoder"]).items()}
    return file


def unet_name(name: str) -> str:
    start = max((own for own in UNET if name.startswith(own + ".")), key=len)
    rest = name.removeprefix(start)
    if ".resnets." in name:
        leaf = next(leaf for leaf in RESNET if rest.startswith(f".{leaf}."))
        rest = rest.replace(leaf, RESNET[leaf], 1)
    return UNET[start] + rest


def vae_tensors(weights: Tensors) -> Tensors:
    """Its attention was made of convolutions of one pixel."""
    found: Tensors = {}
    for name, value in weights.items():
        start = max((own for own in VAE if name.startswith(own + ".")), key=len, default="")
        rest = name.removeprefix(start)
        if ".attentions." in name:
            leaf = next(leaf for leaf in ATTENTION if rest.startswith(f".{leaf}."))
            rest = rest.replace(leaf, ATTENTION[leaf], 1)
            value = value[:, :, None, None] if value.ndim == 2 else value
        found[(VAE[start] if start else "") + rest.replace("conv_shortcut", "nin_shortcut")] = value.clone()
    return found


def open_clip(weights: Tensors) -> Tensors:
    """With the layer after the last one that Stable Diffusion reads, and what CLIP has beside its text encoder."""
    found: Tensors = {}
    for name, value in weights.items():
        other = name.removeprefix("text_model.")
        for own, theirs in OPEN_CLIP.items():
            other = other.replace(own, theirs)
        if match := re.fullmatch(r"(.*\.attn)\.(q)_proj\.(weight|bias)", other):
            three = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            found[f"{match[1]}.in_proj_{match[3]}"] = torch.cat(three)
        elif not re.search(r"\.attn\.[kv]_proj\.", other):
            found[other] = value.clone()
    last = {name: value for name, value in found.items() if name.startswith("transformer.resblocks.1.")}
    found |= {name.replace("resblocks.1.", "resblocks.2."): value + 1 for name, value in last.items()}
    return found | {"text_projection": torch.zeros(64, 64), "logit_scale": torch.tensor(1.0)}
