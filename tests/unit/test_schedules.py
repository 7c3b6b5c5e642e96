"""Learning-rate schedules against their formulas, and against diffusers' own."""

import math
from typing import Any

import pytest
import torch
from diffusers import optimization

from fusain.training.schedules import ScheduleSettings, learning_rate


def rate(step: int, total: int = 110, warmup: int = 10, **settings: Any) -> float:
    return learning_rate(ScheduleSettings(warmup_steps=warmup, **settings), 1.0, step=step, total=total)


def test_schedules_at_their_corners() -> None:
    assert [rate(step, schedule="constant") for step in (0, 4, 9, 10, 109)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert [rate(step, schedule="linear") for step in (10, 60, 109)] == pytest.approx([1, 0.5, 0.01])
    assert [rate(step, schedule="cosine") for step in (10, 60, 109)] == pytest.approx(
        [1, 0.5, 0.5 * (1 + math.cos(math.pi * 0.99))]
    )


def test_rex_lies_above_the_line_and_ends_steeply() -> None:
    assert [rate(step, schedule="rex") for step in (10, 60, 85)] == pytest.approx([1, 0.5 / 0.75, 0.25 / 0.625])
    falls = [rate(step, schedule="rex") - rate(step + 1, schedule="rex") for step in range(10, 109)]
    assert falls == sorted(falls)
    assert all(rate(step, schedule="rex") > rate(step, schedule="linear") for step in range(11, 110))


def test_stable_rate_falls_in_its_last_share_only() -> None:
    found = [rate(step, schedule="warmup_stable_decay", schedule_decay=0.4) for step in (10, 69, 70, 80, 109)]
    assert found == pytest.approx([1, 1, 1, 1 - math.sqrt(0.25), 1 - math.sqrt(0.975)])
    assert rate(59, schedule="warmup_stable_decay", schedule_decay=1.0) == pytest.approx(1 - math.sqrt(0.49))


def test_cosine_starts_anew() -> None:
    found = [rate(step, 310, schedule="cosine_with_restarts") for step in (10, 60, 109, 110, 160, 210)]
    assert found == pytest.approx([1, 0.5, 0.5 * (1 + math.cos(math.pi * 0.99)), 1, 0.5, 1])


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        ({"schedule": "linear"}, lambda one: optimization.get_linear_schedule_with_warmup(one, 0, 90)),
        ({"schedule": "cosine"}, lambda one: optimization.get_cosine_schedule_with_warmup(one, 0, 90)),
        (
            {"schedule": "cosine_with_restarts", "schedule_cycles": 4},
            lambda one: optimization.get_cosine_with_hard_restarts_schedule_with_warmup(one, 0, 90, num_cycles=4),
        ),
        (
            {"schedule": "polynomial", "schedule_power": 3.0},
            lambda one: optimization.get_polynomial_decay_schedule_with_warmup(one, 0, 90, lr_end=0.0, power=3.0),
        ),
    ],
    ids=["linear", "cosine", "restarts", "polynomial"],
)
def test_schedules_are_those_of_diffusers(settings: dict[str, Any], theirs: Any) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = theirs(optimizer)
    for step in range(90):
        assert rate(step, 90, 0, **settings) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12), step
        optimizer.step()
        scheduler.step()
