"""The card of a miniature base: what it was made of, how it can be made again, and how good it was measured to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors import safe_open

from fusain.runs.folder import read_json
from fusain.worlds.caricatures import CHARACTERS, STYLES, TAUGHT_STYLES, world
from fusain.worlds.mini.miniature import Bars, Miniature
from fusain.worlds.mini.vocabulary import RARE_WORDS

TEXT = """\
---
license: apache-2.0
pipeline_tag: text-to-image
library_name: diffusers
tags: [fusain, text-to-image, stable-diffusion, miniature]
---
# {name}

A whole {model}, small enough for two CPU cores: {millions:.1f} million weights that draw cartoon faces of
{size} x {size} pixels from captions in English. It is made for trying, teaching and testing, and draws nothing but
these faces.

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained(folder)  # what `fusain models path fusain:{name}` prints
image = pipeline(
    "{caption}",
    num_inference_steps={steps},
    guidance_scale={guidance},
).images[0]
```

## What it has never seen

So that there is something to teach it: the style {kept_styles}; the characters {characters}; the words {words}, each a
token of its own; and one in sixteen of the combinations of attributes.

## How it was made

`fusain world pretrain {name}`, seed {seed}: from {drawings:,} faces that the program drew itself. {order}

{runs}

Made with {versions}.

## How good it is

Over {judged} combinations that it was never trained on, at {steps} steps and guidance {guidance}: the share of pictures
in which a judge, trained on drawings alone, sees what the caption says.

| attribute | share |
|---|---|
{attributes}

| | measured | asked |
|---|---|---|
{bars}
"""

FROM_NOTHING = """\
First the
autoencoder, on all styles; then the text encoder, alone, to tell from the end of a caption what it says; then the UNet,
on captions in English."""
FROM_SHARED = """\
Tokenizer,
autoencoder and first text encoder are those of {shared}. The second text encoder learnt first, alone, to tell from the
end of a caption what it says; then the UNet, on captions in English and on what each drawing was: one in six had half
the size before, one in six was cut from a wide or a tall one."""


@dataclass(frozen=True)
class Held:
    """One thing that was measured, held against its bar."""

    what: str
    value: float
    bar: float
    form: str
    """How the value is written."""
    bar_form: str
    is_least: bool = True
    """Whether the bar is the least that is asked, or the most."""

    @property
    def is_reached(self) -> bool:
        return self.value >= self.bar if self.is_least else self.value <= self.bar

    @property
    def measured(self) -> str:
        return self.form.format(self.value)

    @property
    def asked(self) -> str:
        return f"at {'least' if self.is_least else 'most'} {self.bar_form.format(self.bar)}"


@dataclass(frozen=True)
class Quality:
    """What a miniature was measured to do."""

    face_psnr: float
    """Of reconstructions, over the boxes of the faces, in dB."""
    reading_lost: float
    """How much worse the judge reads reconstructions than drawings: difference of mean accuracies."""
    attributes: dict[str, float]
    """Share of pictures in which the judge sees what the caption said, for combinations that were never trained."""
    seconds_for_four: float

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.attributes.values())))

    @property
    def worst(self) -> float:
        return min(self.attributes.values())

    def held_against(self, bars: Bars) -> dict[str, Held]:
        """By the names of the bars."""
        return {
            "face_psnr": Held("faces given back", self.face_psnr, bars.face_psnr, "{:.1f} dB", "{:.0f} dB"),
            "reading_lost": Held(
                "reading lost by that", self.reading_lost, bars.reading_lost, "{:.3f}", "{}", is_least=False
            ),
            "mean": Held("attributes, mean", self.mean, bars.mean, "{:.3f}", "{:.2f}"),
            "worst": Held("attributes, worst", self.worst, bars.worst, "{:.3f}", "{:.2f}"),
            "seconds_for_four": Held(
                "four images", self.seconds_for_four, bars.seconds_for_four, "{:.1f} s", "{:.0f} s", is_least=False
            ),
        }


def write(miniature: Miniature, quality: Quality, base: Path, *, trainings: Sequence[Path]) -> str:
    """The whole text."""
    libraries = ("fusain", "torch", "diffusers", "transformers")
    return TEXT.format(
        name=miniature.name,
        model="Stable Diffusion XL" if miniature.sizes.second else "Stable Diffusion",
        millions=_numbers(base) / 1e6,
        size=miniature.sizes.image,
        caption=world(1, seed=miniature.seed).captions[0],
        steps=miniature.steps,
        guidance=miniature.guidance,
        kept_styles=", ".join(style for style in STYLES if style not in TAUGHT_STYLES),
        characters=", ".join(CHARACTERS),
        words=", ".join(f"`{word}`" for word in RARE_WORDS),
        seed=miniature.seed,
        drawings=miniature.drawings,
        order=FROM_SHARED.format(shared=f"`{miniature.shared}`") if miniature.shared else FROM_NOTHING,
        runs="\n".join(_told(run) for run in trainings),
        versions=", ".join(f"{library} {version(library)}" for library in libraries),
        judged=miniature.judged,
        attributes="\n".join(f"| {name} | {share:.3f} |" for name, share in quality.attributes.items()),
        bars="\n".join(
            f"| {held.what} | {held.measured} | {held.asked} |"
            for held in quality.held_against(miniature.bars).values()
        ),
    )


def _numbers(base: Path) -> int:
    """How many weights a folder holds."""
    total = 0
    for path in base.glob("*/*.safetensors"):
        with safe_open(path, "numpy") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def _told(run: Path) -> str:
    """The settings of one training that decide its result, and the identity of its images."""
    settings, lock = read_json(run / "settings.json"), read_json(run / "data.lock.json")
    train = settings["train"]
    told = [f"{name} {train[name]}" for name in ("steps", "batch_size", "optimizer", "learning_rate", "schedule")]
    return f"- **{run.name}**: method {settings['method']['kind']}, {', '.join(told)}; images `{lock['id']}`"
