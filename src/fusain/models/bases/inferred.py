"""Configurations from the shapes of original weights, for single files bring none.

What shapes cannot tell (heads, activations, groups of norms) comes from `configs/`, as the published models have it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

from fusain.models.bases.stored import Shapes

HEAD_CHANNELS: Final = 64
"""Of each head, in the UNets of 2.x and XL and in every CLIP text encoder."""


@cache
def published(architecture: str) -> Mapping[str, Any]:
    """The configurations of the published model: of each network and of the scheduler."""
    text = resources.files("fusain.models.bases").joinpath("configs", f"{architecture}.json").read_text("utf-8")
    found: Mapping[str, Any] = json.loads(text)
    return found


def count(shapes: Shapes, prefix: str) -> int:
    """How many numbered modules stand under `prefix`."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return 1 + max((int(match[1]) for name in shapes if (match := pattern.match(name))), default=-1)


def unet(shapes: Shapes, known: Mapping[str, Any]) -> dict[str, Any]:
    """Of a UNet by its original names; a name that it lacks is a KeyError."""
    entries = count(shapes, "input_blocks.")
    blocks = 1 + sum(f"input_blocks.{entry}.0.op.weight" in shapes for entry in range(entries))
    layers = entries // blocks - 1
    ends = [block * (layers + 1) + layers for block in range(blocks)]
    channels = [shapes[f"input_blocks.{end}.0.out_layers.3.weight"][0] for end in ends]
    down = [f"input_blocks.{end}.1.proj_in.weight" in shapes for end in ends]
    up = [f"output_blocks.{block * (layers + 1)}.1.proj_in.weight" in shapes for block in range(blocks)]
    heads = known["attention_head_dim"]
    return {
        **known,
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in down],
        "up_block_types": ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in up],
        "cross_attention_dim": shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": len(shapes["middle_block.1.proj_in.weight"]) == 2,
        "attention_head_dim": [max(1, side // HEAD_CHANNELS) for side in channels]
        if isinstance(heads, list)
        else heads,
        **_of_xl(shapes, known, ends),
    }


def _of_xl(shapes: Shapes, known: Mapping[str, Any], ends: list[int]) -> dict[str, Any]:
    """What only the UNet of XL has: blocks of several transformers, and sizes and pooled text beside the time."""
    if "transformer_layers_per_block" not in known:
        return {}
    return {
        "transformer_layers_per_block": [
            max(1, count(shapes, f"input_blocks.{end}.1.transformer_blocks.")) for end in ends
        ],
        "projection_class_embeddings_input_dim": shapes["label_emb.0.0.weight"][1],
    }


def vae(shapes: Shapes, known: Mapping[str, Any]) -> dict[str, Any]:
    """Of an autoencoder by its original names; a name that it lacks is a KeyError."""
    levels = count(shapes, "encoder.down.")
    return {
        **known,
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": [shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)],
        "layers_per_block": count(shapes, "encoder.down.0.block."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def text_encoder(shapes: Shapes, known: Mapping[str, Any]) -> dict[str, Any]:
    """Of a CLIP text encoder by the names that transformers has; a name that it lacks is a KeyError."""
    words, width = shapes["text_model.embeddings.token_embedding.weight"]
    return {
        **known,
        "vocab_size": words,
        "hidden_size": width,
        "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
        "num_hidden_layers": count(shapes, "text_model.encoder.layers."),
        "intermediate_size": shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        "num_attention_heads": max(1, width // HEAD_CHANNELS),
        "projection_dim": shapes.get("text_projection.weight", (known["projection_dim"],))[0],
    }
