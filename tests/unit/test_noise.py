"""The maths of noise against closed forms and against diffusers' schedulers."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from fusain.models import noise
from fusain.models.family import NoiseSchedule

SCHEDULES = ("linear", "scaled_linear", "cosine")


@pytest.mark.parametrize("name", SCHEDULES)
def test_betas_and_levels_are_those_of_diffusers(name: noise.Betas) -> None:
    scheduler = DDPMScheduler(**NoiseSchedule(name, 200, "epsilon").as_diffusers())
    betas = noise.betas(name, 200)
    torch.testing.assert_close(betas, scheduler.betas, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(noise.signal_levels(betas), scheduler.alphas_cumprod, rtol=1e-5, atol=1e-7)


def test_linear_levels_have_their_closed_form() -> None:
    betas = noise.betas("linear", 1000)
    assert betas[0].item() == pytest.approx(1e-4)
    assert betas[-1].item() == pytest.approx(0.02)
    by_hand = math.exp(sum(math.log(1 - (1e-4 + (0.02 - 1e-4) * index / 999)) for index in range(1000)))
    assert noise.signal_levels(betas)[-1].item() == pytest.approx(by_hand, rel=1e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_noise_and_targets_are_those_of_diffusers(prediction: noise.Prediction) -> None:
    generator = torch.Generator().manual_seed(1)
    clean, fresh = torch.randn(4, 3, 8, 8, generator=generator), torch.randn(4, 3, 8, 8, generator=generator)
    times = torch.tensor([0, 3, 77, 199])
    scheduler = DDIMScheduler(**NoiseSchedule("cosine", 200, prediction).as_diffusers())
    level = noise.signal_levels(noise.betas("cosine", 200))[times]
    torch.testing.assert_close(noise.add_noise(clean, fresh, level), scheduler.add_noise(clean, fresh, times))
    wanted = fresh if prediction == "epsilon" else scheduler.get_velocity(clean, fresh, times)
    torch.testing.assert_close(noise.target(prediction, clean, fresh, level), wanted)


def test_min_snr_weights_have_their_closed_form() -> None:
    level = torch.tensor([0.1, 0.5, 0.9, 0.99])
    snr = [0.1 / 0.9, 1.0, 9.0, 99.0]
    epsilon = noise.min_snr_weight("epsilon", level, 5.0)
    assert epsilon.tolist() == pytest.approx([min(value, 5) / value for value in snr], rel=1e-4)
    velocity = noise.min_snr_weight("v", level, 5.0)
    assert velocity.tolist() == pytest.approx([min(value, 5) / (value + 1) for value in snr], rel=1e-4)
