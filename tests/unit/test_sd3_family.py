"""Stable Diffusion 3 as a family: whatever reaches the transformer is what diffusers' own pipeline hands to it."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from fusain.data.batch import Batch
from fusain.errors import FusainError
from fusain.generation.samplers import SamplerSettings, make_scheduler
from fusain.models import bases
from fusain.models.bases import fresh, fresh_sd3
from fusain.models.families.sd3 import StableDiffusion3, StableDiffusion3Settings
from fusain.models.family import DrawRequest, Facts
from fusain.models.flow import FlowSchedule

PROMPTS = ("a red hat", "", "ünïcode, " * 40)
WITHOUT_T5 = {"text_encoder_3": None, "tokenizer_3": None}


@pytest.fixture(scope="module")
def with_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    fresh_sd3.write(folder, with_t5=True)
    return folder


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def family(base: Path, **settings: Any) -> StableDiffusion3:
    return _family(base, tuple(settings.items()))


def fresh_family(base: Path, **settings: Any) -> StableDiffusion3:
    return StableDiffusion3(StableDiffusion3Settings(base=str(base), size=32, **settings), Facts())


@cache
def _family(base: Path, settings: tuple[tuple[str, Any], ...]) -> StableDiffusion3:
    return fresh_family(base, **dict(settings))


@cache
def pipeline(base: Path, t5: str) -> Any:
    """diffusers' own."""
    from diffusers import StableDiffusion3Pipeline

    found = StableDiffusion3Pipeline.from_pretrained(base, **(WITHOUT_T5 if t5 == "off" else {}))
    found.set_progress_bar_config(disable=True)
    return found


def batch(**more: Any) -> Batch:
    return Batch(np.arange(3), np.arange(3), torch.zeros(3, 3, 32, 48), torch.ones(3), **{"captions": PROMPTS} | more)


