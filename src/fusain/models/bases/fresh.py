"""A new base with random weights: where a miniature begins, and the smallest real one for tests."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from fusain.models import pipeline_folder
from fusain.models.bases.tokenizers import PADDING_2

SEED = 0


@dataclass(frozen=True)
class Second:
    """What Stable Diffusion XL has more: a second text encoder, and sizes of images beside the time."""

    width: int
    layers: int
    heads: int
    pooled: int
    """Numbers that a whole caption becomes."""
    sizes: int
    """Numbers that each of six lengths becomes, of the image and its crop."""


@dataclass(frozen=True)
class Sizes:
    """What decides the size of a Stable Diffusion 1.x model, or of an XL one where there is a `second`."""

    image: int
    vae_channels: tuple[int, ...]
    vae_layers: int
    latents: int
    """Channels of what the autoencoder makes of an image."""
    unet_channels: tuple[int, ...]
    unet_attends: tuple[bool, ...]
    """At which of its levels the UNet looks at the text, and all places of an image at each other."""
    unet_layers: int
    unet_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    text_length: int = 77
    second: Second | None = None
    unet_transformers: tuple[int, ...] = ()
    """How many transformers an attention of each level has; without it one."""
    scale: float = 0.18215
    """What latents are multiplied with before the autoencoder's own measure is known."""


TINY = Sizes(
    image=32,
    vae_channels=(8, 8, 8),
    vae_layers=1,
    latents=4,
    unet_channels=(8, 16),
    unet_attends=(True, True),
    unet_layers=1,
    unet_heads=2,
    text_width=16,
    text_layers=2,
    text_heads=2,
)

TINY_XL = replace(
    TINY,
    unet_channels=(8, 16, 16),
    unet_attends=(False, True, True),
    unet_layers=2,
    unet_transformers=(1, 1, 2),
    second=Second(width=24, layers=2, heads=2, pooled=20, sizes=8),
    scale=0.13025,
)


def write(
    sizes: Sizes,
    folder: Path,
    tokenizer: Any = None,
    *,
    seed: int = SEED,
    shared: Mapping[str, torch.nn.Module] = MappingProxyType({}),
) -> None:
    """A folder as `DiffusionPipeline.from_pretrained` loads it; `shared` networks of another base take fresh places."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    tokenizer = tokenizer or letters()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = _parts(sizes, tokenizer) | dict(shared)
    if sizes.second is None:
        unchecked = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline_folder.save(StableDiffusionPipeline(**parts, **unchecked), folder)
    else:
        pipeline_folder.save(StableDiffusionXLPipeline(**parts, add_watermarker=False), folder)


def _parts(sizes: Sizes, tokenizer: Any) -> dict[str, Any]:
    """Everything that a pipeline is made of, its networks with fresh weights."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    levels = 2 ** (len(sizes.vae_channels) - 1)
    found: dict[str, Any] = {
        "vae": AutoencoderKL(**_vae(sizes)),
        "unet": UNet2DConditionModel(**_unet(sizes), sample_size=sizes.image // levels),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**_text(sizes, tokenizer))),
        "tokenizer": tokenizer,
        "scheduler": DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            timestep_spacing="trailing",
            steps_offset=1,
        ),
    }
    if sizes.second is not None:
        found["tokenizer_2"] = filled_up_by_marks(tokenizer)
        found["text_encoder_2"] = CLIPTextModelWithProjection(
            CLIPTextConfig(**_second_text(sizes, sizes.second, found["tokenizer_2"]))
        )
    return found


def filled_up_by_marks(tokenizer: Any) -> Any:
    """The same words, with the padding of the second tokenizer of XL."""
    found = copy.deepcopy(tokenizer)
    found.pad_token = PADDING_2
    return found


def letters() -> Any:
    """A tokenizer that knows no word but can spell them all."""
    return tokenizer_of(alphabet(), merges=[])


def alphabet() -> list[str]:
    """Every byte as a token, and at the end of a word as another one."""
    from tokenizers.pre_tokenizers import ByteLevel

    inside = sorted(ByteLevel.alphabet())
    return [*inside, *(letter + "</w>" for letter in inside)]


def tokenizer_of(vocabulary: list[str], merges: list[tuple[str, str]], *, length: int = 77) -> Any:
    """A CLIP tokenizer of these tokens, and the two that begin and end a caption."""
    from transformers import CLIPTokenizer

    numbers = {token: number for number, token in enumerate([*vocabulary, "<|startoftext|>", "<|endoftext|>"])}
    pairs: Any = merges
    return CLIPTokenizer(vocab=numbers, merges=pairs, model_max_length=length)


def _vae(sizes: Sizes) -> dict[str, Any]:
    levels = len(sizes.vae_channels)
    return {
        "block_out_channels": sizes.vae_channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": sizes.vae_layers,
        "latent_channels": sizes.latents,
        "norm_num_groups": min(32, sizes.vae_channels[0] // 4),
        "sample_size": sizes.image,
        "scaling_factor": sizes.scale,
    }


def _unet(sizes: Sizes) -> dict[str, Any]:
    attends = ["CrossAttn" if attends else "" for attends in sizes.unet_attends]
    return {
        "in_channels": sizes.latents,
        "out_channels": sizes.latents,
        "block_out_channels": sizes.unet_channels,
        "layers_per_block": sizes.unet_layers,
        "down_block_types": tuple(f"{attention}DownBlock2D" for attention in attends),
        "up_block_types": tuple(f"{attention}UpBlock2D" for attention in reversed(attends)),
        "cross_attention_dim": sizes.text_width + (sizes.second.width if sizes.second else 0),
        "attention_head_dim": sizes.unet_heads,  # diffusers' name for the number of heads here
        "norm_num_groups": min(32, sizes.unet_channels[0] // 4),
        **(_unet_of_xl(sizes, sizes.second) if sizes.second else {}),
    }


def _unet_of_xl(sizes: Sizes, second: Second) -> dict[str, Any]:
    return {
        "transformer_layers_per_block": sizes.unet_transformers or 1,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": second.sizes,
        "projection_class_embeddings_input_dim": second.pooled + 6 * second.sizes,
    }


def _second_text(sizes: Sizes, second: Second, tokenizer: Any) -> dict[str, Any]:
    return _text(sizes, tokenizer) | {
        "hidden_size": second.width,
        "intermediate_size": second.width * 4,
        "num_hidden_layers": second.layers,
        "num_attention_heads": second.heads,
        "projection_dim": second.pooled,
        "hidden_act": "gelu",
    }


def _text(sizes: Sizes, tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": sizes.text_width,
        "intermediate_size": sizes.text_width * 4,
        "num_hidden_layers": sizes.text_layers,
        "num_attention_heads": sizes.text_heads,
        "max_position_embeddings": sizes.text_length,
        "hidden_act": "quick_gelu",
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
