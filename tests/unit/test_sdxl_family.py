"""Stable Diffusion XL as a family: whatever reaches the UNet is what diffusers' own pipeline hands to it."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusain.data.batch import Batch
from fusain.errors import SettingsError
from fusain.generation.samplers import SamplerSettings, make_scheduler
from fusain.models.bases import fresh
from fusain.models.families.sdxl import StableDiffusionXL, StableDiffusionXLSettings
from fusain.models.family import DrawRequest, Facts, Framing

PROMPTS = ("a red hat", "", "ünïcode, " * 40)
FRAMINGS = torch.tensor([[300, 200, 3, 0], [64, 48, 0, 5], [32, 32, 0, 0]], dtype=torch.int32)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    fresh.write(fresh.TINY_XL, folder)
    return folder


@pytest.fixture(scope="module")
def spoken(base: Path) -> Path:
    """One whose hidden caption is an empty one that was read."""
    folder = base.with_name("spoken")
    shutil.copytree(base, folder)
    edit(folder / "model_index.json", force_zeros_for_empty_prompt=False)
    return folder


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def family(base: Path, **settings: Any) -> StableDiffusionXL:
    return _family(base, tuple(settings.items()))


@cache
def _family(base: Path, settings: tuple[tuple[str, Any], ...]) -> StableDiffusionXL:
    return StableDiffusionXL(StableDiffusionXLSettings(base=str(base), size=32, **dict(settings)), Facts())


@cache
def pipeline(base: Path) -> Any:
    """diffusers' own, with the arithmetic of attention that small networks have here."""
    from diffusers import StableDiffusionXLPipeline
    from diffusers.models.attention_processor import AttnProcessor

    found = StableDiffusionXLPipeline.from_pretrained(base)
    found.unet.set_attn_processor(AttnProcessor())
    found.set_progress_bar_config(disable=True)
    return found


def batch(**more: Any) -> Batch:
    fields = {"captions": PROMPTS, "framings_B4": FRAMINGS} | more
    return Batch(np.arange(3), np.arange(3), torch.zeros(3, 3, 32, 24), torch.ones(3), **fields)


