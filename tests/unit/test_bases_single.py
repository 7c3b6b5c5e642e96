"""Single files: read so that every number is where it belongs, and refused where they are no base."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from fusain.errors import FusainError, SettingsError
from fusain.models import bases
from fusain.models.bases import naming
from tests.unit import originals
from tests.unit.originals import original_file, tiny

BLOCK = "input_blocks.1.1.transformer_blocks.0"
TEXT_REFINER = {"conditioner.embedders.0.model.ln_final.weight": (1280,)}
VAE = {"first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3), "first_stage_model.decoder.mid.block_1.x": (1,)}


@pytest.fixture
def written(tmp_path):
    def write(tensors, name="model.safetensors", metadata=None):
        save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / name, metadata)
        return tmp_path / name

    return write


def same(found, wanted) -> None:
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


@pytest.mark.parametrize("architecture", ["sd1", "sd2", "sdxl"])
def test_a_file_is_read_exactly(architecture, written):
    """Every tensor of every network, bit for bit, and the networks that are built of them give the same."""
    base = bases.open_base(str(written(original_file(architecture))))
    model = tiny(architecture)
    assert base.architecture == architecture
    for part, wanted in model.weights().items():
        same(base.components[part].tensors(), wanted)
    noisy, times = torch.randn(2, 4, 8, 8), torch.tensor([3, 700])
    states = torch.randn(2, 5, model.unet.config.cross_attention_dim)
    beside = {"text_embeds": torch.randn(2, 32), "time_ids": torch.randint(0, 64, (2, 6))}
    tokens = torch.randint(0, 513, (2, 77))
    tokens[:, 40:] = 513
    with torch.no_grad():
        built = bases.build(base.components["unet"])
        found, wanted = (net(noisy, times, states, added_cond_kwargs=beside)[0] for net in (built, model.unet))
        assert torch.equal(found, wanted)
        if architecture == "sdxl":
            found, wanted = (
                net(tokens)[0] for net in (bases.build(base.components["text_encoder_2"]), model.text_encoder_2)
            )
            assert found.shape == (2, 32)
            assert torch.equal(found, wanted)
        assert torch.equal(bases.build(base.components["vae"]).decode(noisy)[0], model.vae.decode(noisy)[0])
        assert torch.equal(bases.build(base.components["text_encoder"])(tokens)[0], model.text_encoder(tokens)[0])
    assert all(parameter.dtype == torch.float32 for parameter in built.parameters())


@pytest.mark.parametrize("architecture", ["sd1", "sd2", "sdxl"])
def test_the_names_agree_with_diffusers(architecture):
    """An independent reading of the same file."""
    from diffusers.loaders import single_file_utils as theirs

    file, model = original_file(architecture), tiny(architecture)
    wanted = model.weights()
    same(theirs.convert_ldm_unet_checkpoint(dict(file), dict(model.unet.config)), wanted["unet"])
    same(theirs.convert_ldm_vae_checkpoint(dict(file), dict(model.vae.config)), wanted["vae"])
    if architecture == "sd1":
        text = theirs.convert_ldm_clip_checkpoint(dict(file))
        del text["text_model.embeddings.position_ids"]
    elif architecture == "sdxl":
        text = theirs.convert_ldm_clip_checkpoint(dict(file), remove_prefix="conditioner.embedders.0.transformer.")
        del text["text_model.embeddings.position_ids"]
        second = theirs.convert_open_clip_checkpoint(
            model.text_encoder_2, dict(file), prefix="conditioner.embedders.1.model."
        )
        same(second, wanted["text_encoder_2"])
    else:
        text = theirs.convert_open_clip_checkpoint(model.text_encoder, dict(file))
        text = {name: value for name, value in text.items() if ".layers.2." not in name}  # they know its number, 23
        text.pop("text_projection.weight", None)
    same(text, wanted["text_encoder"])


@pytest.mark.parametrize(("weights", "added"), [("ema", 1), ("raw", 0)])
def test_averaged_or_raw(weights, added, written):
    base = bases.open_base(str(written(original_file("sd1", ema=True))), weights=weights)
    wanted = {name: value + added for name, value in tiny("sd1").weights()["unet"].items()}
    same(base.components["unet"].tensors(), wanted)
    assert base.notes == ()


def test_the_averages_agree_with_diffusers():
    from diffusers.loaders import single_file_utils as theirs

    found = theirs.convert_ldm_unet_checkpoint(
        original_file("sd1", ema=True), dict(tiny("sd1").unet.config), extract_ema=True
    )
    same(found, {name: value + 1 for name, value in tiny("sd1").weights()["unet"].items()})


def test_the_identity_follows_what_is_read(written):
    path = written(original_file("sd1", ema=True))
    ids = {bases.open_base(str(path), weights=weights).id for weights in ("ema", "raw")}
    assert len(ids) == 2
    file = original_file("sd1", ema=True)
    file["first_stage_model.quant_conv.bias"][0] += 1e-3
    assert bases.open_base(str(written(file))).id not in ids


def test_the_shapes_of_a_file_tell_the_configuration_of_xl(written):
    """But for heads and activations, which no shape tells."""
    base, model = bases.open_base(str(written(original_file("sdxl")))), tiny("sdxl")
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        found, wanted = base.components[part].settings, getattr(model, part).config
        names = [name for name in found if name not in ("sample_size", "scaling_factor", "force_upcast")]
        own = {name: getattr(wanted, name) for name in names if "token_id" not in name and hasattr(wanted, name)}
        assert {name: _listed(found[name]) for name in own} == {name: _listed(value) for name, value in own.items()}
    assert (base.prediction, base.hides_by_zeros) == ("epsilon", True)
    assert base.notes == ()


def _listed(value):
    return list(value) if isinstance(value, tuple) else value


def test_a_note_where_averages_are_missing(written):
    path = written(original_file("sd1"))
    (note,) = bases.open_base(str(path)).notes
    assert str(note) == (
        f"W-MODEL-012 The file holds no averaged (EMA) weights beside the others; those it has are used. ({path})"
    )


def test_half_of_the_averages(written):
    file = original_file("sd1", ema=True)
    del file["model_ema.diffusion_modelout2weight"]
    path = written(file)
    with pytest.raises(FusainError) as caught:
        bases.open_base(str(path))
    total = len(tiny("sd1").weights()["unet"])
    assert str(caught.value) == (
        f"E-MODEL-051 No 'ema' weights of the UNet are in the file: 1 of {total} are missing, "
        "the first is 'model_ema.diffusion_modelout2weight'.\n"
        f"Where: {path}\nDo: Use the other weights: raw."
    )


def test_a_file_of_version_2_does_not_say_what_it_predicts(written):
    base = bases.open_base(str(written(original_file("sd2"))))
    assert (base.prediction, [note.code for note in base.notes]) == (None, ["W-MODEL-012", "W-MODEL-013"])
    said = written(original_file("sd2"), metadata={"modelspec.prediction_type": "epsilon"})
    assert bases.open_base(str(said)).prediction == "epsilon"
    marked = written(original_file("sd1") | {"v_pred": torch.zeros(0)})
    assert bases.open_base(str(marked)).prediction == "v"
    assert bases.open_base(str(written(original_file("sd1")))).prediction == "epsilon"


def test_a_file_without_the_layer_that_is_not_read(written):
    """As tools write it back from diffusers: neither the last layer nor the projection."""
    file = {name: value for name, value in original_file("sd2").items() if "resblocks.2." not in name}
    del file["cond_stage_model.model.text_projection"]
    base = bases.open_base(str(written(file)))
    same(base.components["text_encoder"].tensors(), tiny("sd2").weights()["text_encoder"])


def test_half_precision_becomes_full(written):
    half = {name: value.half() if value.is_floating_point() else value for name, value in original_file("sd1").items()}
    base = bases.open_base(str(written(half)))
    assert base.components["unet"].dtype == "F16"
    built = bases.build(base.components["unet"]).state_dict()
    same(built, {name: value.half().float() for name, value in tiny("sd1").weights()["unet"].items()})


def test_a_weight_too_many_and_one_too_few(written):
    path = written(original_file("sd1") | {"model.diffusion_model.surprise.weight": torch.zeros(1)})
    total = len(tiny("sd1").weights()["unet"])
    with pytest.raises(FusainError) as caught:
        bases.open_base(str(path))
    assert str(caught.value).startswith(
        f"E-MODEL-002 The weights do not fit the network: {total} of {total + 1} tensors match; "
        "the first that differs is 'model.diffusion_model.surprise.weight'.\n"
    )
    file = original_file("sd1")
    del file["model.diffusion_model.out.2.bias"]
    with pytest.raises(FusainError) as caught:
        bases.build(bases.open_base(str(written(file))).components["unet"])
    assert f"{total - 1} of {total} tensors match; the first that differs is 'conv_out.bias'" in str(caught.value)
    del file["model.diffusion_model.out.2.weight"]
    path = written(file)
    with pytest.raises(FusainError) as caught:
        bases.open_base(str(path))
    assert str(caught.value) == (
        f"E-MODEL-053 The UNet of the file lacks 'out.2.weight'.\nWhere: {path}\n"
        "Do: Download the file again; if it is whole, its model is of a kind that Fusain does not read."
    )


def test_what_is_of_no_use_is_told(written):
    base = bases.open_base(str(written(original_file("sd1") | {"embedding_manager.x": torch.zeros(1)})))
    assert "1 tensors of the file are of no use here, among them 'embedding_manager.x'." in str(base.notes[-1])


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        (
            {f"lora_unet_{BLOCK}_attn2_to_k.lora_down.weight": (4, 768)},
            "E-MODEL-044 This is a LoRA for Stable Diffusion 1.x, but a whole model is needed.\nWhere: {path}\n"
            "Why: The first key that differs: "
            f"lora_unet_{BLOCK}_attn2_to_k.lora_down.weight (4 x 768).\n"
            "Do: Name another one; what a model is, is said by: fusain models inspect SOURCE",
        ),
        (
            {"encoder.mid.block_1.norm1.weight": (8,), "decoder.conv_in.weight": (8, 4, 3, 3)},
            "E-MODEL-045 The file holds no UNet and no text encoder; it is an autoencoder alone, with 4 latent "
            "channels.\nWhere: {path}\n"
            "Do: Use a whole model: UNet, autoencoder and text encoder in one file, or a diffusers folder.",
        ),
        (
            {"layer1.0.conv.weight": (8, 3, 7, 7)},
            "E-MODEL-048 The weights are of no known model: none of their 1 names is known.\nWhere: {path}\n"
            "Why: The first one is 'layer1.0.conv.weight'.\n"
            "Do: Use a Stable Diffusion 1.x, 2.x or XL model as one .safetensors file, a diffusers folder, or "
            "a hub id.",
        ),
    ],
)
def test_a_file_that_is_no_base(file, wanted, written):
    path = written({name: torch.zeros(shape) for name, shape in file.items()})
    with pytest.raises(SettingsError) as caught:
        bases.open_base(str(path))
    assert str(caught.value) == wanted.format(path=path)


def test_another_architecture_is_opened_and_then_refused(written):
    key = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    file = {key: torch.zeros(2, 1280), **{name: torch.zeros(shape) for name, shape in TEXT_REFINER.items()}}
    file |= {name: torch.zeros(1, *shape[1:]) for name, shape in VAE.items()}
    path = written(file)
    base = bases.open_base(str(path))
    assert (base.architecture, base.components) == ("sdxl-refiner", {})
    with pytest.raises(SettingsError) as caught:
        bases.expect(base, "sdxl")
    assert str(caught.value) == (
        "E-MODEL-044 This is the refiner of Stable Diffusion XL, but Stable Diffusion XL is needed.\n"
        f"Where: {path}\nWhy: The first key that differs: {key} (2 x 1280).\n"
        "Do: Name another one; what a model is, is said by: fusain models inspect SOURCE"
    )


@pytest.mark.parametrize(("architecture", "table"), [("sd1", originals.UNET), ("sdxl", originals.UNET_XL)])
def test_the_table_of_names_was_written_twice(architecture, table):
    """Once in the package as rules, once in the tests as a list."""
    model = tiny(architecture)
    found = naming.original_names("unet", model.unet.config, model.unet.state_dict())
    assert found == {name: originals.unet_name(name, table) for name in model.unet.state_dict()}
    back = naming.diffusers_names("unet", model.unet.config, found.values())
    assert {own: original for original, (own,) in back.items()} == found
