"""The code that a model card shows: how to draw with the published weights in plain diffusers, without Fusain."""

from __future__ import annotations

import json
from textwrap import indent
from typing import Final

from fusain.runs.settings import FAMILIES, METHODS, RunSettings

SCHEDULERS: Final = {"ddim": ("DDIM", ', timestep_spacing="trailing"'), "ddpm": ("DDPM", "")}
"""What diffusers calls each sampler, and how it must be set to draw what Fusain draws."""
OF_TEXT: Final = """\
import torch
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{repo}")
{before}image = pipeline(
{options}
    generator=torch.Generator().manual_seed(0),
).images[0]
image.save("image.png")
"""
ON_BASE: Final = """\
import torch
from diffusers import DDIMScheduler, DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{base}")
pipeline.scheduler = DDIMScheduler.from_config(
    pipeline.scheduler.config, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
)
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
from diffusers import {name}Pipeline, {name}Scheduler

pipeline = {name}Pipeline.from_pretrained("{repo}")
pipeline.scheduler = {name}Scheduler.from_config(pipeline.scheduler.config{extra})
drawn = pipeline(num_inference_steps={steps}, generator=torch.Generator().manual_seed(0){options})
{saving}
"""
UNFOLDING: Final = """\
pixels = torch.from_numpy(drawn.images).permute(0, 3, 1, 2)
pixels = torch.nn.functional.pixel_shuffle(pixels, {patch})[0].permute(1, 2, 0)
Image.fromarray((pixels * 255).round().byte().numpy()).save("image.png")"""
OF_CLASS: Final = """\
import torch
from diffusers import {name}Scheduler, UNet2DConditionModel
from huggingface_hub import snapshot_download
from PIL import Image
from safetensors.torch import load_file

folder = snapshot_download("{repo}")
unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
scheduler = {name}Scheduler.from_pretrained(folder, subfolder="scheduler"{extra})
layers = load_file(f"{{folder}}/class_embedding.safetensors")


def context(label):
    hidden = torch.nn.functional.gelu(label @ layers["layers.0.weight"].T + layers["layers.0.bias"])
    return (hidden @ layers["layers.3.weight"].T + layers["layers.3.bias"]).unsqueeze(1)


classes = {classes}
label = torch.tensor([[float(name == classes[0]) for name in classes]])  # shares of several classes work too
guidance = {guidance:g}
generator = torch.Generator().manual_seed(0)
image = torch.randn(1, {channels}, {side}, {side}, generator=generator)
scheduler.set_timesteps({steps})
with torch.no_grad():
    for time in scheduler.timesteps:
        without = unet(image, time, context(torch.zeros_like(label))).sample
        predicted = without + guidance * (unet(image, time, context(label)).sample - without)
        image = scheduler.step(predicted, time, image, generator=generator{options}).prev_sample
{unfolding}pixels = ((image[0] / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
Image.fromarray(pixels.numpy()).save("image.png")
"""


def code_for(settings: RunSettings, repo: str, classes: list[str], base: str = "BASE") -> str:
    """A whole program that draws one image and saves it; `base` is where others find what a LoRA goes on."""
    if METHODS[settings.method.kind].loaded_by:
        return _on_base(settings, repo, base).strip()
    if settings.family.condition == "text":
        return _of_text(settings, OF_TEXT, repo=repo).strip()
    steered = {"class": _of_class, "none": _of_nothing}[settings.family.condition]
    return steered(settings, repo, classes).strip()


def _on_base(settings: RunSettings, repo: str, base: str) -> str:
    method, family = METHODS[settings.method.kind], FAMILIES[settings.family.kind]
    encoders = [part for part in family.lora_targets if part.startswith("text_encoder")]
    if not method.loaded_by_each or len(encoders) < 2:
        return _of_text(settings, ON_BASE, base=base, loading=f"pipeline.{method.loaded_by.format(repo=repo)}")
    loading = method.loaded_by_each.format(repo=repo, token=settings.method.token)
    program = ON_BASE.replace("\n\n", LOADING_FILES, 1)
    return _of_text(settings, program, base=base, loading=loading)


def first_prompt(settings: RunSettings) -> str:
    """What the card draws: a prompt that the settings name, never a caption of the data."""
    (of_method,) = METHODS[settings.method.kind](settings.method).wording([""])
    return (*settings.samples.prompts, settings.data.captions.trigger_word or of_method or "an image")[0]


def _of_text(settings: RunSettings, program: str, **places: str) -> str:
    drawing, family, skips = settings.samples, settings.family, settings.family.clip_skip
    by_itself = FAMILIES[family.kind].skips_by_itself
    numbers = {
        "num_inference_steps": drawing.steps,
        "guidance_scale": drawing.guidance,
        "eta": drawing.eta or None,
        "height": family.size,
        "width": family.size,
        "clip_skip": skips if skips and by_itself else None,
    }
    prompt, negative = _literal(first_prompt(settings)), _literal(drawing.negative)
    lines = [f"{name}={value}," for name, value in numbers.items() if value is not None]
    if skips and not by_itself:
        lines = [f"prompt_embeds=states({prompt}),", f"negative_prompt_embeds=states({negative}),", *lines]
    else:
        lines = [f"{prompt},", *([f"negative_prompt={negative},"] if drawing.negative else []), *lines]
    before = SKIPPING.format(layer=skips + 1, text=_read(settings)) if skips and not by_itself else ""
    return program.format(before=before, options=indent("\n".join(lines), "    "), **places)


def _read(settings: RunSettings) -> str:
    """A prompt as the pipelines read it, with all tokens of a word that has several."""
    is_long = getattr(settings.method, "vectors", 1) > 1
    return "pipeline.maybe_convert_prompt(text, pipeline.tokenizer)" if is_long else "text"


def _of_nothing(settings: RunSettings, repo: str, classes: list[str]) -> str:
    drawing, patch = settings.samples, settings.family.patch
    name, extra = SCHEDULERS[drawing.sampler]
    options = _eta(settings) + (', output_type="numpy"' if patch > 1 else "")
    saving = UNFOLDING.format(patch=patch) if patch > 1 else 'drawn.images[0].save("image.png")'
    text = OF_NOTHING.format(repo=repo, name=name, extra=extra, steps=drawing.steps, options=options, saving=saving)
    return text.replace("\n\npipeline", "\nfrom PIL import Image\n\npipeline", 1) if patch > 1 else text


def _of_class(settings: RunSettings, repo: str, classes: list[str]) -> str:
    drawing, family = settings.samples, settings.family
    name, extra = SCHEDULERS[drawing.sampler]
    unfolding = f"image = torch.nn.functional.pixel_shuffle(image, {family.patch})\n" if family.patch > 1 else ""
    return OF_CLASS.format(
        repo=repo,
        name=name,
        extra=extra,
        classes=_literal(classes),
        guidance=drawing.guidance,
        channels=3 * family.patch**2,
        side=family.size // family.patch,
        steps=drawing.steps,
        options=_eta(settings),
        unfolding=unfolding,
    )


def _literal(value: str | list[str]) -> str:
    """As a program would write it: JSON's texts are Python's."""
    return json.dumps(value, ensure_ascii=False)


def _eta(settings: RunSettings) -> str:
    drawing = settings.samples
    return f", eta={drawing.eta!r}" if drawing.sampler == "ddim" and drawing.eta else ""
