"""What a single file holds, told from the key tables of published models at full size."""

from __future__ import annotations

from math import prod

import pytest
import torch

from fusain.models.bases import detection, inferred, naming


@pytest.fixture(scope="module")
def full():
    """Names and shapes of published models, from the real classes on the meta device."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def shapes(module, prefix=""):
        return {prefix + name: tuple(value.shape) for name, value in module.state_dict().items()}

    tables = {}
    with torch.device("meta"):
        for name in ("sd1", "sd2", "sdxl"):
            config = inferred.published(name)
            tables[name] = {
                "unet": shapes(UNet2DConditionModel(**config["unet"])),
                "vae": shapes(AutoencoderKL(**config["vae"])),
                "text_encoder": shapes(CLIPTextModel(CLIPTextConfig(**config["text_encoder"])), "text_model."),
            }
        config = inferred.published("sdxl")
        second = shapes(CLIPTextModelWithProjection(CLIPTextConfig(**config["text_encoder_2"])))
        tables["sdxl"] |= {"text_encoder_2": second}
    return tables


def original(full, name, part):
    config = inferred.published(name)[part]
    names = naming.original_names(part, config, full[name][part])
    assert names.keys() == full[name][part].keys()
    prefix = naming.PREFIXES.get(part) or naming.TEXT_PREFIXES[name][part]
    return {prefix + names[key]: shape for key, shape in full[name][part].items()}


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_a_whole_file_at_full_size(name, full):
    file = {key: shape for part in full[name] for key, shape in original(full, name, part).items()}
    found = detection.look(file)
    assert (found.architecture, found.holds) == (name, ("unet", "vae", "text_encoder"))
    evidence = {
        "sd1": "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight (320 x 768)",
        "sd2": "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight (320 x 1024)",
        "sdxl": "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight (640 x 2048)",
    }
    assert found.evidence == f"model.diffusion_model.{evidence[name]}"
    inpainting = file | {"model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3)}
    words = {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "Stable Diffusion XL"}[name]
    assert detection.look(inpainting).words == f"{words} for inpainting"


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_the_shapes_tell_the_published_configuration(name, full):
    known = inferred.published(name)
    for part in ("unet", "vae"):
        prefix = naming.PREFIXES[part]
        file = {key.removeprefix(prefix): shape for key, shape in original(full, name, part).items()}
        assert getattr(inferred, part)(file, known[part]) == known[part]
    for part in naming.TEXT_PREFIXES[name]:
        assert inferred.text_encoder(full[name][part], known[part]) == known[part]


def test_xl_has_the_parameters_that_were_published(full):
    """UNet, both text encoders and autoencoder as their model cards and files count them."""
    counts = {part: sum(prod(shape) for shape in shapes.values()) for part, shapes in full["sdxl"].items()}
    assert counts == {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    }


TEXT_XL = {"conditioner.embedders.1.model.ln_final.weight": (1280,)}
VAE = {"first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3), "first_stage_model.decoder.mid.block_1.x": (1,)}
OTHERS = [
    ("the UNet of Stable Diffusion 1.x alone", lambda full: full["sd1"]["unet"]),
    ("the UNet of Stable Diffusion 2.x alone", lambda full: full["sd2"]["unet"]),
    ("the UNet of Stable Diffusion XL alone", lambda full: full["sdxl"]["unet"]),
    ("the UNet of Stable Diffusion XL alone", lambda full: original(full, "sdxl", "unet")),
    ("Stable Diffusion XL", lambda full: original(full, "sdxl", "unet") | TEXT_XL | VAE),
    ("the refiner of Stable Diffusion XL", lambda full: {**VAE, **refiner()}),
    ("an autoencoder alone, with 4 latent channels", lambda full: full["sd1"]["vae"]),
    ("an autoencoder alone, with 4 latent channels", lambda full: original(full, "sd1", "vae")),
    ("the text encoder alone", lambda full: full["sd1"]["text_encoder"]),
    ("the transformer of Stable Diffusion 3 alone", lambda full: on_meta("SD3Transformer2DModel")),
    ("the transformer of Flux alone", lambda full: on_meta("FluxTransformer2DModel")),
    ("the transformer of Flux alone", lambda full: {"double_blocks.0.img_attn.qkv.weight": (9216, 3072)}),
    ("a LoRA for Stable Diffusion 1.x", lambda full: {f"lora_unet_{BLOCK}_attn2_to_k.lora_down.weight": (4, 768)}),
    ("a LoRA for Stable Diffusion XL", lambda full: {f"unet.{BLOCK}.attn2.to_k.lora_A.weight": (4, 2048)}),
    ("a LoRA for Flux", lambda full: {"transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight": (4, 3072)}),
    ("a learnt token (textual inversion)", lambda full: {"emb_params": (4, 768)}),
    ("a ControlNet for Stable Diffusion 1.x", lambda full: {f"control_model.{BLOCK}.attn2.to_k.weight": (320, 768)}),
]
BLOCK = "input_blocks.1.1.transformer_blocks.0"


def refiner():
    unet = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    return {unet: (768, 1280), "conditioner.embedders.0.model.ln_final.weight": (1280,)}


def on_meta(name):
    import diffusers

    with torch.device("meta"):
        module = getattr(diffusers, name)(num_layers=1, **({"num_single_layers": 1} if "Flux" in name else {}))
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


@pytest.mark.parametrize(("words", "make"), OTHERS)
def test_what_a_file_is(words, make, full):
    assert detection.look(make(full)).words == words


def test_a_stranger():
    assert detection.look({"layer1.0.conv.weight": (64, 3, 7, 7)}) is None
