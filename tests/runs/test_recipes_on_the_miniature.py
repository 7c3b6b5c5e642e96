"""Every recipe for Stable Diffusion trains the miniature that the package carries, and draws from what it became."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusain.runs import actions
from fusain.settings import recipes
from fusain.worlds.caricatures import portraits, write_folder
from tests.record import OF_RECIPES
from tests.runs.training import losses

SMALL = {
    "family.base": "fusain:mini-sd",
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
FOR_LATENTS = [name for name in recipes.names() if recipes.load(name).values["family"]["kind"] == "sd"]


def test_they_are_all_here() -> None:
    assert FOR_LATENTS == [
        "caricature",
        "demo-character",
        "dreambooth",
        "dreambooth-lora",
        "lora",
        "sd15-dreambooth-12gb",
        "text-to-image",
        "textual-inversion",
    ]


@pytest.mark.parametrize("recipe", FOR_LATENTS)
def test_the_recipe_trains_and_draws(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    write_folder(portraits("Ada", 4), tmp_path / "images")
    own = {"data.path": str(tmp_path / "images"), "runs_folder": str(tmp_path), **OF_RECIPES.get(recipe, {})}
    run = actions.train(recipe, name="run", overrides=list((SMALL | own).items())).folder
    assert len(losses(run)) == 2
    prompt = "a <sks>" if recipe == "textual-inversion" else "a flat drawing of a person"
    (path,) = actions.generate(run, prompts=prompt, count=1, runs_folder=tmp_path).images
    with Image.open(path) as image:
        assert image.size == (64, 64)
        assert np.asarray(image).std() > 10
