"""The code that a model card shows: how to draw with the published weights in plain diffusers, without Fusain."""

from __future__ import annotations

import json
from textwrap import indent
from typing import Any, Final

from fusain.generation.samplers import SAMPLERS, in_diffusers
from fusain.models.noise import PREDICTIONS
from fusain.runs.settings import FAMILIES, METHODS, RunSettings

LATENT_TIMES: Final = 1000
"""Of every Stable Diffusion that is published."""
OF_TEXT: Final = """\
import torch
from diffusers import {scheduler}, DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{repo}"{without})
pipeline.scheduler = {scheduler}.from_config(pipeline.scheduler.config{extra})
{before}image = pipeline(
{options}
    generator=torch.Generator().manual_seed(0),
).images[0]
image.save("image.png")
"""
ON_BASE: Final = """\
import torch
from diffusers import {scheduler}, DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{base}"{without})
pipeline.scheduler = {scheduler}.from_config(pipeline.scheduler.config{extra})
{loading}
{before}image = pipeline(
{options}
    generator=torch.Generator().manual_seed(0),
).images[0]
image.save("image.png")
"""
"""Of what goes on top of a base, whose own way to draw is another one."""
LOADING_FILES: Final = """
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

"""
SKIPPING: Final = """\


@torch.no_grad()
def states(text):
    tokens = pipeline.tokenizer({text}, padding="max_length", truncation=True, return_tensors="pt").input_ids
    layer = pipeline.text_encoder(tokens, output_hidden_states=True).hidden_states[-{layer}]
    return getattr(pipeline.text_encoder, "text_model", pipeline.text_encoder).final_layer_norm(layer)


"""
"""An earlier layer of the text encoder: the pipelines' own `clip_skip` fails with transformers since 5.6."""
OF_NOTHING: Final = """\
import torch
from diffusers import {scheduler}, UNet2DModel
from PIL import Image

unet = UNet2DModel.from_pretrained("{repo}", subfolder="unet")
scheduler = {scheduler}.from_pretrained("{repo}", subfolder="scheduler"{extra})
generator = torch.Generator().manual_seed(0)
scheduler.set_timesteps({steps})
image = torch.randn(1, {channels}, {side}, {side}, generator=generator) * scheduler.init_noise_sigma
with torch.no_grad():
    for time in scheduler.timesteps:
        predicted = unet(scheduler.scale_model_input(image, time), time).sample
        image = scheduler.step(predicted, time, image{options}).prev_sample
{unfolding}pixels = ((image[0] / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
Image.fromarray(pixels.numpy()).save("image.png")
"""
OF_CLASS: Final = """\
import torch
from diffusers import {scheduler}, UNet2DConditionModel
from huggingface_hub import snapshot_download
from PIL import Image
from safetensors.torch import load_file

folder = snapshot_download("{repo}")
unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
scheduler = {scheduler}.from_pretrained(folder, subfolder="scheduler"{extra})
layers = load_file(f"{{folder}}/class_embedding.safetensors")


def context(label):
    hidden = torch.nn.functional.gelu(label @ layers["layers.0.weight"].T + layers["layers.0.bias"])
    return (hidden @ layers["layers.3.weight"].T + layers["layers.3.bias"]).unsqueeze(1)


classes = {classes}
label = torch.tensor([[float(name == classes[0]) for name in classes]])  # shares of several classes work too
guidance = {guidance:g}
generator = torch.Generator().manual_seed(0)
scheduler.set_timesteps({steps})
image = torch.randn(1, {channels}, {side}, {side}, generator=generator) * scheduler.init_noise_sigma
with torch.no_grad():
    for time in scheduler.timesteps:
        noisy = scheduler.scale_model_input(image, time)
        without = unet(noisy, time, context(torch.zeros_like(label))).sample
        predicted = without + guidance * (unet(noisy, time, context(label)).sample - without)
        image = scheduler.step(predicted, time, image{options}).prev_sample
{unfolding}pixels = ((image[0] / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
Image.fromarray(pixels.numpy()).save("image.png")
"""


def code_for(settings: RunSettings, repo: str, classes: list[str], base: str = "BASE") -> str:
    """A whole program that draws one image and saves it; `base` is where others find what a LoRA goes on."""
    if METHODS[settings.method.kind].loaded_by:
        return _on_base(settings, repo, base).strip()
    if settings.family.condition == "text":
        return _of_text(settings, OF_TEXT, repo=repo).strip()
    return _of_pixels(settings, repo, classes).strip()


