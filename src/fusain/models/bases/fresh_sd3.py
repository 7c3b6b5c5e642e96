"""A new Stable Diffusion 3 with random weights: the smallest real one, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from fusain.models import pipeline_folder
from fusain.models.bases.fresh import SEED, alphabet, filled_up_by_marks, letters

WIDTH: Final = 32
LATENTS: Final = 16
POOLED: Final = (12, 20)
"""Numbers that a whole caption becomes in each CLIP."""
WORD: Final = "▁"
"""Where a word begins, for T5."""


def write(folder: Path, *, with_t5: bool = False, seed: int = SEED) -> None:
    """A folder as `DiffusionPipeline.from_pretrained` loads it; without T5 it must be told so."""
    from diffusers import StableDiffusion3Pipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = _parts() | (_t5() if with_t5 else {"text_encoder_3": None, "tokenizer_3": None})
    pipeline_folder.save(StableDiffusion3Pipeline(**parts), folder)


def _parts() -> dict[str, Any]:
    """Everything that the pipeline is made of but T5."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    first = letters()
    tokenizers = (first, filled_up_by_marks(first))
    widths, activations = (16, 24), ("quick_gelu", "gelu")
    encoders = [
        CLIPTextModelWithProjection(CLIPTextConfig(**_text(tokenizer, width, pooled), hidden_act=activation))
        for tokenizer, width, pooled, activation in zip(tokenizers, widths, POOLED, activations, strict=True)
    ]
    return {
        "transformer": _transformer(SD3Transformer2DModel, text=48),
        "vae": AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            latent_channels=LATENTS,
            norm_num_groups=2,
            sample_size=32,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        "text_encoder": encoders[0],
        "text_encoder_2": encoders[1],
        "tokenizer": tokenizers[0],
        "tokenizer_2": tokenizers[1],
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def _transformer(kind: Any, *, text: int) -> Any:
    """As 3.5 is built: norms of queries and keys, and a second attention in its first block."""
    return kind(
        sample_size=8,
        in_channels=LATENTS,
        out_channels=LATENTS,
        num_layers=2,
        attention_head_dim=WIDTH // 2,
        num_attention_heads=2,
        joint_attention_dim=text,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=sum(POOLED),
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )


def _text(tokenizer: Any, width: int, pooled: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": width * 4,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": pooled,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _t5() -> dict[str, Any]:
    """As wide as the transformer reads it."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", WORD, *(letter for letter in alphabet() if len(letter) == 1)]
    tokenizer = T5Tokenizer(vocab=[(piece, 0.0) for piece in pieces], extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=48,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return {"text_encoder_3": T5EncoderModel(config), "tokenizer_3": tokenizer}
