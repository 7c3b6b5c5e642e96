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
UNET_XL = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.resnets.1": "input_blocks.2.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.1.resnets.0": "input_blocks.4.0",
    "down_blocks.1.attentions.0": "input_blocks.4.1",
    "down_blocks.1.resnets.1": "input_blocks.5.0",
    "down_blocks.1.attentions.1": "input_blocks.5.1",
    "down_blocks.1.downsamplers.0.conv": "input_blocks.6.0.op",
    "down_blocks.2.resnets.0": "input_blocks.7.0",
    "down_blocks.2.attentions.0": "input_blocks.7.1",
    "down_blocks.2.resnets.1": "input_blocks.8.0",
    "down_blocks.2.attentions.1": "input_blocks.8.1",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.resnets.2": "output_blocks.2.0",
    "up_blocks.0.attentions.2": "output_blocks.2.1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
    "up_blocks.1.resnets.0": "output_blocks.3.0",
    "up_blocks.1.attentions.0": "output_blocks.3.1",
    "up_blocks.1.resnets.1": "output_blocks.4.0",
    "up_blocks.1.attentions.1": "output_blocks.4.1",
    "up_blocks.1.resnets.2": "output_blocks.5.0",
    "up_blocks.1.attentions.2": "output_blocks.5.1",
    "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
    "up_blocks.2.resnets.0": "output_blocks.6.0",
    "up_blocks.2.resnets.1": "output_blocks.7.0",
    "up_blocks.2.resnets.2": "output_blocks.8.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
"""Of XL: three levels with two layers each, the first without attention."""
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
    text_encoder_2: Any = None

    def weights(self) -> dict[str, Tensors]:
        text = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in _state(self.text_encoder)}
        found = {"unet": dict(_state(self.unet)), "vae": dict(_state(self.vae)), "text_encoder": text}
        return found if self.text_encoder_2 is None else found | {"text_encoder_2": dict(_state(self.text_encoder_2))}


def _state(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(module.state_dict().items())


@cache
def tiny(architecture: str) -> Tiny:
    """Of 'sd1', 'sd2' or 'sdxl', with weights that are all different."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(7)
    if architecture == "sdxl":
        text = CLIPTextModel(CLIPTextConfig(**TEXT, hidden_act="quick_gelu", projection_dim=768))
        text_2 = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT, hidden_act="gelu", projection_dim=32))
        made = Tiny(architecture, _unet_xl(), _vae(), text, text_2)
    else:
        act = "gelu" if architecture == "sd2" else "quick_gelu"
        made = Tiny(architecture, _unet(architecture), _vae(), CLIPTextModel(CLIPTextConfig(**TEXT, hidden_act=act)))
    with torch.no_grad():
        for module in (made.unet, made.vae, made.text_encoder, made.text_encoder_2):
            for parameter in module.eval().parameters() if module is not None else ():
                parameter.normal_()
    return made


TEXT: dict[str, Any] = {
    "vocab_size": 514,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "bos_token_id": 512,
    "eos_token_id": 513,
    "pad_token_id": 513,
}


def _unet(architecture: str) -> Any:
    from diffusers import UNet2DConditionModel

    is_second, attends, plain = architecture == "sd2", "CrossAttn{}Block2D", "{}Block2D"
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        down_block_types=tuple(kind.format("Down") for kind in (attends, attends, plain)),
        up_block_types=tuple(kind.format("Up") for kind in (plain, attends, attends)),
        cross_attention_dim=64,
        attention_head_dim=(1, 1, 1) if is_second else 8,
        use_linear_projection=is_second,
    )


def _unet_xl() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=128,
        attention_head_dim=(1, 1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=32 + 6 * 16,
    )


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
    )


def original_file(architecture: str, *, ema: bool = False) -> Tensors:
    """The whole model as one original file; with `ema`, averages that differ from the raw weights."""
    found = tiny(architecture).weights()
    table = UNET_XL if architecture == "sdxl" else UNET
    unet = {unet_name(name, table): value for name, value in found["unet"].items()}
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
    if architecture == "sdxl":
        text = found["text_encoder"] | {"text_model.embeddings.position_ids": torch.arange(77)[None]}
        file |= {f"conditioner.embedders.0.transformer.{name}": value.clone() for name, value in text.items()}
        text = open_clip(found["text_encoder_2"]) | {"logit_scale": torch.tensor(1.0)}
        return file | {f"conditioner.embedders.1.model.{name}": value for name, value in text.items()}
    text = with_more(open_clip(found["text_encoder"]))
    return file | {f"cond_stage_model.model.{name}": value for name, value in text.items()}


def unet_name(name: str, table: dict[str, str] = UNET) -> str:
    start = max((own for own in table if name.startswith(own + ".")), key=len)
    rest = name.removeprefix(start)
    if ".resnets." in name:
        leaf = next(leaf for leaf in RESNET if rest.startswith(f".{leaf}."))
        rest = rest.replace(leaf, RESNET[leaf], 1)
    return table[start] + rest


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
    """As OpenCLIP has it; what leads to the pooled text lies there with rows for columns."""
    found: Tensors = {}
    for name, value in weights.items():
        if name == "text_projection.weight":
            found["text_projection"] = value.T.contiguous()
            continue
        other = name.removeprefix("text_model.")
        for own, theirs in OPEN_CLIP.items():
            other = other.replace(own, theirs)
        if match := re.fullmatch(r"(.*\.attn)\.(q)_proj\.(weight|bias)", other):
            three = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            found[f"{match[1]}.in_proj_{match[3]}"] = torch.cat(three)
        elif not re.search(r"\.attn\.[kv]_proj\.", other):
            found[other] = value.clone()
    return found


def with_more(found: Tensors) -> Tensors:
    """With the layer after the last one that 2.x reads, and what CLIP has beside its text encoder."""
    last = {name: value for name, value in found.items() if name.startswith("transformer.resblocks.1.")}
    found |= {name.replace("resblocks.1.", "resblocks.2."): value + 1 for name, value in last.items()}
    return found | {"text_projection": torch.zeros(64, 64), "logit_scale": torch.tensor(1.0)}