def _on_base(settings: RunSettings, repo: str, base: str) -> str:
    method, family = METHODS[settings.method.kind], FAMILIES[settings.family.kind]
    encoders = [part for part in family.lora_targets if part.startswith("text_encoder")]
    if not method.loaded_by_each or len(encoders) < 2:
        return _of_text(settings, ON_BASE, base=base, loading=f"pipeline.{method.loaded_by.format(repo=repo)}")
    loaded_by = method.loaded_by_each if family.loads_words else method.loaded_by_hand
    loading = loaded_by.format(repo=repo, token=settings.method.token)
    program = ON_BASE.replace("\n\n", LOADING_FILES, 1)
    return _of_text(settings, program, base=base, loading=loading)


def first_prompt(settings: RunSettings) -> str:
    """What the card draws: a prompt that the settings name, never a caption of the data."""
    (of_method,) = METHODS[settings.method.kind](settings.method).wording([""])
    return (*settings.samples.prompts, settings.data.captions.trigger_word or of_method or "an image")[0]


def _of_text(settings: RunSettings, program: str, **places: str) -> str:
    drawing, family, skips = settings.samples, settings.family, getattr(settings.family, "clip_skip", 0)
    by_itself = FAMILIES[family.kind].skips_by_itself
    numbers = {
        "num_inference_steps": drawing.steps,
        "guidance_scale": drawing.guidance,
        "eta": drawing.eta or None if "eta" in SAMPLERS[drawing.sampler].takes else None,
        "height": family.size,
        "width": family.size,
        "clip_skip": skips if skips and by_itself else None,
    }
    prompt, negative = _literal(first_prompt(settings)), _literal(drawing.negative)
    lines = [f"{name}={value}," for name, value in numbers.items() if value is not None]
    if skips and not by_itself:
        lines = [f"prompt_embeds=states({prompt}),", f"negative_prompt_embeds=states({negative}),", *lines]
    else:
        lines = [*_words(settings, prompt), *([f"negative_prompt={negative},"] if drawing.negative else []), *lines]
    left_out = FAMILIES[family.kind].left_out(family)
    places |= _scheduler(settings) | {"without": "".join(f", {part}=None" for part in left_out)}
    before = SKIPPING.format(layer=skips + 1, text=_read(settings)) if skips and not by_itself else ""
    return program.format(before=before, options=indent("\n".join(lines), "    "), **places)


def _words(settings: RunSettings, prompt: str) -> list[str]:
    """A prompt; where several vectors were put in by hand, with all of them for the CLIPs, which alone know them."""
    if getattr(settings.method, "vectors", 1) == 1 or FAMILIES[settings.family.kind].loads_words:
        return [f"{prompt},"]
    return [f"{prompt}.replace(parts[0], ' '.join(parts)),", f"prompt_3={prompt},"]


def _read(settings: RunSettings) -> str:
    """A prompt as the pipelines read it, with all tokens of a word that has several."""
    is_long = getattr(settings.method, "vectors", 1) > 1
    return "pipeline.maybe_convert_prompt(text, pipeline.tokenizer)" if is_long else "text"


def _of_pixels(settings: RunSettings, repo: str, classes: list[str]) -> str:
    drawing, family = settings.samples, settings.family
    unfolding = f"image = torch.nn.functional.pixel_shuffle(image, {family.patch})\n" if family.patch > 1 else ""
    takes = SAMPLERS[drawing.sampler].takes
    options = ", generator=generator" if "generator" in takes else ""
    return {"class": OF_CLASS, "none": OF_NOTHING}[family.condition].format(
        repo=repo,
        classes=_literal(classes),
        guidance=drawing.guidance,
        channels=3 * family.patch**2,
        side=family.size // family.patch,
        steps=drawing.steps,
        options=options + (f", eta={drawing.eta!r}" if "eta" in takes and drawing.eta else ""),
        unfolding=unfolding,
        **_scheduler(settings),
    )


def _scheduler(settings: RunSettings) -> dict[str, str]:
    """What diffusers calls the sampler, and how it must be set to draw what Fusain draws."""
    family, is_text = settings.family, settings.family.condition == "text"
    if FAMILIES[family.kind].matches_flow:
        extra = f", shift={family.shift}" if family.shift else ""
        return {"scheduler": SAMPLERS[settings.samples.sampler].of_flow, "extra": extra}
    zero = family.zero_terminal_snr in (True, "on")
    times = LATENT_TIMES if is_text else family.train_timesteps
    given = in_diffusers(settings.samples, of_latents=is_text, times=times, zero_terminal_snr=zero)
    if is_text:  # what goes on a base may have been trained otherwise than the base
        given |= {"rescale_betas_zero_snr": zero} if family.zero_terminal_snr != "auto" else {}
        given |= {"prediction_type": PREDICTIONS[family.prediction]} if family.prediction != "auto" else {}
    extra = "".join(f", {name}={_literal(value)}" for name, value in given.items())
    return {"scheduler": SAMPLERS[settings.samples.sampler].scheduler, "extra": extra}


def _literal(value: Any) -> str:
    """As a program would write it: JSON's texts, lists and numbers are Python's."""
    return str(value) if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)
