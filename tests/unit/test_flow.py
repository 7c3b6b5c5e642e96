"""The maths of flow matching against closed forms and against diffusers' scheduler."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from fusain.models import flow

QUANTILES = (torch.arange(4000) + 0.5) / 4000


def test_uniform_times_are_the_quantiles() -> None:
    assert torch.equal(flow.uniform_times(QUANTILES), QUANTILES)


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (-0.5, 1.2)])
def test_logit_normal_times_have_a_normal_logit(mean: float, spread: float) -> None:
    times = flow.logit_normal_times(QUANTILES, mean, spread)
    assert torch.logit(times.double()).mean().item() == pytest.approx(mean, abs=1e-3)
    assert torch.logit(times.double()).std().item() == pytest.approx(spread, rel=5e-3)
    quarter = flow.logit_normal_times(torch.tensor([0.25]), mean, spread).item()
    assert quarter == pytest.approx(1 / (1 + math.exp(-(mean - 0.6744898 * spread))), rel=1e-5)
    ends = flow.logit_normal_times(torch.tensor([0.0, 1 - 2**-24]), mean, spread)
    assert ends[0] == 0
    assert 0.99 < ends[1] <= 1


def test_shifted_times_are_those_of_diffusers() -> None:
    times = torch.linspace(0.05, 1, 20)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=times.flip(0).tolist())
    torch.testing.assert_close(flow.shifted_times(times, 3.0).flip(0), scheduler.sigmas[:-1])
    assert flow.shifted_times(torch.tensor([0.0, 0.5, 1.0]), 3.0).tolist() == pytest.approx([0, 0.75, 1])
    torch.testing.assert_close(flow.shifted_times(times, 1.0), times)


def test_a_shift_keeps_the_doubt_of_a_larger_image() -> None:
    """Of n places with one value, the mean of the noisy ones tells it up to t / (1 - t) / sqrt(n)."""
    moved = flow.shifted_times(torch.tensor([0.3]), 2.0).item()
    assert moved / (1 - moved) / 128 == pytest.approx(0.3 / 0.7 / 64)


def test_noise_is_that_of_diffusers_and_the_target_leads_along_the_line() -> None:
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([0.0, 0.25, 1.0])
    noisy = flow.add_noise(clean, noise, times)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1.0, 0.25])
    theirs = scheduler.scale_noise(clean[1:2], scheduler.timesteps[1:2], noise[1:2])
    torch.testing.assert_close(noisy[1:2], theirs)
    assert torch.equal(noisy[0], clean[0])
    assert torch.equal(noisy[2], noise[2])
    back = noisy - times.reshape(-1, 1, 1, 1) * flow.target(clean, noise)
    torch.testing.assert_close(back, clean)


def test_a_schedule_draws_times_of_its_density_moved_towards_the_noise() -> None:
    uniform = flow.FlowSchedule(shift=3.0, density="uniform", steps=100)
    torch.testing.assert_close(uniform.times(torch.tensor([0.0, 0.5])), torch.tensor([3 / 102, 0.75]))
    normal = flow.FlowSchedule(shift=2.0, mean=0.5, spread=0.8)
    wanted = flow.shifted_times(flow.logit_normal_times(QUANTILES, 0.5, 0.8), 2.0)
    torch.testing.assert_close(normal.times(QUANTILES.double()), wanted)
    assert normal.times(torch.zeros(1)).item() == pytest.approx(2 / 1001)


def test_a_schedule_says_how_much_of_the_image_is_left() -> None:
    """As alpha-bar says it: its share by that of the noise is the signal-to-noise ratio."""
    level = flow.FlowSchedule().signal_level(torch.tensor([0.0, 0.25, 0.5, 1.0]))
    assert level.tolist() == pytest.approx([1, 0.9, 0.5, 0])


def test_a_schedule_is_read_from_diffusers_and_written_for_it() -> None:
    config = FlowMatchEulerDiscreteScheduler(shift=3.0, num_train_timesteps=500).config
    believed = flow.FlowSchedule.from_diffusers(config, density="uniform")
    assert believed == flow.FlowSchedule(shift=3.0, steps=500, density="uniform")
    assert believed.as_diffusers() == {"num_train_timesteps": 500, "shift": 3.0}
    assert flow.FlowSchedule.from_diffusers(config, shift=1.5).shift == 1.5
    assert flow.FlowSchedule.from_diffusers({}) == flow.FlowSchedule()
