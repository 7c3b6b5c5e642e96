"""Every recipe for Stable Diffusion trains the miniature of its family, and draws from what it became."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusain.cli import main as command
from fusain.messages.quantities import size
from fusain.runs import actions, planning
from fusain.settings import recipes
from fusain.worlds.caricatures import portraits, write_folder
from tests.prove.style import BASES
from tests.record import OF_RECIPES
from tests.runs.training import losses

SMALL = {
    "family.size": "64",
    "train.steps": "2",
    "train.batch_size": "2",
    "train.accumulation": "1",
    "samples.every_steps": "0",
    "samples.steps": "2",
    "engine.device": "cpu",
    "engine.precision": "fp32",
    "engine.threads": "1",
}
FAMILY = {name: recipes.load(name).values["family"]["kind"] for name in recipes.names()}
FOR_LATENTS = [name for name, family in FAMILY.items() if family in BASES]


def test_they_are_all_here() -> None:
    assert FOR_LATENTS == [
        "caricature",
        "demo-character",
        "dreambooth",
        "dreambooth-lora",
        "lora",
        "sd15-dreambooth-12gb",
        "sdxl-full-10gb",
        "sdxl-full-24gb",
        "sdxl-lora",
        "sdxl-lora-12gb",
        "sdxl-lora-8gb",
        "text-to-image",
        "textual-inversion",
    ]


@pytest.mark.parametrize("recipe", FOR_LATENTS)
def test_the_recipe_trains_and_draws(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    write_folder(portraits("Ada", 4), tmp_path / "images")
    own = {"data.path": str(tmp_path / "images"), "runs_folder": str(tmp_path), **OF_RECIPES.get(recipe, {})}
    own["family.base"] = BASES[FAMILY[recipe]]
    run = actions.train(recipe, name="run", overrides=list((SMALL | own).items())).folder
    assert len(losses(run)) == 2
    prompt = "a <sks>" if recipe == "textual-inversion" else "a flat drawing of a person"
    (path,) = actions.generate(run, prompts=prompt, count=1, runs_folder=tmp_path).images
    with Image.open(path) as image:
        assert image.size == (64, 64)
        assert np.asarray(image).std() > 10


PERSONAL = {"dreambooth": 0, "dreambooth-lora": 0, "lora": 20, "textual-inversion": 20}
"""Recipes that `new` makes settings of from a folder alone, and how many captioned images lie there."""


@pytest.mark.parametrize("recipe", PERSONAL)
def test_new_asks_nothing_and_the_plan_tells_all(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Identifier and class word stand in the name of the folder, as kohya's scripts want it."""
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    images, settings = tmp_path / "images", tmp_path / "run.toml"
    if PERSONAL[recipe]:
        write_folder(portraits("Ada", PERSONAL[recipe]), images)
    else:
        write_folder(portraits("Ada", 4), images / "10_sks person")
        (images / "10_sks person" / "metadata.jsonl").unlink()
    if recipe == "textual-inversion":
        (images / "metadata.jsonl").unlink()
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SystemExit) as ended:
        command.main(("new", recipe, "--data", str(images), "-o", str(settings)))
    assert (ended.value.code, capsys.readouterr().out) == (0, f"{settings}\n")
    own = {"family.base": "fusain:mini-sd", "family.size": "64", "data.buckets": "false", "engine.device": "cpu"}
    own |= {"samples.count": "1"}
    planned = planning.plan(settings, overrides=list(own.items()))
    told, memory, stored = dict(planned.lines()), planned.memory_foreseen, 4 * planned.parameters
    assert told["images"].startswith(f"{planned.images}: {planned.images} to learn from, ")
    assert told["memory"].startswith(
        f"{size(memory.peak)} foreseen at the peak of a step: {size(memory.weights)} weights"
    )
    assert memory.peak > memory.weights + memory.gradients >= 2 * stored > 0
    assert told["disk"] == f"{size(planned.disk)} of {size(planned.disk_free)} free"
    assert planned.disk >= 5 * stored, "two checkpoints with the memory of the optimizer, and the weights"
    assert re.fullmatch(r"about .+ from the first step to the last \(\d+ ms a step\)", told["time"])
    assert planned.seconds_per_step is not None
    assert planned.seconds is not None
    assert planned.seconds > planned.seconds_per_step * planned.steps > 0, "with samples and checkpoints"
    if not PERSONAL[recipe]:
        assert (told["subject sks person"], told["repeats"]) == ("4 images", "4 images 10 x")
        assert told["length"] == "800 steps of 2 images = 20 epochs of 80 draws"
        assert told["to draw"].startswith("200 class images before the first step, about ")
    if recipe == "lora":
        assert told["length"] == "1,500 steps of 4 images = 300 epochs of 20 draws"
    if recipe == "textual-inversion":
        assert told["repeats"] == "20 images 100 x"
        assert told["length"] == "3,000 steps of 4 images = 6 epochs of 2,000 draws"
