"""Stable Diffusion as a family: the same text states, noise, targets and latents as diffusers' own."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fusain.data.batch import Batch
from fusain.errors import SettingsError
from fusain.models import text
from fusain.models.bases import fresh
from fusain.models.families.sd import StableDiffusion, StableDiffusionSettings
from fusain.models.family import Facts
from tests.unit.originals import original_file


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    fresh.write(fresh.TINY, folder)
    return folder


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of 2.x: OpenCLIP's activation, a tokenizer that fills up with exclamation marks, and v as prediction."""
    folder = tmp_path_factory.mktemp("second") / "tiny"
    fresh.write(fresh.TINY, folder, fresh.filled_up_by_marks(fresh.letters()))
    for name, change in {
        "text_encoder/config.json": {"hidden_act": "gelu"},
        "scheduler/scheduler_config.json": {"prediction_type": "v_prediction"},
    }.items():
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | change))
    return folder


@pytest.fixture(params=["base", "second"])
def either(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def family(base: Path, **settings: Any) -> StableDiffusion:
    return _family(base, tuple(settings.items()))


@cache
def _family(base: Path, settings: tuple[tuple[str, Any], ...]) -> StableDiffusion:
    return StableDiffusion(StableDiffusionSettings(base=str(base), size=32, **dict(settings)), Facts())


def pipeline(base: Path) -> Any:
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(base)


def test_text_states_are_those_of_diffusers(either: Path) -> None:
    prompts = ["a red hat", "", "ünïcode, " * 40]
    theirs, _ = pipeline(either).encode_prompt(prompts, "cpu", 1, False)
    torch.testing.assert_close(family(either).encode_captions(prompts), theirs, rtol=0, atol=1e-6)


def test_of_version_2_activation_padding_and_prediction_are_its_own(base: Path, second: Path) -> None:
    ours = family(second)
    assert (ours.architecture, ours.schedule.prediction) == ("sd2", "v")
    tokens = ours.tokens(["a red hat"])[0, 0]
    assert tokens[-1] == ours.tokenizer.convert_tokens_to_ids("!") != family(base).tokens(["a red hat"])[0, 0, -1]
    assert not torch.allclose(ours.encode_captions(["a"])[0, :2], family(base).encode_captions(["a"])[0, :2])


def test_clip_skip_leaves_out_the_last_layers_and_keeps_the_norm(either: Path) -> None:
    encoder = pipeline(either).text_encoder
    skipping = family(either, clip_skip=1)
    ids = skipping.tokens(["a red hat"])
    hidden = encoder(ids[:, 0], output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(skipping.encode_captions(["a red hat"]), encoder.final_layer_norm(hidden))


def test_long_captions_fill_windows_that_each_begin_and_end(base: Path) -> None:
    wide = family(base, text_windows=2)
    caption = "abc " * 30
    (windows,) = wide.tokens([caption])
    tokenizer = wide.tokenizer
    assert windows.shape == (2, 77)
    assert windows[:, 0].tolist() == [tokenizer.bos_token_id] * 2
    assert windows[0, -1] == windows[1, 16] == tokenizer.eos_token_id
    inside = [*windows[0, 1:-1].tolist(), *windows[1, 1:16].tolist()]
    assert inside == tokenizer(caption, add_special_tokens=False)["input_ids"]
    assert wide.encode_captions([caption]).shape == (1, 154, 16)


def test_what_is_cut_off_is_told(base: Path) -> None:
    captions = {"short.png": "a hat", "long.png": "abc " * 30, "story.png": "abc " * 5_000}
    captions |= {f"{number}.png": "abc " * 26 for number in range(4)}
    (notice,) = family(base).foreseen(list(captions), list(captions.values()))
    assert str(notice) == (
        "W-MODEL-001 6 captions are longer than the 75 tokens that the text encoder reads: "
        "'long.png' (90 tokens) loses \"abc abc abc abc abc\"; "
        f"'story.png' (15000 tokens) loses \"{'abc ' * 14}abc…\"; "
        "'0.png' (78 tokens) loses \"abc\"; '1.png' (78 tokens) loses \"abc\"; '2.png' (78 tokens) loses \"abc\" "
        "and 1 more. "
        "A token is a short word or a part of one. family.text_windows = 2 reads twice as many."
    )
    assert text.cut_off(family(base).tokenizer, "a hat", windows=1) == ""


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_noise_and_targets_are_those_of_diffusers(base: Path, prediction: Any) -> None:
    from diffusers import DDPMScheduler

    ours = family(base, prediction=prediction)
    theirs = DDPMScheduler.from_pretrained(
        base, subfolder="scheduler", prediction_type={"epsilon": "epsilon", "v": "v_prediction"}[prediction]
    )
    clean, noise = torch.randn(2, 6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = ours.times(torch.tensor([0, 0.2001, 0.4001, 0.6001, 0.8001, 0.9999]))
    assert times.tolist() == [0, 200, 400, 600, 800, 999]
    torch.testing.assert_close(ours.add_noise(clean, noise, times), theirs.add_noise(clean, noise, times))
    wanted = noise if prediction == "epsilon" else theirs.get_velocity(clean, noise, times)
    torch.testing.assert_close(ours.target(clean, noise, times), wanted)


def test_latents_are_those_of_diffusers(base: Path) -> None:
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    vae = pipeline(base).vae
    fresh_noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = vae.encode(pixels).latent_dist
    stored = family(base).encode_pixels(pixels)
    ours = family(base).encode_latents(stored, lambda shape: fresh_noise)
    torch.testing.assert_close(ours, (found.mean + found.std * fresh_noise) * vae.config.scaling_factor)
    torch.testing.assert_close(family(base).encode_latents(stored), found.mode() * vae.config.scaling_factor)


def test_a_hidden_caption_is_the_empty_one_stored_or_not(base: Path) -> None:
    ours = StableDiffusion(StableDiffusionSettings(base=str(base), size=32), Facts())
    batch = Batch(np.arange(2), np.arange(2), torch.zeros(2, 3, 32, 32), torch.ones(2), captions=("a hat", "a cat"))
    dropped = torch.tensor([False, True])
    awake = ours.encode_condition(batch, dropped).states_BLD
    stored = Batch(**{**vars(batch), "encoded_captions": ours.encode_captions(batch.captions or ())})
    ours.rest({"text_encoder", "autoencoder"})
    resting = ours.encode_condition(stored, dropped).states_BLD
    torch.testing.assert_close(resting, awake)
    torch.testing.assert_close(awake[1:], family(base).encode_captions([""]))


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "pixel")
    with pytest.raises(SettingsError) as caught:
        StableDiffusion(StableDiffusionSettings(base=str(tmp_path / "pixel")), Facts())
    assert str(caught.value) == (
        "E-MODEL-036 The folder is a 'DDPMPipeline', which Fusain does not read.\n"
        f"Where: {tmp_path / 'pixel'}\n"
        "Do: Use a Stable Diffusion 1.x, 2.x, XL or 3 model; those are called StableDiffusionPipeline, "
        "StableDiffusionXLPipeline or StableDiffusion3Pipeline."
    )


@pytest.mark.parametrize("form", ["folder", "file"])
def test_a_model_of_another_architecture_is_refused_with_what_told_it(form: str, tmp_path: Path) -> None:
    path, told = tmp_path / "xl", "_class_name StableDiffusionXLPipeline"
    if form == "folder":
        fresh.write(fresh.TINY_XL, path)
    else:
        path = tmp_path / "xl.safetensors"
        save_file({name: value.contiguous() for name, value in original_file("sdxl").items()}, path)
        told = "conditioner.embedders.1.model.ln_final.bias (64)"
    with pytest.raises(SettingsError) as caught:
        StableDiffusion(StableDiffusionSettings(base=str(path)), Facts())
    assert str(caught.value) == (
        "E-MODEL-044 This is Stable Diffusion XL, but Stable Diffusion 1.x or Stable Diffusion 2.x is needed.\n"
        f"Where: {path}\nWhy: The first key that differs: {told}.\n"
        "Do: Name another one; what a model is, is said by: fusain models inspect SOURCE"
    )
    assert caught.value.exit_code == 3
