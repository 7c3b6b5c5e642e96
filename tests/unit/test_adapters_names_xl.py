"""The names of layers in LoRA files for Stable Diffusion XL: kohya's are those of the original blocks."""

from __future__ import annotations

from functools import cache
from math import sqrt

import pytest
import torch
from safetensors.torch import load_file, save_file

from fusain.errors import SettingsError
from fusain.models import adapters
from fusain.models.adapters import Adapter, LowRank, names
from fusain.models.bases import inferred

UNET = {
    "lora_unet_input_blocks_4_1_proj_in": "down_blocks.1.attentions.0.proj_in",
    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": (
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    ),
    "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k": (
        "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k"
    ),
    "lora_unet_input_blocks_5_1_transformer_blocks_0_attn1_to_out_0": (
        "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_out.0"
    ),
    "lora_unet_input_blocks_5_1_proj_out": "down_blocks.1.attentions.1.proj_out",
    "lora_unet_input_blocks_7_1_transformer_blocks_9_ff_net_0_proj": (
        "down_blocks.2.attentions.0.transformer_blocks.9.ff.net.0.proj"
    ),
    "lora_unet_input_blocks_8_1_transformer_blocks_3_ff_net_2": (
        "down_blocks.2.attentions.1.transformer_blocks.3.ff.net.2"
    ),
    "lora_unet_middle_block_1_proj_in": "mid_block.attentions.0.proj_in",
    "lora_unet_middle_block_1_transformer_blocks_7_attn2_to_v": (
        "mid_block.attentions.0.transformer_blocks.7.attn2.to_v"
    ),
    "lora_unet_output_blocks_0_1_transformer_blocks_0_attn1_to_k": (
        "up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"
    ),
    "lora_unet_output_blocks_1_1_transformer_blocks_8_attn2_to_out_0": (
        "up_blocks.0.attentions.1.transformer_blocks.8.attn2.to_out.0"
    ),
    "lora_unet_output_blocks_2_1_proj_out": "up_blocks.0.attentions.2.proj_out",
    "lora_unet_output_blocks_3_1_transformer_blocks_1_attn1_to_v": (
        "up_blocks.1.attentions.0.transformer_blocks.1.attn1.to_v"
    ),
    "lora_unet_output_blocks_4_1_proj_in": "up_blocks.1.attentions.1.proj_in",
    "lora_unet_output_blocks_5_1_transformer_blocks_0_ff_net_0_proj": (
        "up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj"
    ),
    "lora_unet_input_blocks_0_0": "conv_in",
    "lora_unet_input_blocks_1_0_in_layers_2": "down_blocks.0.resnets.0.conv1",
    "lora_unet_input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
    "lora_unet_input_blocks_4_0_skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
    "lora_unet_input_blocks_8_0_emb_layers_1": "down_blocks.2.resnets.1.time_emb_proj",
    "lora_unet_middle_block_0_out_layers_3": "mid_block.resnets.0.conv2",
    "lora_unet_output_blocks_2_2_conv": "up_blocks.0.upsamplers.0.conv",
    "lora_unet_output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
    "lora_unet_output_blocks_8_0_in_layers_2": "up_blocks.2.resnets.2.conv1",
    "lora_unet_time_embed_0": "time_embedding.linear_1",
    "lora_unet_label_emb_0_2": "add_embedding.linear_2",
    "lora_unet_out_2": "conv_out",
}
TEXT = {
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": (
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    ),
    "lora_te1_text_model_encoder_layers_11_mlp_fc2": "text_encoder.text_model.encoder.layers.11.mlp.fc2",
    "lora_te2_text_model_encoder_layers_31_self_attn_out_proj": (
        "text_encoder_2.text_model.encoder.layers.31.self_attn.out_proj"
    ),
    "lora_te2_text_model_encoder_layers_7_mlp_fc1": "text_encoder_2.text_model.encoder.layers.7.mlp.fc1",
    "lora_te2_text_projection": "text_encoder_2.text_projection",
}
REAL = {name: f"unet.{path}" for name, path in UNET.items()} | TEXT
"""As files from kohya's trainer have them, written by hand."""


