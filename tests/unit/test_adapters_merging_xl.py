"""LoRAs and bases of Stable Diffusion XL: put into its weights, made of two of them, checked, and told from others."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from fusain.errors import FusainError
from fusain.models import adapters, bases
from fusain.models.adapters import Adapter
from fusain.models.bases import fresh
from tests.unit.test_adapters_merging import CONV, PROJ_IN, TEXT, TO_K, adapter, as_json, run

ATTENTION = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
CONVOLUTION = "unet.down_blocks.0.resnets.0.conv1"
FIRST = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
SECOND = "text_encoder_2.text_model.encoder.layers.0.mlp.fc1"
OF_XL = (ATTENTION, CONVOLUTION, FIRST, SECOND)
OF_FIRST = (TO_K, CONV, PROJ_IN, TEXT)


def weights_of(folder):
    """Every weight that a LoRA could change, by our names."""
    found = bases.open_base(str(folder)).components
    parts = [part for part in ("unet", "text_encoder", "text_encoder_2") if part in found]
    return {f"{part}.{name}": at for part in parts for name, at in found[part].tensors().items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    fresh.write(fresh.TINY_XL, folder / "xl")
    fresh.write(fresh.TINY, folder / "sd1")
    return folder


@pytest.fixture(scope="module")
def base(place):
    return place / "xl"


@pytest.fixture(scope="module")
def weights(base):
    return weights_of(base)


@pytest.fixture
def file(tmp_path):
    def write(made, name="lora", style="kohya"):
        path = tmp_path / f"{name}.safetensors"
        adapters.write(Adapter(made.layers, adapters.for_model("sdxl")), path, style)
        return path

    return write


@pytest.mark.parametrize("style", ["kohya", "diffusers"])
@pytest.mark.parametrize("dora", [False, True])
def test_into_a_base_and_as_diffusers_loads_it(base, weights, file, tmp_path, style, dora):
    """All three networks, each weight by what its layer says, and no other."""
    from diffusers import StableDiffusionXLPipeline

    made, out = adapter(weights, *OF_XL, scale=0.3, dora=dora), tmp_path / "merged"
    found = as_json("merge", f"{file(made, style=style)}=0.5", "--into", base, "-o", out)
    assert found == {"path": str(out), "layers": [4], "matched": [4]}
    after = weights_of(out)
    assert {name for name in after if not torch.equal(after[name], weights[name])} == {f"{one}.weight" for one in OF_XL}
    for name, layer in made.layers.items():
        weight = weights[f"{name}.weight"]
        assert torch.allclose(after[f"{name}.weight"], weight + layer.delta(weight, 0.5), atol=1e-6)
    pipeline = StableDiffusionXLPipeline.from_pretrained(out)
    for name in OF_XL:
        part, _, path = name.partition(".")
        modules = dict(getattr(pipeline, part).named_modules())
        module = modules.get(path) or modules[path.removeprefix("text_model.")]
        assert torch.equal(module.weight, after[f"{name}.weight"])


def test_a_lora_comes_out_of_two_models_as_it_went_in(base, weights, file, tmp_path):
    made, out = adapter(weights, *OF_XL, scale=0.3), tmp_path / "out.safetensors"
    run("merge", file(made), "--into", base, "-o", tmp_path / "tuned")
    found = as_json("extract", base, tmp_path / "tuned", "--rank", 2, "--to", "kohya", "-o", out)
    assert found["kept"] == pytest.approx(1.0, abs=1e-6)
    again = adapters.read(out)
    assert again.layers.keys() == made.layers.keys()
    for name, layer in again.layers.items():
        assert torch.allclose(layer.change(), made.layers[name].change(), atol=1e-5)
    assert {key.partition(".")[0] for key in load_file(out)} == {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k",
        "lora_unet_input_blocks_1_0_in_layers_2",
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1",
    }
    assert again.metadata["ss_base_model_version"] == "sdxl_base_v1-0"


@pytest.mark.parametrize("style", ["kohya", "diffusers"])
def test_verify(base, weights, file, style):
    found = as_json("verify", file(adapter(weights, *OF_XL, scale=0.7), style=style), "--base", base)
    assert (found["layers"], found["matched"], found["styles"]) == (4, 4, ["diffusers", "kohya"])
    assert found["largest"] <= 1e-6


def test_two_models_of_the_two_versions_have_no_difference(place, base, tmp_path):
    with pytest.raises(FusainError) as caught:
        run("extract", base, place / "sd1", "-o", tmp_path / "out.safetensors")
    assert str(caught.value).startswith("E-LORA-013 The two models are not of one kind: ")
    assert not (tmp_path / "out.safetensors").exists()


def test_what_was_made_for_the_other_version_does_not_fit(place, base, weights, file, tmp_path):
    """The whole of it is refused, and with `--allow-partial` what fits by its size is put in, and that is said."""
    path = tmp_path / "sd1.safetensors"
    adapters.write(adapter(weights_of(place / "sd1"), *OF_FIRST), path, "kohya")
    for words in (("merge", path, "--into", base, "-o", tmp_path / "x"), ("verify", path, "--base", base)):
        with pytest.raises(FusainError) as caught:
            run(*words)
        assert str(caught.value) == (
            "E-LORA-009 The LoRA does not fit the model: 3 of 4 layers match.\n"
            f"Why: It seems to be made for a model of other sizes. These do not match: {TO_K} (LoRA: 8 x 16, model: "
            "nothing).\n"
            "Do: Use it with the model that it was trained for; to leave out what does not match: --allow-partial"
        )
    assert not (tmp_path / "x").exists()
    said, _ = run("merge", path, "--into", base, "-o", tmp_path / "part", "--allow-partial")
    assert said == f"{tmp_path / 'part'}: sd1.safetensors: 3 of 4 layers\n"
    with pytest.raises(FusainError, match=r"E-LORA-009 .* 2 of 4 layers match"):
        run("merge", file(adapter(weights, *OF_XL)), "--into", place / "sd1", "-o", tmp_path / "y")


def test_a_file_that_is_broken_or_says_less(base, weights, file, tmp_path):
    whole = file(adapter(weights, *OF_XL, scale=0.5), "whole")
    tensors = {key: tensor.clone() for key, tensor in load_file(whole).items()}
    key, path = "lora_te2_text_model_encoder_layers_0_mlp_fc1", tmp_path / "broken.safetensors"

    def refused(changed):
        save_file(changed, path)
        with pytest.raises(FusainError) as caught:
            run("merge", path, "--into", base, "-o", tmp_path / "x")
        assert not (tmp_path / "x").exists()
        return caught.value.code

    endless = tensors[f"{key}.lora_up.weight"] * float("inf")
    assert refused(tensors | {f"{key}.lora_up.weight": endless}) == "E-LORA-003"
    assert refused({name: at for name, at in tensors.items() if name != f"{key}.lora_up.weight"}) == "E-LORA-004"
    save_file({name: at for name, at in tensors.items() if name != f"{key}.alpha"}, path)
    _, talk = run("merge", path, "--into", base, "-o", tmp_path / "merged")
    assert talk.startswith("W-LORA-001 ")
    found = adapters.read(path).layers
    assert {name: layer.scale for name, layer in found.items()} == dict.fromkeys(OF_XL, 0.5) | {SECOND: 1.0}