def handed_over(unet: Any, call: Any) -> list[dict[str, torch.Tensor]]:
    """Every tensor that reached a UNet, of each time."""
    found: list[dict[str, torch.Tensor]] = []

    def keep(_: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        states = named["encoder_hidden_states"] if "encoder_hidden_states" in named else positional[2]
        found.append({"noisy": positional[0], "times": positional[1], "states": states, **named["added_cond_kwargs"]})

    hook = unet.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        call()
    finally:
        hook.remove()
    return found


@pytest.mark.parametrize(
    ("by_zeros", "negative", "framing"),
    [(True, "", None), (True, "glasses", (64, 96, 5, 7)), (False, "", (64, 96, 5, 7)), (False, "glasses", None)],
)
def test_drawing_hands_the_unet_what_the_pipeline_does(
    base: Path, spoken: Path, by_zeros: bool, negative: str, framing: Framing | None
) -> None:
    folder = base if by_zeros else spoken
    ours, theirs = family(folder), pipeline(folder)
    scheduler = make_scheduler(SamplerSettings(), ours.schedule)
    theirs.scheduler = make_scheduler(SamplerSettings(), ours.schedule)
    request = DrawRequest(
        scheduler,
        [torch.Generator().manual_seed(4)],
        steps=2,
        eta=0.0,
        guidance=3.0,
        prompts=["a red hat"],
        negatives=[negative],
        size=(32, 64),
        framing=framing,
    )
    drawn: list[torch.Tensor] = []
    first = handed_over(ours.pipeline(scheduler).unet, lambda: drawn.append(ours.draw(request)))
    second = handed_over(
        theirs.unet,
        lambda: drawn.append(
            theirs(
                "a red hat",
                negative_prompt=negative or None,
                generator=torch.Generator().manual_seed(4),
                num_inference_steps=2,
                guidance_scale=3.0,
                height=32,
                width=64,
                original_size=framing and framing[:2],
                crops_coords_top_left=framing[2:] if framing else (0, 0),
                output_type="pt",
            ).images
        ),
    )
    assert len(first) == len(second) == 2
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys() == {"noisy", "times", "states", "text_embeds", "time_ids"}
        for name in one:
            apart = 1e-4 if name == "noisy" else 1e-6  # of which each step adds the rounding of the one before
            torch.testing.assert_close(
                one[name], other[name], rtol=0, atol=apart, msg=lambda text, name=name: f"{name}: {text}"
            )
    torch.testing.assert_close(*drawn, rtol=0, atol=1e-5)
    assert first[0]["time_ids"].tolist() == [[*(framing or (32, 64, 0, 0)), 32, 64]] * 2
    assert bool(first[0]["text_embeds"][0].any()) == (bool(negative) or not by_zeros)


def test_training_hands_the_unet_what_the_pipeline_does(base: Path) -> None:
    """With the sizes and crops of three images, each told to diffusers' pipeline by its names."""
    ours, theirs = family(base), pipeline(base)
    noisy, times = torch.randn(3, 4, 8, 6), torch.tensor([5, 500, 999])
    condition = ours.encode_condition(batch(), None)
    unet = ours.pipeline(None).unet
    ((own,),) = [handed_over(unet, lambda: ours.predict(noisy, times, condition))]
    states, _, pooled, _ = theirs.encode_prompt(list(PROMPTS), device="cpu", do_classifier_free_guidance=False)
    torch.testing.assert_close(own["states"], states)
    torch.testing.assert_close(own["text_embeds"], pooled)
    wanted = [
        theirs._get_add_time_ids((height, width), (top, left), (32, 24), torch.float32, pooled.shape[-1])
        for height, width, top, left in FRAMINGS.tolist()
    ]
    assert torch.equal(own["time_ids"], torch.cat(wanted))
    assert torch.equal(own["noisy"], noisy)


def test_stored_latents_and_captions_change_nothing(base: Path) -> None:
    ours = family(base)
    rows = ours.encode_captions(PROMPTS)
    assert rows.shape == (3, 77 * 40 + 20)
    plain = ours.encode_condition(batch(), None)
    stored = ours.encode_condition(
        batch(encoded_captions=rows, encoded_images=torch.zeros(3, 8, 8, 6), captions=None), None
    )
    assert torch.equal(plain.framings_B6, stored.framings_B6)
    assert torch.equal(plain.states_BLD, stored.states_BLD)
    assert torch.equal(plain.pooled_BP, stored.pooled_BP)
    assert stored.states_BLD.is_contiguous()  # or each layer that reads them keeps a copy until the backward pass


def test_images_that_nothing_is_known_of_are_whole(base: Path) -> None:
    assert (
        family(base).encode_condition(batch(framings_B4=None), None).framings_B6.tolist()
        == [[32, 24, 0, 0, 32, 24]] * 3
    )


def test_clip_skip_is_that_of_diffusers(base: Path) -> None:
    states, *_ = pipeline(base).encode_prompt(
        list(PROMPTS), device="cpu", do_classifier_free_guidance=False, clip_skip=1
    )
    torch.testing.assert_close(family(base, clip_skip=1).encode_condition(batch(), None).states_BLD, states)


def test_long_captions_fill_windows_and_the_first_is_pooled(base: Path) -> None:
    wide, narrow = family(base, text_windows=2), family(base)
    one, other = wide.encode_condition(batch(), None), narrow.encode_condition(batch(), None)
    assert one.states_BLD.shape == (3, 154, 40)
    torch.testing.assert_close(one.states_BLD[:, :77], other.states_BLD)
    torch.testing.assert_close(one.pooled_BP, other.pooled_BP)


@pytest.mark.parametrize("by_zeros", [True, False])
def test_a_hidden_caption_is_what_the_base_says(base: Path, spoken: Path, by_zeros: bool) -> None:
    """Awake, with stored states while the encoders rest, and with encoders that learn."""
    folder = base if by_zeros else spoken
    ours = StableDiffusionXL(StableDiffusionXLSettings(base=str(folder), size=32), Facts())
    _, empty, _, pooled = pipeline(folder).encode_prompt("x", device="cpu", negative_prompt=None)
    dropped = torch.tensor([False, True, True])
    awake = ours.encode_condition(batch(), dropped)
    torch.testing.assert_close(awake.states_BLD[1:], empty.expand(2, -1, -1))
    torch.testing.assert_close(awake.pooled_BP[1:], pooled.expand(2, -1))
    assert bool(awake.pooled_BP[0].any())

    noisy, times = torch.randn(3, 4, 8, 6), torch.tensor([5, 500, 999])
    wanted = ours.predict(noisy, times, awake)
    for encoder in ours.text_encoders().values():
        encoder.requires_grad_(True)
    learning = ours.encode_condition(batch(), dropped)
    assert len(learning.tokens_BWL) == 2
    torch.testing.assert_close(ours.predict(noisy, times, learning), wanted)

    stored = batch(encoded_captions=ours.encode_captions(PROMPTS))
    ours.rest({"text_encoder", "autoencoder"})
    resting = ours.encode_condition(stored, dropped)
    torch.testing.assert_close(resting.states_BLD, awake.states_BLD)
    torch.testing.assert_close(resting.pooled_BP, awake.pooled_BP)


@pytest.mark.parametrize("overflows", [True, False])
def test_an_autoencoder_that_overflows_works_in_full_precision(base: Path, tmp_path: Path, overflows: bool) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    edit(folder / "vae" / "config.json", force_upcast=overflows)
    ours = StableDiffusionXL(StableDiffusionXLSettings(base=str(folder), size=32), Facts())
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    wanted = ours.encode_pixels(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        found = ours.encode_pixels(pixels)
    assert torch.equal(found, wanted) == overflows


def test_images_are_drawn_in_half_precision(base: Path) -> None:
    """As class images are on a GPU: the autoencoder still gives them back in full."""
    ours = family(base)
    request = DrawRequest(
        make_scheduler(SamplerSettings(), ours.schedule),
        [torch.Generator().manual_seed(4)],
        steps=2,
        eta=0.0,
        guidance=3.0,
        prompts=["a red hat"],
    )
    kinds: list[torch.dtype] = []
    decoder = ours.autoencoder.decoder
    hook = decoder.conv_out.register_forward_hook(lambda module, found, given_back: kinds.append(given_back.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        half = ours.draw(request)
    hook.remove()
    assert kinds == [torch.float32]
    assert half.shape == (1, 3, 32, 32)
    assert torch.isfinite(half).all()


def test_what_was_learnt_is_saved_for_diffusers_and_loaded_again(base: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline
    from safetensors.torch import load_file

    ours = StableDiffusionXL(StableDiffusionXLSettings(base=str(base), size=32), Facts())
    with torch.no_grad():
        for part in (ours.network, ours.autoencoder):
            for parameter in part.parameters():
                parameter.add_(0.01)
    ours.save(tmp_path / "saved")
    found = StableDiffusionXLPipeline.from_pretrained(tmp_path / "saved")
    own = StableDiffusionXL(StableDiffusionXLSettings(base=str(base), size=32), Facts())
    own.load(tmp_path / "saved")
    for name in ("unet", "text_encoder", "text_encoder_2"):
        wanted = getattr(ours.network, name).state_dict()
        for again in (getattr(found, name).state_dict(), getattr(own.network, name).state_dict()):
            assert again.keys() == wanted.keys()
            assert all(torch.equal(again[key], wanted[key]) for key in wanted)
    written = load_file(tmp_path / "saved" / "text_encoder_2" / "model.safetensors")
    assert {key.partition(".")[0] for key in written} == {"text_model", "text_projection"}
    assert found.config.force_zeros_for_empty_prompt
    assert found.tokenizer_2.pad_token == "!"
    StableDiffusionXL(StableDiffusionXLSettings(base=str(tmp_path / "saved"), size=32), Facts())


def refused(folder: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        StableDiffusionXL(StableDiffusionXLSettings(base=str(folder)), Facts())
    return str(caught.value)


def test_the_refiner_and_other_models_are_refused_by_name(base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    edit(folder / "model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline")
    assert refused(folder) == (
        "E-MODEL-044 This is the refiner of Stable Diffusion XL, but Stable Diffusion XL is needed.\n"
        f"Where: {folder}\nWhy: The first key that differs: _class_name StableDiffusionXLImg2ImgPipeline.\n"
        "Do: Name another one; what a model is, is said by: fusain models inspect SOURCE"
    )
    fresh.write(fresh.TINY, tmp_path / "first")
    assert refused(tmp_path / "first").startswith(
        "E-MODEL-044 This is Stable Diffusion 1.x, but Stable Diffusion XL is needed.\n"
    )


def test_a_model_that_scales_its_latents_otherwise_is_refused(base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    edit(folder / "vae" / "config.json", latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    assert refused(folder) == (
        f"E-MODEL-061 '{folder}' is a model of the size of Stable Diffusion XL that learns in another way: its latents "
        "or its predictions are scaled as Fusain does not know.\nWhere: family.base\n"
        "Do: Use stabilityai/stable-diffusion-xl-base-1.0 or a model that was made from it. If only its prediction is "
        "not said, set family.prediction."
    )


def test_another_prediction_and_a_zero_terminal_snr_are_of_the_settings_or_of_the_base(
    base: Path, tmp_path: Path
) -> None:
    asked = family(base, prediction="sample", zero_terminal_snr="on").schedule
    assert (asked.prediction, asked.zero_terminal_snr) == ("sample", True)
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    believed = family(folder)
    assert (believed.schedule.prediction, believed.schedule.zero_terminal_snr) == ("v", True)
    assert not family(folder, zero_terminal_snr="off").schedule.zero_terminal_snr
    believed.save(tmp_path / "saved")
    stored = json.loads((tmp_path / "saved" / "scheduler" / "scheduler_config.json").read_text())
    assert (stored["prediction_type"], stored["rescale_betas_zero_snr"]) == ("v_prediction", True)
