"""The recipe that keeps all weights of XL in bf16, as it is, on the smallest one: to equal bits, saved and drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fusain.models.bases import fresh
from fusain.runs import actions
from fusain.runs.settings import RunSettings
from fusain.worlds.caricatures import world, write_folder
from tests.runs.training import assert_equal_runs, final_state, flat, kinds, losses, train_here

RECIPE = Path("sdxl-full-10gb")
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What makes it small, and nothing of what it is about."""
    folder = tmp_path_factory.mktemp("narrow_xl")
    fresh.write(fresh.TINY_XL, folder / "base")
    write_folder(world(8, seed=4), folder / "faces")
    small = {"family.base": str(folder / "base"), "family.size": 32, "data.path": str(folder / "faces")}
    short = {"train.steps": 4, "train.warmup_steps": 1, "train.learning_rate": 1e-3, "checkpoint.every_steps": 2}
    return small | short | {"samples.steps": 2, "engine.device": "cpu", "engine.threads": 1}


@pytest.fixture(scope="module")
def whole(own: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    runs = tmp_path_factory.mktemp("narrow_runs")
    train_here(RECIPE, "whole", runs, own)
    return runs / "whole"


def test_it_learns_in_bf16_one_weight_after_the_other(whole: Path) -> None:
    settings = RunSettings.model_validate_json((whole / "settings.json").read_text())
    assert (settings.engine.weights, settings.engine.precision) == ("bf16", "bf16")
    assert (settings.train.optimizer, settings.train.fused_backward) == ("adafactor", True)
    assert sorted(losses(whole)) == [1, 2, 3, 4]
    state = final_state(whole)
    kinds_of = {(one.dim() > 1, one.dtype) for key, one in state.items() if key.startswith("trainable")}
    assert kinds_of == {(True, torch.bfloat16), (False, torch.float32)}


def test_a_stopped_run_goes_on_to_the_same_bits(own: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 2:
            (tmp_path / "stopped" / "stop").touch()

    assert train_here(RECIPE, "stopped", tmp_path, own, report=stop).step == 2
    train_here(RECIPE, "stopped", tmp_path, own, resume="must")
    assert kinds(tmp_path / "stopped", "resumed")
    assert_equal_runs(whole, tmp_path / "stopped")


def test_what_is_saved_is_read_by_diffusers_and_drawn_alike(own: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    """What was learnt is in the file, which draws the same here and there."""
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    before, after = load_file(Path(own["family.base"]) / UNET), load_file(whole / "weights" / UNET)
    assert before.keys() == after.keys()
    assert all(bool(one.isfinite().all()) for one in after.values())
    assert sum(not torch.equal(before[name].float(), after[name].float()) for name in after) > len(after) / 2
    drawn = actions.generate(whole, prompts=["a red hat"], count=1, output=tmp_path / "drawn")
    pipeline = StableDiffusionXLPipeline.from_pretrained(whole / "weights")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    options = {"num_inference_steps": 2, "guidance_scale": 7.0, "height": 32, "width": 32}
    (theirs,) = pipeline("a red hat", generator=torch.Generator().manual_seed(0), **options).images
    (ours,) = flat(drawn.images)
    assert ours.std() > 5, "an image of one grey says nothing"
    assert np.abs(ours.astype(int) - np.asarray(theirs)).max() <= 1