@cache
def networks():
    """All three at full size, without memory."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    configs = inferred.published("sdxl")
    with torch.device("meta"):
        return {
            "unet": UNet2DConditionModel.from_config(configs["unet"]),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
            "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2"])),
        }


@cache
def layers():
    found = {}
    for part, network in networks().items():
        for path, module in network.named_modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                is_plain = part == "unet" or path.startswith(("text_model.", "text_projection"))
                found[f"{part}.{path}" if is_plain else f"{part}.text_model.{path}"] = tuple(module.weight.shape)
    return found


@pytest.mark.parametrize("name", REAL)
def test_real_names(name):
    assert names.from_kohya(name) == REAL[name]
    assert names.to_kohya(REAL[name], "sdxl") == name
    assert names.from_diffusers(REAL[name]) == REAL[name]


def test_every_layer_of_the_full_networks_has_a_name_of_its_own():
    found = {name: names.to_kohya(name, "sdxl") for name in layers()}
    assert len(set(found.values())) == len(found) > 1000
    assert {name: names.from_kohya(kohya) for name, kohya in found.items()} == {name: name for name in found}
    assert all(names.from_diffusers(name) == name for name in found)


def test_the_usual_lora_of_full_networks():
    """What kohya's trainer makes of its standard targets, as it counts them itself."""
    found = {names.to_kohya(name, "sdxl"): shape for name, shape in layers().items()}
    unet = {name for name in found if name.startswith("lora_unet_") and ("_proj_" in name or "transformer" in name)}
    first = {name for name in found if name.startswith("lora_te1_")}
    second = {name for name in found if name.startswith("lora_te2_text_model_")}
    assert (len(unet), len(first), len(second)) == (722, 72, 192)
    assert found["lora_unet_input_blocks_4_1_proj_in"] == (640, 640)
    assert found["lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k"] == (640, 2048)
    assert found["lora_unet_middle_block_1_transformer_blocks_9_ff_net_0_proj"] == (10240, 1280)
    assert found["lora_unet_output_blocks_5_1_transformer_blocks_1_ff_net_2"] == (640, 2560)
    assert found["lora_te2_text_model_encoder_layers_31_mlp_fc1"] == (5120, 1280)


def adapter(shapes=None, *, scale=0.5, rank=2, dora=False):
    """Of some layers of the full networks, small in all but their inputs; or of layers of other shapes."""
    chance, made = torch.Generator().manual_seed(0), {}
    named = [name for name in REAL.values() if not name.endswith(("conv_in", "conv_out"))]
    for name, (outputs, inputs, *kernel) in (shapes or {name: layers()[name] for name in named}).items():
        down = torch.randn(rank, inputs, *kernel, generator=chance)
        up = torch.randn(outputs, rank, *[1] * len(kernel), generator=chance)
        lengths = torch.rand(outputs, generator=chance) + 1 if dora else None
        made[name] = LowRank(down, up, scale, lengths)
    return Adapter(made)


@pytest.mark.parametrize("style", ["diffusers", "kohya"])
@pytest.mark.parametrize("parts", [("unet", "text_encoder", "text_encoder_2"), ("unet",), ("text_encoder_2",)])
def test_both_styles_are_as_strong_as_the_adapter(style, parts, tmp_path):
    """The width of captions, or a second text encoder, tells which model it is for."""
    made = Adapter({name: layer for name, layer in adapter().layers.items() if name.partition(".")[0] in parts})
    path, again = tmp_path / "lora.safetensors", tmp_path / "again.safetensors"
    adapters.write(made, path, style)
    assert adapters.verify(made, path).largest <= 1e-6
    found = adapters.read(path)
    assert found.metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert found.metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert set(found.parts) == set(parts)
    adapters.write(found, again, "kohya")
    assert all(key.partition(".")[0] in REAL for key in load_file(again))


RANK = 4
SCALES = {"1": 1 / RANK, "r/2": 0.5, "r": 1.0, "2r": 2.0, "rsLoRA": RANK / sqrt(RANK), "rsLoRA of 1": 1 / sqrt(RANK)}
SHAPES = {
    "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k": (8, 2048),
    "lora_unet_input_blocks_4_0_skip_connection": (10, 6, 1, 1),
    "lora_unet_input_blocks_1_0_in_layers_2": (8, 6, 3, 3),
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": (12, 12),
    "lora_te2_text_model_encoder_layers_7_mlp_fc1": (20, 10),
    "lora_te2_text_projection": (14, 10),
}
"""Of one layer of each kind; the width of captions is the model's."""