def handed_over(transformer: Any, call: Any) -> list[dict[str, torch.Tensor]]:
    """Every tensor that reached a transformer, of each time."""
    found: list[dict[str, torch.Tensor]] = []

    def keep(_: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        assert not positional
        found.append({name: value for name, value in named.items() if isinstance(value, torch.Tensor)})

    hook = transformer.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        call()
    finally:
        hook.remove()
    return found


HANDED = {"hidden_states", "timestep", "encoder_hidden_states", "pooled_projections"}


def request(scheduler: Any, **more: Any) -> DrawRequest:
    fields = {"steps": 3, "eta": 0.0, "guidance": 3.0, "prompts": ["a red hat"], "size": (32, 64)} | more
    return DrawRequest(scheduler, [torch.Generator().manual_seed(4)], **fields)


@pytest.mark.parametrize("t5", ["on", "off"])
@pytest.mark.parametrize(("sampler", "guidance"), [("euler", 3.0), ("heun", 1.0)])
def test_drawing_hands_the_transformer_what_the_pipeline_does(
    with_t5: Path, t5: Any, sampler: Any, guidance: float
) -> None:
    ours, theirs = family(with_t5, t5=t5), pipeline(with_t5, t5)
    scheduler, theirs.scheduler = (make_scheduler(SamplerSettings(sampler=sampler), ours.schedule) for _ in range(2))
    drawn: list[torch.Tensor] = []
    asked = request(scheduler, guidance=guidance, negatives=["glasses"])
    first = handed_over(ours.pipeline(scheduler).transformer, lambda: drawn.append(ours.draw(asked)))
    second = handed_over(
        theirs.transformer,
        lambda: drawn.append(
            theirs(
                "a red hat",
                negative_prompt="glasses",
                generator=torch.Generator().manual_seed(4),
                num_inference_steps=3,
                guidance_scale=guidance,
                height=32,
                width=64,
                output_type="pt",
            ).images
        ),
    )
    assert len(first) == len(second) == (3 if sampler == "euler" else 5)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys() == HANDED
        for name in one:
            torch.testing.assert_close(
                one[name], other[name], rtol=0, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
            )
        assert torch.equal(one["timestep"], other["timestep"])
    torch.testing.assert_close(*drawn, rtol=0, atol=1e-4)
    assert drawn[0].std() > 0.02, "an image of one grey says nothing"


@pytest.mark.parametrize("t5", ["on", "off"])
def test_training_hands_the_transformer_what_the_pipeline_does(with_t5: Path, t5: Any) -> None:
    ours, theirs = family(with_t5, t5=t5), pipeline(with_t5, t5)
    noisy, times = torch.randn(3, 16, 8, 12), torch.tensor([0.005, 0.5, 1.0])
    condition = ours.encode_condition(batch(), None)
    ((own,),) = [handed_over(ours.pipeline(None).transformer, lambda: ours.predict(noisy, times, condition))]
    states, _, pooled, _ = theirs.encode_prompt(list(PROMPTS), None, None, do_classifier_free_guidance=False)
    assert own.keys() == HANDED
    torch.testing.assert_close(own["encoder_hidden_states"], states)
    assert states.shape == (3, 77 + 256, 48)
    assert bool(states[:, 77:].any()) == (t5 == "on")
    torch.testing.assert_close(own["pooled_projections"], pooled)
    assert own["timestep"].tolist() == pytest.approx([5, 500, 1000])
    assert torch.equal(own["hidden_states"], noisy)


def test_a_schedule_and_a_flow_are_those_of_the_pipeline(with_t5: Path) -> None:
    """Noisy latents at a time of the scheduler, and the way that a perfect prediction leads back."""
    ours = family(with_t5, t5="off")
    assert ours.schedule == FlowSchedule(shift=3.0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    clean, fresh_noise = torch.randn(2, 2, 16, 4, 4)
    time = scheduler.timesteps[[300, 900]]
    noisy = ours.add_noise(clean, fresh_noise, time / 1000)
    torch.testing.assert_close(noisy, scheduler.scale_noise(clean, time, fresh_noise))
    back = noisy - (time / 1000).reshape(-1, 1, 1, 1) * ours.target(clean, fresh_noise, time / 1000)
    torch.testing.assert_close(back, clean)


def test_latents_are_moved_and_scaled_as_the_autoencoder_says(with_t5: Path) -> None:
    ours, theirs = family(with_t5, t5="off"), pipeline(with_t5, "off")
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    likeliest = theirs.vae.encode(pixels).latent_dist.mean
    wanted = (likeliest - theirs.vae.config.shift_factor) * theirs.vae.config.scaling_factor
    torch.testing.assert_close(ours.encode_latents(ours.encode_pixels(pixels)), wanted)
    assert theirs.vae.config.shift_factor == 0.0609


@pytest.mark.parametrize("t5", ["on", "off"])
def test_stored_captions_and_resting_encoders_change_nothing(with_t5: Path, t5: Any) -> None:
    ours = fresh_family(with_t5, t5=t5)
    rows = ours.encode_captions(PROMPTS)
    assert rows.shape == (3, 77 * 40 + (256 * 48 if t5 == "on" else 0) + 32), "no zeros are stored"
    dropped = torch.tensor([False, False, True])
    noisy, times = torch.randn(3, 16, 8, 12), torch.tensor([0.1, 0.5, 0.9])
    wanted = ours.predict(noisy, times, ours.encode_condition(batch(), dropped))
    for encoder in ours.text_encoders().values():
        encoder.requires_grad_(True)
    learning = ours.encode_condition(batch(), dropped)
    assert learning.read is None
    assert len(learning.tokens_BWL) == 2
    torch.testing.assert_close(ours.predict(noisy, times, learning), wanted)
    for encoder in ours.text_encoders().values():
        encoder.requires_grad_(False)
    drawn = ours.draw(request(make_scheduler(SamplerSettings(), ours.schedule)))
    ours.rest({"text_encoder", "autoencoder"})
    assert (ours.text_encoders(), ours.autoencoder, ours._t5) == ({}, None, None)
    resting = ours.encode_condition(batch(encoded_captions=rows), dropped)
    torch.testing.assert_close(ours.predict(noisy, times, resting), wanted)
    assert torch.equal(ours.draw(request(make_scheduler(SamplerSettings(), ours.schedule))), drawn)


def test_a_hidden_caption_is_an_empty_one(with_t5: Path) -> None:
    """As in the pipeline, where nothing is drawn away from."""
    ours = family(with_t5)
    _, empty, _, pooled = pipeline(with_t5, "on").encode_prompt("x", None, None)
    read = ours.encode_condition(batch(), torch.tensor([False, False, True])).read
    assert read is not None
    torch.testing.assert_close(ours._bare.joined(read)[2:], empty)
    torch.testing.assert_close(read.pooled_BP[2:], pooled)


@pytest.mark.parametrize("t5", ["on", "off"])
def test_what_was_learnt_is_saved_for_diffusers_and_loaded_again(with_t5: Path, tmp_path: Path, t5: Any) -> None:
    from diffusers import DiffusionPipeline, StableDiffusion3Pipeline

    ours = fresh_family(with_t5, t5=t5, shift=2.5)
    with torch.no_grad():
        for part in (ours.network, ours.autoencoder):
            assert part is not None
            for parameter in part.parameters():
                parameter.add_(0.01)
    ours.save(tmp_path / "saved")
    found = DiffusionPipeline.from_pretrained(tmp_path / "saved", **(WITHOUT_T5 if t5 == "off" else {}))
    assert type(found) is StableDiffusion3Pipeline
    assert (type(found.scheduler).__name__, found.scheduler.config.shift) == ("FlowMatchEulerDiscreteScheduler", 2.5)
    own = fresh_family(with_t5, t5=t5)
    own.load(tmp_path / "saved")
    for name in ("transformer", "text_encoder", "text_encoder_2"):
        wanted = getattr(ours.network, name).state_dict()
        for again in (getattr(found, name).state_dict(), getattr(own.network, name).state_dict()):
            assert again.keys() == wanted.keys()
            assert all(torch.equal(again[key], wanted[key]) for key in wanted)
    assert found.tokenizer_2.pad_token == "!"
    if ours._t5 is not None:
        assert all(
            torch.equal(one, found.text_encoder_3.state_dict()[key]) for key, one in ours._t5.state_dict().items()
        )
        assert found.text_encoder_3.shared.weight is found.text_encoder_3.encoder.embed_tokens.weight
        assert found.tokenizer_3("a red hat").input_ids == ours._t5_tokenizer("a red hat").input_ids
    assert fresh_family(tmp_path / "saved", t5=t5).schedule.shift == 2.5


def refused(base: Path, **settings: Any) -> str:
    with pytest.raises(FusainError) as caught:
        fresh_family(base, **settings)
    return str(caught.value)


def test_other_models_are_refused_by_name(tmp_path: Path) -> None:
    for sizes, words, kind in (
        (fresh.TINY, "Stable Diffusion 1.x", "StableDiffusionPipeline"),
        (fresh.TINY_XL, "Stable Diffusion XL", "StableDiffusionXLPipeline"),
    ):
        folder = tmp_path / words
        fresh.write(sizes, folder)
        assert refused(folder) == (
            f"E-MODEL-044 This is {words}, but Stable Diffusion 3 is needed.\n"
            f"Where: {folder}\nWhy: The first key that differs: _class_name {kind}.\n"
            "Do: Name another one; what a model is, is said by: fusain models inspect SOURCE"
        )


def test_a_single_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "sd3.safetensors"
    save_file({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": torch.zeros(6, 2)}, path)
    assert refused(path) == (
        "E-MODEL-062 A single file of Stable Diffusion 3 is not read.\nWhere: family.base\n"
        "Do: Use a diffusers folder or a hub id, such as stabilityai/stable-diffusion-3.5-medium."
    )


def test_a_flow_of_another_kind_is_refused(with_t5: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(with_t5, tmp_path / "base"))
    edit(folder / "scheduler" / "scheduler_config.json", use_dynamic_shifting=True)
    assert refused(folder) == (
        f"E-MODEL-063 '{folder}' matches a flow in another way than Fusain knows: its scheduler has "
        "use_dynamic_shifting.\nWhere: family.base\n"
        "Do: Use stabilityai/stable-diffusion-3.5-medium, stabilityai/stable-diffusion-3-medium-diffusers or a model "
        "that was made from one."
    )


def test_a_base_without_t5_must_be_meant(with_t5: Path, tmp_path: Path) -> None:
    fresh_sd3.write(tmp_path / "base")
    assert refused(tmp_path / "base") == (
        f"E-MODEL-065 '{tmp_path / 'base'}' brings no T5, which is to read captions too.\nWhere: family.t5\n"
        'Do: Set family.t5 = "off": zeros then stand for what it would read, as in diffusers; or use a base that '
        "brings it."
    )
    bare = fresh_family(tmp_path / "base", t5="off")
    assert sorted(bare.base.components) == ["text_encoder", "text_encoder_2", "transformer", "vae"]
    assert bare.base_id == family(with_t5, t5="off").base_id != family(with_t5).base_id


def test_images_larger_than_the_model_knows_are_refused(with_t5: Path) -> None:
    with pytest.raises(FusainError) as caught:
        StableDiffusion3(StableDiffusion3Settings(base=str(with_t5), size=144), Facts())
    assert str(caught.value) == (
        "E-MODEL-064 The model knows places in images of at most 128 pixels a side, and 144 were asked for.\n"
        "Where: family.size\nDo: Ask for 128 or less."
    )
    ours = family(with_t5)
    with pytest.raises(FusainError, match="at most 128 pixels a side, and 160 were asked for"):
        ours.draw(request(make_scheduler(SamplerSettings(), ours.schedule), size=(32, 160)))


def test_what_sets_the_times_reaches_the_schedule_and_what_does_not_is_said(with_t5: Path) -> None:
    asked = family(with_t5, times="uniform", shift=1.5).schedule
    assert asked == FlowSchedule(shift=1.5, density="uniform")
    asked = family(with_t5, times_mean=-0.5, times_spread=0.8).schedule
    assert asked == FlowSchedule(shift=3.0, mean=-0.5, spread=0.8)
    reason = 'times are learnt otherwise (family.times = "uniform")'
    assert StableDiffusion3Settings(times="uniform").silent_settings() == {
        "times_mean": reason,
        "times_spread": reason,
    }
    assert StableDiffusion3Settings().silent_settings() == {}


def test_a_folder_is_inspected_and_no_class_of_another_kind_is_built_of_it(with_t5: Path, tmp_path: Path) -> None:
    base = bases.open_base(str(with_t5))
    assert (base.architecture, base.predicts, base.prediction) == ("sd3", "flow", None)
    folder = Path(shutil.copytree(with_t5, tmp_path / "base"))
    index = json.loads((folder / "model_index.json").read_text())
    edit(folder / "model_index.json", text_encoder=["transformers", "CLIPTextModel"])
    assert "its text_encoder is a 'CLIPTextModel'" in refused(folder)
    edit(folder / "model_index.json", **index | {"text_encoder_3": ["transformers", "T5ForConditionalGeneration"]})
    assert "its text_encoder_3 is a 'T5ForConditionalGeneration'" in refused(folder)


def test_a_folder_becomes_no_single_file_and_takes_no_lora_in(with_t5: Path, tmp_path: Path) -> None:
    from fusain.models.adapters import Adapter, LowRank, commands
    from fusain.models.bases import conversion

    layer = "transformer.transformer_blocks.0.attn.to_q"
    lora = Adapter({layer: LowRank(torch.ones(1, 32), torch.ones(32, 1), 1.0)})
    base = bases.open_base(str(with_t5))
    assert commands.weights_of(base, lora)[layer].shape == (32, 32)
    for call in (
        lambda: conversion.convert(str(with_t5), tmp_path / "single.safetensors"),
        lambda: commands.write_merged(str(with_t5), [(lora, 1.0)], tmp_path / "merged"),
    ):
        with pytest.raises(FusainError) as caught:
            call()
        assert str(caught.value) == (
            "E-MODEL-044 This is Stable Diffusion 3, but Stable Diffusion 1.x or Stable Diffusion 2.x or Stable "
            f"Diffusion XL is needed.\nWhere: {with_t5}\n"
            "Why: The first key that differs: _class_name StableDiffusion3Pipeline.\n"
            "Do: Name another one; what a model is, is said by: fusain models inspect SOURCE"
        )
    assert list(tmp_path.iterdir()) == []
