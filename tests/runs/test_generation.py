"""Images: the same pixels from every door, at every batch size, and in plain diffusers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fusain.cli import main as command
from fusain.errors import FusainError, UsageError
from fusain.generation.samplers import SamplerSettings
from fusain.runs import actions
from tests.runs.training import flat, train_here, write_settings

DDIM = SamplerSettings(sampler="ddim", steps=5, guidance=2.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, sprites: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    settings = write_settings(folder, sprites)
    train_here(settings, "classes", folder, {"samples.every_steps": 15, "samples.count": 2, "samples.guidance": 2.0})
    train_here(settings, "plain", folder, {"family.condition": "none", "samples.every_steps": 15})
    return folder


def test_samples_of_a_training_are_what_generate_draws(trained: Path, tmp_path: Path) -> None:
    for run in ("classes", "plain"):
        count = 2 if run == "classes" else 1
        drawn = actions.generate(trained / run, count=count, checkpoint="step-00000030", output=tmp_path / run)
        sampled = sorted((trained / run / "samples" / "step-00000030").glob("0*.png"))
        assert len(sampled) == len(drawn.images) == (10 if run == "classes" else 1)
        for one, other in zip(flat(sampled), flat(drawn.images), strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "sampler",
    [
        DDIM,
        SamplerSettings(sampler="ddim", steps=5, eta=1.0),
        SamplerSettings(sampler="ddpm", steps=10),
        SamplerSettings(sampler="dpm++-2m-sde", steps=5, guidance=2.0),
    ],
)
def test_batch_size_changes_an_image_by_rounding_at_most(
    trained: Path, tmp_path: Path, sampler: SamplerSettings
) -> None:
    drawn = {
        chunk: flat(
            actions.generate(
                trained / "classes",
                labels=["spell"],
                count=16,
                chunk=chunk,
                sampler=sampler,
                output=tmp_path / str(chunk),
            ).images
        )
        for chunk in (1, 3, 16)
    }
    for chunk in (1, 3):
        differences = [
            np.abs(one.astype(int) - other).max() for one, other in zip(drawn[chunk], drawn[16], strict=True)
        ]
        assert max(differences) <= 1


def test_at_one_chunk_size_neighbours_change_no_bit(trained: Path, tmp_path: Path) -> None:
    here = actions.generate(trained / "classes", labels=["food"], count=8, seed=0, chunk=4, output=tmp_path / "here")
    there = actions.generate(trained / "classes", labels=["food"], count=8, seed=3, chunk=4, output=tmp_path / "there")
    for one, other in zip(flat(here.images)[3:], flat(there.images), strict=False):
        assert np.array_equal(one, other)


def test_average_and_raw_weights_draw_different_images(trained: Path, tmp_path: Path) -> None:
    average = actions.generate(trained / "plain", count=1, sampler=DDIM, output=tmp_path / "average")
    raw = actions.generate(trained / "plain", count=1, sampler=DDIM, weights="raw", output=tmp_path / "raw")
    assert not np.array_equal(flat(average.images)[0], flat(raw.images)[0])


def test_images_carry_their_facts(trained: Path, tmp_path: Path) -> None:
    drawn = actions.generate(
        trained / "classes", labels=["spell=0.6,food=0.4"], count=1, seed=7, output=tmp_path / "facts"
    )
    text = Image.open(drawn.images[0]).text
    facts = json.loads(text["fusain"])
    assert facts["label"] == "spell=0.6,food=0.4"
    assert (facts["seed"], facts["run"], facts["step"], facts["sampler"]) == (7, "classes", 30, "ddim")
    assert text["parameters"] == "spell=0.6,food=0.4\nSteps: 2, Sampler: ddim, CFG scale: 2.0, Seed: 7"
    assert drawn.sheet.exists()


def test_plain_diffusers_draws_the_same_pixels(trained: Path, tmp_path: Path) -> None:
    from diffusers import DDPMPipeline

    ours = actions.generate(
        trained / "plain", count=2, seed=5, sampler=SamplerSettings(sampler="ddpm", steps=50), output=tmp_path / "ours"
    )
    pipeline = DDPMPipeline.from_pretrained(trained / "plain" / "weights")
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    theirs = pipeline(batch_size=2, generator=generators, num_inference_steps=50).images
    for one, other in zip(flat(ours.images), theirs, strict=True):
        assert np.abs(one.astype(int) - np.asarray(other)).max() <= 1


def test_classes_draw_in_plain_diffusers_in_ten_lines(trained: Path, tmp_path: Path) -> None:
    ours = actions.generate(
        trained / "classes",
        labels=["spell=40"],
        count=1,
        seed=5,
        sampler=SamplerSettings(steps=5),
        output=tmp_path / "ours",
    )
    image = ten_lines(trained / "classes" / "weights", spell=40)
    assert np.abs(flat(ours.images)[0].astype(int) - image).max() <= 1
    assert not np.array_equal(image, ten_lines(trained / "classes" / "weights", spell=0)), "the class has no effect"


def ten_lines(weights: Path, spell: float) -> np.ndarray:
    """What the how-to shows, as a function."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(weights / "unet")
    scheduler = DDIMScheduler.from_pretrained(weights / "scheduler", timestep_spacing="trailing")
    layers = load_file(weights / "class_embedding.safetensors")
    label = torch.tensor([[0.0, 0, 0, 0, spell]])  # one number a class, in the order of fusain.json
    hidden = torch.nn.functional.gelu(label @ layers["layers.0.weight"].T + layers["layers.0.bias"])
    context = (hidden @ layers["layers.3.weight"].T + layers["layers.3.bias"]).unsqueeze(1)
    image = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    scheduler.set_timesteps(5)
    for time in scheduler.timesteps:
        image = scheduler.step(unet(image, time, context).sample, time, image).prev_sample
    return ((image[0] / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).detach().numpy()


def test_images_themselves_are_learnt_from_nothing_and_drawn(trained: Path, tmp_path: Path) -> None:
    """The image as prediction, a zero terminal SNR, and noise of many scales, from the settings to plain diffusers."""
    from diffusers import DPMSolverMultistepScheduler, UNet2DModel

    changes = {
        "family.condition": "none",
        "family.prediction": "sample",
        "family.zero_terminal_snr": True,
        "method.loss.pyramid_discount": 0.3,
        "method.loss.input_perturbation": 0.1,
        "method.loss.p2_gamma": 1.0,
        "samples.sampler": "dpm++-2m",
        "samples.steps": 5,
    }
    train_here(trained / "tiny.toml", "images", tmp_path, changes)
    ours = flat(actions.generate(tmp_path / "images", count=1, seed=5, output=tmp_path / "ours").images)[0]
    unet = UNet2DModel.from_pretrained(tmp_path / "images" / "weights" / "unet").eval()
    scheduler = DPMSolverMultistepScheduler.from_pretrained(
        tmp_path / "images" / "weights" / "scheduler",
        timestep_spacing="trailing",
        thresholding=True,
        sample_max_value=1.0,
    )
    assert (scheduler.config.prediction_type, scheduler.config.rescale_betas_zero_snr) == ("sample", True)
    scheduler.set_timesteps(5)
    image = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(5)) * scheduler.init_noise_sigma
    with torch.no_grad():
        for time in scheduler.timesteps:
            image = scheduler.step(unet(image, time).sample, time, image).prev_sample
    theirs = ((image[0] / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_the_command_says_what_it_makes_of_a_sampler(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            command.main(["generate", str(trained / "plain"), "--count", "1", "-o", str(tmp_path / "drawn"), *words])
        return int(caught.value.code or 0), capsys.readouterr().err

    assert said("--sampler", "unipc", "--steps", "3", "--eta", "0.5") == (
        0,
        "Warning: W-CFG-002 'eta' has no effect in this run: sampler unipc has no eta. (--eta)\n",
    )
    code, text = said("--sampler", "Euler a")
    assert (code, "'Euler a' is no sampler; did you mean euler-ancestral?" in text) == (2, True)
    code, text = said("--sampler", "zzz")
    assert (code, "'zzz' is no sampler; use one of: ddim, ddpm, dpm++-2m, " in text) == (2, True)
    code, text = said("--sampler", "lcm", "--steps", "51")
    assert (code, text.splitlines()[0]) == (
        2,
        "E-GEN-013 Sampler 'lcm' makes at most 50 steps with this model, and 51 were asked for.",
    )


def test_a_sampler_that_does_not_fit_is_told_before_the_training(trained: Path, tmp_path: Path) -> None:
    def told(**changes: object) -> str:
        with pytest.raises(FusainError) as caught:
            train_here(trained / "tiny.toml", "unfit", tmp_path, {"samples.every_steps": 5, **changes})
        return str(caught.value)

    unfit = told(**{"family.prediction": "sample", "samples.sampler": "pndm"})
    assert unfit.splitlines()[:2] == [
        "E-GEN-012 Sampler 'pndm' does not fit this model: it cannot read a model that predicts the image itself "
        "(prediction = sample).",
        "Where: samples.sampler",
    ]
    many = told(**{"samples.steps": 51})
    assert many.splitlines()[:2] == [
        "E-GEN-013 Sampler 'ddim' makes at most 50 steps with this model, and 51 were asked for.",
        "Where: samples.steps",
    ]
    unknown = told(**{"samples.sampler": "euler_a"})
    assert unknown.splitlines()[-1] == "Do: Did you mean 'euler-ancestral'?"
    assert told(**{"family.zero_terminal_snr": True}).startswith("E-CFG-032 A model that predicts the noise (epsilon)")
    assert told(**{"method.loss.debiased": True, "method.loss.p2_gamma": 1.0}).startswith(
        "E-CFG-033 Only one of debiased and p2_gamma can say"
    )


def test_wrong_wishes_are_told(trained: Path, tmp_path: Path) -> None:
    def told(run: str, **wishes: object) -> str:
        with pytest.raises(UsageError) as caught:
            actions.generate(trained / run, output=tmp_path / "none", **wishes)
        return str(caught.value)

    assert told("classes", labels=["spel"]) == (
        "E-GEN-001 No class is called 'spel'.\n"
        "Where: --label\n"
        "Do: Use one of: food, human, non-human, side-facing, spell."
    )
    assert told("classes", labels=["spell=much"]) == (
        "E-GEN-002 The share 'much' of class 'spell' is not a number.\n"
        "Where: --label\n"
        "Do: Write a mixture as: spell=0.6,food=0.4"
    )
    assert told("plain", labels=["spell"]) == (
        "E-GEN-004 Run 'plain' was trained without classes, so no label steers it.\n"
        "Where: --label\n"
        "Do: Leave --label out."
    )
    assert told("plain", seed=2**32) == (
        "E-GEN-003 Seed 4294967296 is out of range: seeds go from 0 to 4294967295.\n"
        "Where: --seed\n"
        "Why: The random generator reads 32 bits of a seed; larger ones would repeat images.\n"
        "Do: Choose a smaller seed."
    )
    assert told("plain", checkpoint="step-7") == (
        "E-RUN-008 No checkpoint is called 'step-7'.\n"
        f"Where: {trained / 'plain' / 'checkpoints'}\n"
        "Do: Checkpoints here: step-00000020, step-00000025, step-00000030."
    )
