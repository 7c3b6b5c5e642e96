"""Records the first losses of every recipe, and shows what changed; `tests/recorded_losses.json` is compared in tests.

The numbers belong to one version of torch and one kind of processor; both are noted in the file.
"""

from __future__ import annotations

import json
import platform
import tempfile
from pathlib import Path

import torch

from fusain.models.bases import fresh, fresh_sd3
from fusain.runs import actions
from fusain.settings import recipes
from fusain.worlds import caricatures, sprites
from tests.runs.training import losses

FILE = Path(__file__).parent / "recorded_losses.json"
STEPS = 20
SMALL: dict[str, str] = {
    "train.steps": str(STEPS),
    "train.batch_size": "4",
    "engine.precision": "fp32",
    "engine.device": "cpu",
    "engine.threads": "1",
    "samples.every_steps": "0",
    "checkpoint.every_steps": str(STEPS),
    "train.held_out_every_steps": str(STEPS),
}
"""Every recipe with its own mathematics, only the batch is smaller."""
FEW_CLASS_IMAGES = {"data.class_images.count": "4", "data.class_images.steps": "2", "data.subject.class_word": "face"}
OF_RECIPES = {
    "caricature": {"track.wandb": "off"},
    "dreambooth": FEW_CLASS_IMAGES,
    "dreambooth-lora": FEW_CLASS_IMAGES,
    "demo-character": {**FEW_CLASS_IMAGES, "data.class_images.prompt": "a {class_word}", "data.masks.use": "none"},
    "sd15-dreambooth-12gb": FEW_CLASS_IMAGES,
    "sdxl-full-10gb": {"engine.weights": "fp32"},  # in bf16 each kind of processor has numbers of its own
    "textual-inversion": {"data.captions.trigger_word": "<sks>"},
}
"""What some of them want to be told here."""


ON_OTHERS = {
    "text-to-image on sd3": ("text-to-image", "sd3"),
    "lora on sd3": ("lora", "sd3"),
    **{f"{recipe} on sdxl": (recipe, "sdxl") for recipe in ("text-to-image", "dreambooth", "textual-inversion")},
}
"""Recipes on another family than their own."""


def names() -> list[str]:
    """All that is recorded."""
    return sorted([*recipes.names(), *ON_OTHERS])


def record(name: str, folder: Path) -> list[float]:
    """The losses of the first steps of one recipe on a small drawn world."""
    recipe, overrides = small(name, folder)
    run = actions.train(recipe, name=name.replace(" ", "-"), overrides=list(overrides.items())).folder
    return [loss for _, loss in sorted(losses(run).items())]


def small(name: str, folder: Path) -> tuple[str, dict[str, str]]:
    """A recipe, and what makes it small: a drawn world and a tiny base, both written into the folder once."""
    recipe, kind = ON_OTHERS.get(name) or (name, recipes.load(name).values["family"]["kind"])
    own = {"pixel": _of_pixels, "sd": _of_latents, "sdxl": _of_xl, "sd3": _of_sd3}[kind](folder)
    return recipe, {**SMALL, **own, **OF_RECIPES.get(recipe, {}), "runs_folder": str(folder / "runs")}


def _of_pixels(folder: Path) -> dict[str, str]:
    """Its own network on sprites."""
    data = folder / "sprites"
    if not data.exists():
        sprites.write_folder(sprites.world(120, seed=11), data)
    return {"data.path": str(data)}


def _of_latents(folder: Path) -> dict[str, str]:
    """The smallest real base on caricatures."""
    data, base = folder / "caricatures", folder / "base"
    if not data.exists():
        caricatures.write_folder(caricatures.world(60, seed=11), data)
        fresh.write(fresh.TINY, base)
    return {"data.path": str(data), "family.base": str(base), "family.size": "32"}


def _of_xl(folder: Path) -> dict[str, str]:
    """The smallest real base of XL on caricatures."""
    own, base = _of_latents(folder), folder / "base-xl"
    if not base.exists():
        fresh.write(fresh.TINY_XL, base)
    return own | {"family.kind": "sdxl", "family.base": str(base)}


def _of_sd3(folder: Path) -> dict[str, str]:
    """The smallest real base of 3 on caricatures."""
    own, base = _of_latents(folder), folder / "base-3"
    if not base.exists():
        fresh_sd3.write(base, with_t5=True)
    return own | {"family.kind": "sd3", "family.base": str(base)}


def main() -> None:
    before = json.loads(FILE.read_text()) if FILE.exists() else {"losses": {}}
    with tempfile.TemporaryDirectory() as folder:
        after = {recipe: record(recipe, Path(folder)) for recipe in names()}
    for recipe, now in after.items():
        was = before["losses"].get(recipe)
        changed = was is None or any(abs(a - b) > 1e-4 * abs(b) for a, b in zip(now, was, strict=True))
        worst = max(abs(a - b) / abs(b) for a, b in zip(now, was, strict=True)) if was else float("nan")
        word = "changed" if changed else "same"
        print(f"{recipe:<20} {word:<8} first {now[0]:.6f} last {now[-1]:.6f} worst {worst:.1e}")
    made_with = {"torch": torch.__version__, "processor": platform.machine()}
    FILE.write_text(json.dumps({"made_with": made_with, "losses": after}, indent=1) + "\n")


if __name__ == "__main__":
    main()