def small(scale, *, dora=False):
    return adapter({REAL[name]: shape for name, shape in SHAPES.items()}, scale=scale, rank=RANK, dora=dora)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("style", ["diffusers", "kohya"])
@pytest.mark.parametrize("alpha", SCALES)
def test_both_styles_are_as_strong_at_every_alpha(alpha, style, dora, tmp_path):
    """What is added to a weight, of LoRA and of DoRA, is what the adapter adds."""
    made, path, chance = small(SCALES[alpha], dora=dora), tmp_path / "lora.safetensors", torch.Generator()
    adapters.write(made, path, style)
    found = adapters.read(path)
    assert (found.style, found.notes) == (style, ())
    assert found.parts == {"text_encoder": 1, "text_encoder_2": 2, "unet": 3}
    for name, layer in made.layers.items():
        weight = torch.randn(SHAPES[names.to_kohya(name, "sdxl")], generator=chance.manual_seed(9))
        wanted = layer.delta(weight)
        assert (found.layers[name].delta(weight) - wanted).abs().max() <= 1e-6 * wanted.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("style", ["diffusers", "kohya"])
def test_files_of_half_precision(style, dtype, tmp_path):
    made, path = small(1 / sqrt(RANK)), tmp_path / "lora.safetensors"
    adapters.write(made, path, style, dtype=dtype)
    report = adapters.verify(made, path)
    assert report.layers == len(SHAPES)
    assert 0 < report.largest <= torch.finfo(dtype).eps


def test_the_numbers_themselves_of_a_dora_in_kohyas_style(tmp_path):
    """Under the names that kohya's trainer has for this model, each with its own alpha and a row of lengths."""
    path = tmp_path / "lora.safetensors"
    adapters.write(small(RANK / sqrt(RANK), dora=True), path, "kohya")
    tensors = load_file(path)
    for name, (outputs, inputs, *kernel) in SHAPES.items():
        ones = [1] * len(kernel)
        found = {key.partition(".")[2]: tuple(at.shape) for key, at in tensors.items() if key.startswith(f"{name}.")}
        assert found == {
            "alpha": (),
            "lora_down.weight": (RANK, inputs, *kernel),
            "lora_up.weight": (outputs, RANK, *ones),
            "dora_scale": (outputs, 1, *ones),
        }
    assert len(tensors) == 4 * len(SHAPES)
    alphas = {float(at) for key, at in tensors.items() if key.endswith(".alpha")}
    assert alphas == {RANK * sqrt(RANK)}, "alpha times the root of the rank, so that alpha / rank is the factor"


def test_a_file_that_says_nothing_is_known_by_its_names(tmp_path):
    """Of one without header, and of no attention to captions, that tells it too."""
    path, again = tmp_path / "lora.safetensors", tmp_path / "again.safetensors"
    key = "lora_unet_middle_block_0_out_layers_3"
    save_file(
        {f"{key}.lora_down.weight": torch.ones(2, 8, 3, 3), f"{key}.lora_up.weight": torch.ones(8, 2, 1, 1)}, path
    )
    found = adapters.read(path)
    assert list(found.layers) == ["unet.mid_block.resnets.0.conv2"]
    adapters.write(found, again, "kohya")
    assert {name.partition(".")[0] for name in load_file(again)} == {key}


def test_layers_of_larger_unets_have_no_name_in_kohyas_style(tmp_path):
    layer = "unet.down_blocks.3.resnets.0.conv1"
    made = Adapter({layer: LowRank(torch.ones(1, 4, 3, 3), torch.ones(4, 1, 1, 1), 1.0)}, adapters.for_model("sdxl"))
    assert adapters.styles_for(made) == ("diffusers",)
    assert adapters.nameless(made.layers, "sdxl") == [layer]
    assert adapters.nameless(made.layers, "sd1") == []
    with pytest.raises(SettingsError) as caught:
        adapters.write(made, tmp_path / "lora.safetensors", "kohya")
    assert str(caught.value) == (
        "E-LORA-021 Kohya's style has no name for this layer: it is in none of the blocks that Stable Diffusion XL "
        f"has, or in a transformer, whose names are not written.\nWhere: {layer}\n"
        "Do: Write it in diffusers' style: --to diffusers."
    )


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_output_blocks_9_0_in_layers_2",
        "lora_unet_input_blocks_4_0_in_layers",
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
    ],
)
def test_names_of_other_models_are_not_guessed(name):
    assert names.from_kohya(name) is None
