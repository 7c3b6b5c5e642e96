"""The noise of a training step: its formulas in closed form, and that no image depends on its neighbours."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusain.data import chance
from fusain.data.batch import Batch
from fusain.models import noise
from fusain.models.families.pixel import Pixel
from fusain.models.family import Facts
from fusain.training import noises
from fusain.training.losses import LossSettings, denoising_loss, distance

DRAWS = np.arange(4)


def test_an_offset_moves_whole_channels() -> None:
    plain = chance.normal(7, DRAWS, "noise", (3, 8, 8))
    moved = noises.of_draws(7, DRAWS, (3, 8, 8), offset_by=0.1, discount=0.0)
    by = 0.1 * chance.normal(7, DRAWS, "noise offset", (3, 1, 1))
    torch.testing.assert_close(moved - plain, by.expand(4, 3, 8, 8), rtol=0, atol=1e-6)


def test_a_pyramid_is_the_sum_of_its_levels() -> None:
    """By hand, of 4 x 4: its levels are 2 x 2, which bilinear weights of 3/4 and 1/4 enlarge, and 1 x 1."""
    plain, levels = torch.randn(1, 1, 4, 4), {(1, 2, 2): torch.randn(1, 1, 2, 2), (1, 1, 1): torch.randn(1, 1, 1, 1)}
    found = noises.pyramid(plain, levels.__getitem__, 0.5)
    weights = torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    total = plain + 0.5 * weights @ levels[1, 2, 2] @ weights.T + 0.25 * levels[1, 1, 1]
    kept = (1 + 0.625 + 0.625 + 1) / 4
    torch.testing.assert_close(found, total / (1 + 0.5**2 * kept**2 + 0.25**2) ** 0.5)


def test_a_pyramid_varies_as_much_as_plain_noise() -> None:
    found = noises.of_draws(0, np.arange(3000), (2, 6, 9), offset_by=0.0, discount=0.7)
    assert found.square().mean().item() == pytest.approx(1.0, abs=0.03)
    neighbours = (found[..., 1:] * found[..., :-1]).mean().item()
    assert neighbours > 0.2, "coarse noise is alike in neighbours"


def family(prediction: noise.Prediction = "epsilon") -> Pixel:
    torch.manual_seed(0)
    made = Pixel(Pixel.tiny("none", Path()).model_copy(update={"prediction": prediction}), Facts())
    made.network.eval()
    return made


def batch(rows: Any = slice(None)) -> Batch:
    pixels = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Batch(DRAWS[rows], DRAWS[rows], pixels[rows], torch.ones(4)[rows])


OBJECTIVES = [
    {"noise_offset": 0.1},
    {"pyramid_discount": 0.4},
    {"input_perturbation": 0.1},
    {"debiased": True},
    {"p2_gamma": 1.0},
    {"min_snr_gamma": 5.0},
]


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=[next(iter(one)) for one in OBJECTIVES])
def test_an_objective_changes_training_but_no_image_by_its_neighbours(
    objective: dict[str, Any], prediction: noise.Prediction
) -> None:
    ours, settings = family(prediction), LossSettings(**objective)
    whole = denoising_loss(ours, batch(), settings, seed=1)
    assert not torch.allclose(whole.value, denoising_loss(ours, batch(), LossSettings(), seed=1).value)
    parts = [denoising_loss(ours, batch(slice(row, row + 1)), settings, seed=1).value for row in range(4)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole.value)
    quantiles = np.full(4, 0.5)
    held_out = denoising_loss(ours, batch(), settings, seed=0, quantiles=quantiles)
    plain = denoising_loss(ours, batch(), LossSettings(), seed=0, quantiles=quantiles)
    assert torch.equal(held_out.images_B, plain.images_B), "the held-out loss is of the noise that images start from"


def test_input_perturbation_asks_for_the_noise_alone() -> None:
    ours, given = family(), batch()
    fresh, other = (chance.normal(1, DRAWS, what, (3, 8, 8)) for what in ("noise", "input perturbation"))
    times = ours.times(torch.from_numpy(chance.uniform(1, DRAWS, "time")))
    with torch.no_grad():
        noisy = ours.add_noise(given.pixels_BCHW, fresh + 0.1 * other, times)
        expected = (ours.predict(noisy, times, None) - fresh).square().mean((1, 2, 3))
        found = denoising_loss(ours, given, LossSettings(input_perturbation=0.1), seed=1).images_B
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
@pytest.mark.parametrize("bias", [0.0, 1.0, 3.0])
def test_times_are_drawn_as_often_as_their_power_says(bias: float, prediction: noise.Prediction) -> None:
    ours = family(prediction)
    settings = LossSettings(time_bias=bias)
    found = denoising_loss(ours, batch(), settings, seed=1).times_B
    by_hand = torch.from_numpy(chance.uniform(1, DRAWS, "time")) ** (1 / (1 + bias))
    assert torch.equal(found, ours.times(by_hand))
    many = chance.uniform(1, np.arange(20_000), "time") ** (1 / (1 + bias))
    assert [(many < share).mean() for share in (0.25, 0.5, 0.75)] == pytest.approx(
        [share ** (1 + bias) for share in (0.25, 0.5, 0.75)], abs=0.01
    )


def test_distances_have_their_closed_form() -> None:
    errors = [-2.0, -0.5, -0.1, 0.0, 0.3, 0.6]

    def found(**settings: Any) -> list[float]:
        return distance(torch.tensor(errors), torch.zeros(len(errors)), LossSettings(**settings)).tolist()

    assert found(kind="l2") == pytest.approx([error**2 for error in errors])
    assert found(kind="l1") == pytest.approx([abs(error) for error in errors])
    assert found(kind="huber", huber_delta=0.5) == pytest.approx(
        [error**2 / 2 if abs(error) <= 0.5 else 0.5 * (abs(error) - 0.25) for error in errors]
    )


def test_of_three_ways_to_weigh_one_is_chosen() -> None:
    (fault,) = LossSettings(min_snr_gamma=5, p2_gamma=1).faults()
    assert str(fault) == (
        "E-CFG-033 Only one of min_snr_gamma and p2_gamma can say how much each noise level counts.\n"
        "Where: method.loss\n"
        "Do: Keep one, and set the others to 0 or false."
    )
    assert not list(LossSettings(debiased=True).faults())


def test_weights_of_images_still_count() -> None:
    ours = family()
    none = replace(batch(), weights_B=torch.zeros(4))
    assert denoising_loss(ours, none, LossSettings(debiased=True), seed=1).value == 0
