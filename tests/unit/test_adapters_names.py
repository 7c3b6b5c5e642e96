"""The names of layers, held against names of real files and against the full-size networks."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from fusain.models.adapters import names
from fusain.models.bases import inferred

REAL = {
    "lora_unet_down_blocks_0_attentions_0_proj_in": "unet.down_blocks.0.attentions.0.proj_in",
    "lora_unet_down_blocks_0_attentions_1_proj_out": "unet.down_blocks.0.attentions.1.proj_out",
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    ),
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0": (
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
    ),
    "lora_unet_down_blocks_1_attentions_1_transformer_blocks_0_attn2_to_k": (
        "unet.down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k"
    ),
    "lora_unet_down_blocks_2_attentions_0_transformer_blocks_0_attn2_to_v": (
        "unet.down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_v"
    ),
    "lora_unet_down_blocks_2_attentions_1_transformer_blocks_0_ff_net_0_proj": (
        "unet.down_blocks.2.attentions.1.transformer_blocks.0.ff.net.0.proj"
    ),
    "lora_unet_down_blocks_2_attentions_1_transformer_blocks_0_ff_net_2": (
        "unet.down_blocks.2.attentions.1.transformer_blocks.0.ff.net.2"
    ),
    "lora_unet_mid_block_attentions_0_proj_in": "unet.mid_block.attentions.0.proj_in",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0": (
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    ),
    "lora_unet_up_blocks_1_attentions_2_transformer_blocks_0_attn1_to_k": (
        "unet.up_blocks.1.attentions.2.transformer_blocks.0.attn1.to_k"
    ),
    "lora_unet_up_blocks_2_attentions_0_proj_out": "unet.up_blocks.2.attentions.0.proj_out",
    "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj": (
        "unet.up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj"
    ),
    "lora_unet_down_blocks_0_downsamplers_0_conv": "unet.down_blocks.0.downsamplers.0.conv",
    "lora_unet_up_blocks_0_upsamplers_0_conv": "unet.up_blocks.0.upsamplers.0.conv",
    "lora_unet_down_blocks_1_resnets_0_conv_shortcut": "unet.down_blocks.1.resnets.0.conv_shortcut",
    "lora_unet_down_blocks_3_resnets_1_conv1": "unet.down_blocks.3.resnets.1.conv1",
    "lora_unet_mid_block_resnets_0_conv2": "unet.mid_block.resnets.0.conv2",
    "lora_unet_up_blocks_0_resnets_2_time_emb_proj": "unet.up_blocks.0.resnets.2.time_emb_proj",
    "lora_unet_conv_in": "unet.conv_in",
    "lora_unet_time_embedding_linear_1": "unet.time_embedding.linear_1",
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj": "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
    "lora_te_text_model_encoder_layers_3_self_attn_out_proj": (
        "text_encoder.text_model.encoder.layers.3.self_attn.out_proj"
    ),
    "lora_te_text_model_encoder_layers_10_self_attn_v_proj": (
        "text_encoder.text_model.encoder.layers.10.self_attn.v_proj"
    ),
    "lora_te_text_model_encoder_layers_11_mlp_fc1": "text_encoder.text_model.encoder.layers.11.mlp.fc1",
    "lora_te_text_model_encoder_layers_11_mlp_fc2": "text_encoder.text_model.encoder.layers.11.mlp.fc2",
}
"""As files from kohya's trainer have them, written by hand."""


@cache
def networks(architecture):
    """UNet and text encoder at full size, without memory."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    configs = inferred.published(architecture)
    with torch.device("meta"):
        return {
            "unet": UNet2DConditionModel.from_config(configs["unet"]),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
        }


def layers(architecture):
    for part, network in networks(architecture).items():
        for path, module in network.named_modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                inner = "text_model." if part == "text_encoder" and not path.startswith("text_model.") else ""
                yield f"{part}.{inner}{path}", module


@pytest.mark.parametrize("name", REAL)
def test_real_names(name):
    assert names.from_kohya(name) == REAL[name]
    assert names.to_kohya(REAL[name]) == name
    assert names.from_diffusers(REAL[name]) == REAL[name]


@pytest.mark.parametrize("architecture", ["sd1", "sd2"])
def test_every_layer_of_the_full_networks_has_a_name_of_its_own(architecture):
    found = {name: names.to_kohya(name) for name, _ in layers(architecture)}
    assert len(set(found.values())) == len(found) > 300
    assert {name: names.from_kohya(kohya) for name, kohya in found.items()} == {name: name for name in found}
    assert all(names.from_diffusers(name) == name for name in found)


@pytest.mark.parametrize(
    ("architecture", "text_layers", "width", "proj_in"),
    [("sd1", 12, 768, (320, 320, 1, 1)), ("sd2", 23, 1024, (320, 320))],
)
def test_the_usual_lora_of_full_networks(architecture, text_layers, width, proj_in):
    """What kohya's trainer makes of its standard targets: 192 layers of the UNet, 72 of the text encoder of 1.x."""
    found = {names.to_kohya(name): tuple(module.weight.shape) for name, module in layers(architecture)}
    unet = {name: shape for name, shape in found.items() if "_attentions_" in name}
    text = {name: shape for name, shape in found.items() if name.startswith("lora_te_")}
    assert len(unet) == 192
    assert len(text) == 6 * text_layers
    start = "lora_unet_down_blocks_0_attentions_0_"
    assert unet[start + "proj_in"] == proj_in
    assert unet[start + "transformer_blocks_0_attn1_to_q"] == (320, 320)
    assert unet[start + "transformer_blocks_0_attn2_to_k"] == (320, width)
    assert unet[start + "transformer_blocks_0_ff_net_0_proj"] == (2560, 320)
    assert unet["lora_unet_up_blocks_1_attentions_2_transformer_blocks_0_ff_net_2"] == (1280, 5120)
    assert text["lora_te_text_model_encoder_layers_11_mlp_fc1"] == (4 * width, width)
    assert text["lora_te_text_model_encoder_layers_11_self_attn_out_proj"] == (width, width)


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out", "to_out.0"),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q", "to_q"),
    ],
)
def test_projections_of_old_files(path, layer):
    found = names.from_diffusers(names.old_projection(path))
    assert found == f"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.{layer}"


def test_text_encoders_of_files_with_and_without_their_level():
    wanted = "text_encoder.text_model.encoder.layers.1.self_attn.out_proj"
    assert names.from_diffusers("text_encoder.encoder.layers.1.self_attn.out_proj") == wanted
    old = names.old_projection("text_encoder.text_model.encoder.layers.1.self_attn.to_out")
    assert names.from_diffusers(old) == wanted


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_double_blocks_0_img_attn_qkv",
        "lora_te_text_model_encoder_layers_0_layer_norm1",
        "lora_unet_",
        "other_down_blocks_0",
    ],
)
def test_names_of_other_models_are_not_guessed(name):
    assert names.from_kohya(name) is None
