"""The maths of noise against closed forms and against diffusers' schedulers."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

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


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_zero_terminal_snr_is_that_of_diffusers(name: noise.Betas) -> None:
    betas = noise.betas(name, 200)
    torch.testing.assert_close(noise.zero_terminal(betas), rescale_zero_terminal_snr(betas), rtol=1e-5, atol=1e-6)
    schedule = NoiseSchedule(name, 200, "v", zero_terminal_snr=True)
    first, last = schedule.signal_level(torch.tensor([0, 199])).tolist()
    assert (first, last) == (pytest.approx(1 - betas[0].item(), abs=1e-6), 0.0)
    scheduler = DDIMScheduler(**schedule.as_diffusers())
    torch.testing.assert_close(schedule.signal_level(torch.arange(200)), scheduler.alphas_cumprod, rtol=1e-4, atol=1e-6)


def test_whether_a_base_has_a_zero_terminal_snr_is_read_unless_it_is_said() -> None:
    config = {"rescale_betas_zero_snr": True}
    assert NoiseSchedule.from_diffusers(config, "v").zero_terminal_snr
    assert not NoiseSchedule.from_diffusers(config, "v", zero_terminal_snr=False).zero_terminal_snr
    assert not NoiseSchedule.from_diffusers({}, "v").zero_terminal_snr
    assert NoiseSchedule.from_diffusers({}, "v", zero_terminal_snr=True).as_diffusers()["rescale_betas_zero_snr"]


def test_a_model_of_images_is_asked_for_the_image() -> None:
    clean, fresh = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert noise.target("sample", clean, fresh, torch.full((4,), 0.3)) is clean


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


LEVEL = torch.tensor([0.1, 0.5, 0.9, 0.99])
SNR = [0.1 / 0.9, 1.0, 9.0, 99.0]


def test_debiased_weights_have_their_closed_form() -> None:
    assert noise.debiased_weight("epsilon", LEVEL).tolist() == pytest.approx([snr**-0.5 for snr in SNR], rel=1e-4)
    assert noise.debiased_weight("sample", LEVEL).tolist() == pytest.approx([snr**0.5 for snr in SNR], rel=1e-4)


def test_p2_weights_have_their_closed_form() -> None:
    assert noise.p2_weight("epsilon", LEVEL, 1.0).tolist() == pytest.approx([1 / (1 + snr) for snr in SNR], rel=1e-4)
    half = noise.p2_weight("epsilon", LEVEL, 0.5, k=2.0)
    assert half.tolist() == pytest.approx([(2 + snr) ** -0.5 for snr in SNR], rel=1e-4)


@pytest.mark.parametrize("weight", [lambda p, b: noise.min_snr_weight(p, b, 5.0), noise.debiased_weight,
                                    lambda p, b: noise.p2_weight(p, b, 1.0)])  # fmt: skip
def test_a_weight_means_the_same_whatever_is_predicted(weight) -> None:
    """One error of the image, seen as one of noise, of velocity and of image, counts alike."""
    x_t, clean, guess = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    level = LEVEL.reshape(-1, 1)

    def noise_in(image: torch.Tensor) -> torch.Tensor:
        return (x_t - level.sqrt() * image) / (1 - level).sqrt()

    counted = []
    for prediction in ("epsilon", "v", "sample"):
        right, wrong = (noise.target(prediction, one, noise_in(one), LEVEL) for one in (clean, guess))
        counted.append(weight(prediction, LEVEL) * (right - wrong).square().mean(1))
    torch.testing.assert_close(counted[1], counted[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(counted[2], counted[0], rtol=1e-4, atol=1e-6)
    time = 1 / (1 + torch.tensor(SNR).sqrt()).reshape(-1, 1)  # where a line from the image to the noise is as noisy
    ways = [(x_t - (1 - time) * one) / time - one for one in (clean, guess)]
    of_flow = weight("flow", LEVEL) * (ways[0] - ways[1]).square().mean(1)
    torch.testing.assert_close(of_flow, counted[0], rtol=1e-4, atol=1e-6)


def test_where_nothing_is_left_of_the_image_weights_are_finite() -> None:
    gone = torch.zeros(1)
    for prediction in ("v", "sample", "flow"):
        assert noise.min_snr_weight(prediction, gone, 5.0).tolist() == [0.0]
        assert noise.debiased_weight(prediction, gone).tolist() == [0.0]
        assert noise.p2_weight(prediction, gone, 1.0).tolist() == [0.0]
