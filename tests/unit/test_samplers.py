"""Every sampler draws what diffusers draws with the same scheduler, beside whatever; what does not fit is told."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import diffusers
import numpy as np
import pytest
import torch

from fusain.errors import SettingsError, UsageError
from fusain.generation import samplers
from fusain.generation.generator import Wanted, generate
from fusain.generation.samplers import ELSEWHERE, SAMPLERS, SamplerName, SamplerSettings, make_scheduler
from fusain.models import noise
from fusain.models.families.pixel import Pixel, PixelSettings
from fusain.models.families.sd import StableDiffusion
from fusain.models.families.sdxl import StableDiffusionXL
from fusain.models.family import Facts, Family, NoiseSchedule
from fusain.models.flow import FlowSchedule
from fusain.settings.explain import nearest

NAMES = list(SAMPLERS)
TRAILING = {"timestep_spacing": "trailing"}
DPM = "DPMSolverMultistepScheduler"
IN_DIFFUSERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", TRAILING),
    "ddpm": ("DDPMScheduler", {"timestep_spacing": "leading"}),
    "dpm++-2m": (DPM, TRAILING),
    "dpm++-2m-karras": (DPM, {"use_karras_sigmas": True}),
    "dpm++-2m-sde": (DPM, {**TRAILING, "algorithm_type": "sde-dpmsolver++"}),
    "dpm++-2m-sde-karras": (DPM, {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", TRAILING),
    "euler": ("EulerDiscreteScheduler", TRAILING),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", TRAILING),
    "heun": ("HeunDiscreteScheduler", TRAILING),
    "pndm": ("PNDMScheduler", {"timestep_spacing": "leading", "skip_prk_steps": True}),
    "lcm": ("LCMScheduler", {}),
}
"""What a user of diffusers would write."""
STATIC = {"thresholding": True, "sample_max_value": 1.0}
OF_PIXELS = {DPM: STATIC, "UniPCMultistepScheduler": STATIC}
SEEDS = (3, 4, 5)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[StableDiffusion, Path]:
    base = tmp_path_factory.mktemp("base") / "tiny"
    return StableDiffusion(StableDiffusion.tiny("text", base), Facts()), base


@pytest.fixture(scope="module")
def pixel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pixel, Path]:
    family, folder = Pixel(Pixel.tiny("none", Path()), Facts()), tmp_path_factory.mktemp("pixel") / "weights"
    family.save(folder)
    return family, folder


def drawn(family: Family, settings: SamplerSettings, *, chunk: int = 3, seeds: Sequence[int] = SEEDS) -> np.ndarray:
    prompt = "a red hat" if family.condition == "text" else None
    wanted = [Wanted(seed, prompt=prompt) for seed in seeds]
    return np.stack([image.pixels for image in generate(family, wanted, settings, chunk=chunk)])


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    assert one.std() > 5, "an image of one grey says nothing"
    assert np.abs(one.astype(int) - other).max() <= 1


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def scheduler_of(name: str, config: Any, **also: Any) -> Any:
    class_name, settings = IN_DIFFUSERS[name]
    return getattr(diffusers, class_name).from_config(config, **settings, **also)


def test_each_name_has_its_row() -> None:
    assert get_args(SamplerName) == tuple(SAMPLERS)
    assert set(ELSEWHERE.values()) <= set(SAMPLERS)
    assert all(name == name.lower() and " " not in name and "_" not in name for name in [*SAMPLERS, *ELSEWHERE])


@pytest.mark.parametrize("name", NAMES)
def test_captions_draw_what_the_pipeline_of_diffusers_draws(text: tuple[StableDiffusion, Path], name: Any) -> None:
    family, base = text
    pipeline = diffusers.DiffusionPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = scheduler_of(name, pipeline.scheduler.config)
    theirs = pipeline(
        ["a red hat"] * 3, generator=generators(), num_inference_steps=6, guidance_scale=3.0, height=32, width=32
    ).images
    ours = drawn(family, SamplerSettings(sampler=name, steps=6, guidance=3.0))
    assert_same(ours, np.stack([np.asarray(image) for image in theirs]))


@pytest.fixture(scope="module")
def of_zero(text: tuple[StableDiffusion, Path]) -> tuple[StableDiffusion, Path]:
    """A base that predicts v and whose last time leaves nothing of the image, by its own configuration alone."""
    base = Path(shutil.copytree(text[1], text[1].with_name("zero")))
    path = base / "scheduler" / "scheduler_config.json"
    told = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | told))
    return StableDiffusion(StableDiffusion.Settings(base=str(base), size=32), Facts()), base


FROM_ZERO: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", TRAILING),
    "ddpm": ("DDPMScheduler", TRAILING),
    "dpm++-2m": (DPM, TRAILING),
    "dpm++-2m-sde": (DPM, {**TRAILING, "algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", TRAILING),
    "euler": ("EulerDiscreteScheduler", TRAILING),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", TRAILING),
    "lcm": ("LCMScheduler", {}),
}
"""What a user of diffusers would write where images start at the very last time, as Lin et al. 2024 have it."""


@pytest.mark.parametrize("name", FROM_ZERO)
def test_from_a_zero_terminal_snr_they_draw_what_the_pipeline_of_diffusers_draws(
    of_zero: tuple[StableDiffusion, Path], name: Any
) -> None:
    family, base = of_zero
    assert (family.schedule.prediction, family.schedule.zero_terminal_snr) == ("v", True)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    kind, settings = FROM_ZERO[name]
    pipeline.scheduler = getattr(diffusers, kind).from_config(pipeline.scheduler.config, **settings)
    theirs = pipeline(
        ["a red hat"] * 3, generator=generators(), num_inference_steps=6, guidance_scale=3.0, height=32, width=32
    ).images
    assert pipeline.scheduler.timesteps[0] == 999 or name == "lcm"
    ours = drawn(family, SamplerSettings(sampler=name, steps=6, guidance=3.0))
    assert_same(ours, np.stack([np.asarray(image) for image in theirs]))


def test_all_that_can_begin_at_zero_are_drawn_so() -> None:
    assert set(FROM_ZERO) == {name for name, row in SAMPLERS.items() if row.begins_at_zero}


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> tuple[StableDiffusionXL, Path]:
    base = tmp_path_factory.mktemp("xl") / "tiny"
    return StableDiffusionXL(StableDiffusionXL.tiny("text", base), Facts()), base


OF_XL = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
}
"""The noise of Stable Diffusion XL, from what is published of it."""
BY_HAND = {
    "dpm++-2m-karras": lambda: diffusers.DPMSolverMultistepScheduler(**OF_XL, **TRAILING, use_karras_sigmas=True),
    "euler": lambda: diffusers.EulerDiscreteScheduler(**OF_XL, **TRAILING),
    "euler-ancestral": lambda: diffusers.EulerAncestralDiscreteScheduler(**OF_XL, **TRAILING),
    "unipc": lambda: diffusers.UniPCMultistepScheduler(**OF_XL, **TRAILING),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_xl_draws_what_its_pipeline_of_diffusers_draws(xl: tuple[StableDiffusionXL, Path], name: Any) -> None:
    """With a scheduler of which every setting is written here."""
    family, base = xl
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(base, scheduler=BY_HAND[name]())
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        ["a red hat"] * 3, generator=generators(), num_inference_steps=6, guidance_scale=3.0, height=32, width=32
    ).images
    ours = drawn(family, SamplerSettings(sampler=name, steps=6, guidance=3.0))
    assert_same(ours, np.stack([np.asarray(image) for image in theirs]))


@pytest.mark.parametrize("name", NAMES)
def test_pixels_draw_what_the_scheduler_of_diffusers_draws(pixel: tuple[Pixel, Path], name: Any) -> None:
    family, folder = pixel
    unet = diffusers.UNet2DModel.from_pretrained(folder / "unet").eval()
    config = diffusers.DDPMScheduler.load_config(folder / "scheduler")
    scheduler = scheduler_of(name, config, **OF_PIXELS.get(IN_DIFFUSERS[name][0], {}))
    scheduler.set_timesteps(6)
    makers = generators()
    image = torch.cat([torch.randn(1, 3, 8, 8, generator=maker) for maker in makers]) * scheduler.init_noise_sigma
    fresh = {} if name in ("unipc", "heun", "pndm") else {"generator": makers}
    with torch.no_grad():
        for time in scheduler.timesteps:
            predicted = unet(scheduler.scale_model_input(image, time), time).sample
            image = scheduler.step(predicted, time, image, **fresh).prev_sample
    theirs = ((image / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert_same(drawn(family, SamplerSettings(sampler=name, steps=6)), theirs)


@pytest.mark.parametrize(("name", "steps", "eta"), [("ddpm", 25, 0.0), ("ddim", 10, 0.0), ("ddim", 10, 0.7)])
def test_pixels_draw_what_their_pipelines_in_diffusers_draw(
    pixel: tuple[Pixel, Path], name: Any, steps: int, eta: float
) -> None:
    family, folder = pixel
    kind = diffusers.DDPMPipeline if name == "ddpm" else diffusers.DDIMPipeline
    pipeline = kind.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = scheduler_of(name, pipeline.scheduler.config)
    extra = {"eta": eta} if name == "ddim" else {}
    theirs = pipeline(batch_size=3, generator=generators(), num_inference_steps=steps, **extra).images
    ours = drawn(family, SamplerSettings(sampler=name, steps=steps, eta=eta))
    assert_same(ours, np.stack([np.asarray(image) for image in theirs]))


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_change_an_image_by_rounding_at_most(
    pixel: tuple[Pixel, Path], text: tuple[StableDiffusion, Path], name: Any
) -> None:
    settings = SamplerSettings(sampler=name, steps=5, eta=0.5)
    for family, _ in (pixel, text):
        together = drawn(family, settings)
        assert_same(together, drawn(family, settings, chunk=1))
        assert_same(together[1:], drawn(family, settings, seeds=SEEDS[1:]))


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_knows_its_image_draws_it(name: Any, prediction: noise.Prediction, zero: bool) -> None:
    if zero and prediction == "epsilon":
        return
    short = NoiseSchedule("linear", 60, prediction, start=2e-3, end=0.3, zero_terminal_snr=zero)
    long = NoiseSchedule("linear", 1000, prediction, zero_terminal_snr=zero)
    for schedule in (short, long, NoiseSchedule.from_diffusers({}, prediction, zero_terminal_snr=zero)):
        for steps in (1, 2, 20, 50):
            settings = SamplerSettings(sampler=name, steps=steps)
            if samplers._unfit(SAMPLERS[name], schedule):
                continue
            if (name == "pndm" and steps < 20) or (name in ("pndm", "lcm") and schedule is short):
                continue  # PNDM extrapolates from steps before; LCM mixes in what was noisy: crude where times are few
            found = by_oracle(make_scheduler(settings, schedule), schedule, steps)
            # PNDM ends at the first time, where a little noise is left: 0.03 of it in Stable Diffusion.
            near = 0.1 if name == "pndm" else 0.05 if steps > 2 else 0.3
            torch.testing.assert_close(found, IMAGE, rtol=0, atol=near)


IMAGE = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)


def by_oracle(scheduler: Any, schedule: NoiseSchedule, steps: int) -> torch.Tensor:
    """Drawn by a model whose data is one image, whose best prediction therefore is known."""
    maker = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(steps)
    x = torch.randn(IMAGE.shape, generator=maker) * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        noisy = scheduler.scale_model_input(x, time)
        level = schedule.signal_level(time.round().long().reshape(1))
        fresh = (noisy - level.sqrt() * IMAGE) / (1 - level).sqrt()
        x = scheduler.step(noise.target(schedule.prediction, IMAGE, fresh, level), time, x).prev_sample
    return x


def test_all_times_in_order_where_as_many_steps_are_made() -> None:
    for of_latents in (False, True):
        schedule = NoiseSchedule("linear", 100, "epsilon", of_latents=of_latents)
        for name in ("ddpm", "pndm", "ddim"):
            scheduler = make_scheduler(SamplerSettings(sampler=name, steps=100), schedule)
            scheduler.set_timesteps(100)
            assert sorted(set(scheduler.timesteps.tolist())) == list(range(100))


def test_with_a_zero_terminal_snr_images_start_at_the_last_time() -> None:
    schedule = NoiseSchedule("linear", 100, "v", zero_terminal_snr=True)
    for name, row in SAMPLERS.items():
        if row.begins_at_zero:
            scheduler = make_scheduler(SamplerSettings(sampler=name, steps=7), schedule)
            scheduler.set_timesteps(7)
            assert scheduler.timesteps[0] == 99


def test_samplers_that_do_not_fit_are_told() -> None:
    def told(name: SamplerName, steps: int = 5, **schedule: Any) -> str:
        with pytest.raises(UsageError) as caught:
            make_scheduler(
                SamplerSettings(sampler=name, steps=steps),
                NoiseSchedule(**{"betas": "linear", "steps": 100, **schedule}),
            )
        return str(caught.value)

    assert told("pndm", prediction="sample") == (
        "E-GEN-012 Sampler 'pndm' does not fit this model: it cannot read a model that predicts the image itself "
        "(prediction = sample).\n"
        "Where: --sampler\n"
        "Do: Use one of: ddim, ddpm, dpm++-2m, dpm++-2m-karras, dpm++-2m-sde, dpm++-2m-sde-karras, unipc, euler, heun, "
        "lcm."
    )
    assert told("heun", prediction="v", zero_terminal_snr=True) == (
        "E-GEN-012 Sampler 'heun' does not fit this model: it cannot begin where nothing of the image is left "
        "(zero terminal SNR).\n"
        "Where: --sampler\n"
        "Do: Use one of: ddim, ddpm, dpm++-2m, dpm++-2m-sde, unipc, euler, euler-ancestral, lcm."
    )
    assert told("lcm", 60, prediction="v") == (
        "E-GEN-013 Sampler 'lcm' makes at most 50 steps with this model, and 60 were asked for.\n"
        "Where: --steps\n"
        "Do: Ask for 50 steps or less."
    )
    assert told("ddim", 101, prediction="v").startswith("E-GEN-013 Sampler 'ddim' makes at most 100 steps")


def test_of_a_flow_draw_those_that_follow_lines() -> None:
    schedule = FlowSchedule(shift=3.0)
    found = {name: row.of_flow for name, row in SAMPLERS.items() if row.of_flow}
    assert found == {
        "ddim": "FlowMatchEulerDiscreteScheduler",
        "euler": "FlowMatchEulerDiscreteScheduler",
        "heun": "FlowMatchHeunDiscreteScheduler",
    }
    for name, kind in found.items():
        made = make_scheduler(SamplerSettings(sampler=name), schedule)
        assert (type(made).__name__, made.config.shift, made.config.num_train_timesteps) == (kind, 3.0, 1000)

    def told(**settings: Any) -> str:
        with pytest.raises(UsageError) as caught:
            make_scheduler(SamplerSettings(**settings), schedule)
        return str(caught.value)

    assert told(sampler="dpm++-2m") == (
        "E-GEN-012 Sampler 'dpm++-2m' does not fit this model: it cannot draw from a model that matches a flow.\n"
        "Where: --sampler\n"
        "Do: Use one of: ddim, euler, heun."
    )
    assert told(sampler="ddim", eta=0.5) == (
        "E-GEN-014 This model draws along straight lines, to which no fresh noise is added, and an eta of 0.5 was "
        "asked for.\n"
        "Where: --eta\n"
        "Do: Leave it at 0."
    )
    make_scheduler(SamplerSettings(sampler="euler", eta=0.5), schedule)


@pytest.mark.parametrize("name", ["ddim", "euler", "heun"])
def test_a_flow_that_knows_its_image_draws_it(name: Any) -> None:
    for steps in (1, 5, 20):
        scheduler = make_scheduler(SamplerSettings(sampler=name, steps=steps), FlowSchedule(shift=3.0))
        scheduler.set_timesteps(steps)
        x = torch.randn(IMAGE.shape, generator=torch.Generator().manual_seed(0))
        for time in scheduler.timesteps:
            x = scheduler.step((x - IMAGE) / (time / 1000), time, x).prev_sample
        torch.testing.assert_close(x, IMAGE, rtol=0, atol=1e-4)


def test_a_zero_terminal_snr_and_epsilon_are_told() -> None:
    with pytest.raises(SettingsError) as caught:
        NoiseSchedule("linear", 10, "epsilon", zero_terminal_snr=True)
    assert str(caught.value) == (
        "E-CFG-032 A model that predicts the noise (epsilon) cannot learn a zero terminal SNR.\n"
        "Where: family.zero_terminal_snr\n"
        "Why: At the last time its input is the noise alone, so it would learn to repeat it, and no image could start "
        "there.\n"
        'Do: Set family.prediction = "v" (or "sample"), or leave zero_terminal_snr off.'
    )
    assert [str(fault) for fault in PixelSettings(zero_terminal_snr=True).faults()] == [str(caught.value)]
    assert not list(PixelSettings(zero_terminal_snr=True, prediction="sample").faults())


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("DPM++ 2M Karras", "dpm++-2m-karras"),
        ("DPM++ 2M SDE", "dpm++-2m-sde"),
        ("DPM++ SDE", "dpm++-2m-sde"),
        ("Euler a", "euler-ancestral"),
        ("euler_a", "euler-ancestral"),
        ("k_euler_a", "euler-ancestral"),
        ("EulerDiscreteScheduler", "euler"),
        ("DPMSolverMultistepScheduler", "dpm++-2m"),
        ("UniPC", "unipc"),
        ("PLMS", "pndm"),
        ("ddimm", "ddim"),
        ("zzz", None),
    ],
)
def test_names_of_other_tools_are_understood(name: str, ours: str | None) -> None:
    assert nearest(name, NAMES, ELSEWHERE) == ours


def test_eta_is_of_ddim_alone() -> None:
    assert SamplerSettings(eta=0.5).silent_settings() == {}
    assert SamplerSettings(sampler="euler", eta=0.5).silent_settings() == {"eta": "sampler euler has no eta"}
